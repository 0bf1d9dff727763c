"""Pairs of different photos that share much: a background, an object, or the template of a stock-photo agency."""

import cv2
import numpy as np
from copy_families import draw_overlay

KINDS = ("one background, other objects", "one object, other backgrounds", "one template")


def make_look_alikes(kind: str, photos: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Make two photos that are no copies, of `KINDS`, from three different ones (uint8 RGB)."""
    first, second, third = (cv2.resize(photo, photos[0].shape[1::-1]) for photo in photos)
    if kind == "one template":
        seed = int(rng.integers(2**31))
        return [draw_overlay(photo.copy(), np.random.default_rng(seed)) for photo in (first, second)]
    inside = _blob(first.shape[:2], rng.uniform(0.15, 0.4), rng)
    if kind == "one object, other backgrounds":
        return [np.where(inside, first, other) for other in (second, third)]
    return [np.where(inside, other, first) for other in (second, third)]


def _blob(shape: tuple[int, int], share: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random ellipse that covers a share of the picture: bool of shape (height, width, 1)."""
    stretch = rng.uniform(0.7, 1.5)
    axes = [
        round(length * (share / np.pi) ** 0.5 * by)
        for length, by in zip(shape[::-1], (stretch, 1 / stretch), strict=True)
    ]
    centre = [round(length * rng.uniform(0.35, 0.65)) for length in shape[::-1]]
    return (cv2.ellipse(np.zeros(shape, np.uint8), centre, axes, 0, 0, 360, 255, -1) > 0)[..., None]
