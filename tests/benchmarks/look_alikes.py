"""Pairs of different photos that share much: a background, an object, a scene, or the template of an agency."""

import cv2
import numpy as np
from copy_families import draw_overlay

KINDS = {  # and the number of photos that a pair is made from
    "one background, other objects": 3,
    "one object, other backgrounds": 3,
    "one template": 2,
    "two angles": 1,
    "before and after a repair": 2,
}


def make_look_alikes(kind: str, photos: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Make two photos that are no copies, of `KINDS`, from as many different ones as that needs (uint8 RGB)."""
    first, *others = (cv2.resize(photo, photos[0].shape[1::-1]) for photo in photos)
    if kind == "one template":
        seed = int(rng.integers(2**31))
        return [draw_overlay(photo.copy(), np.random.default_rng(seed)) for photo in (first, *others)]
    if kind in ("two angles", "before and after a repair"):
        inside = _blob(first.shape[:2], rng.uniform(0.2, 0.4), rng)
        other = _from_another_angle(first, inside, rng)
        return [first, _repair(other, others[0], rng) if kind == "before and after a repair" else other]
    inside = _blob(first.shape[:2], rng.uniform(0.15, 0.4), rng)
    if kind == "one object, other backgrounds":
        return [np.where(inside, first, other) for other in others]
    return [np.where(inside, other, first) for other in others]


def _from_another_angle(photo: np.ndarray, inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the scene after a step to the side: the near part moves and turns against the far part."""
    height, width = photo.shape[:2]
    step = rng.uniform(0.12, 0.25) * width * rng.choice([-1, 1])
    far, near = (_perspective((height, width), 0.06, rng) for _ in range(2))
    near = near @ np.array([[1, 0, step], [0, 1, rng.uniform(-0.05, 0.05) * height], [0, 0, 1]])
    options = {"dsize": (width, height), "borderMode": cv2.BORDER_REFLECT_101}
    covered = cv2.warpPerspective(inside.astype(np.uint8), near, (width, height))[..., None] > 0
    return np.where(
        covered, cv2.warpPerspective(photo, near, **options), cv2.warpPerspective(_erase(photo, inside), far, **options)
    )


def _erase(photo: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Fill a part of a photo with what surrounds it."""
    small = cv2.resize(photo, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(inside.astype(np.uint8), small.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    filled = cv2.resize(cv2.inpaint(small, mask, 3, cv2.INPAINT_TELEA), photo.shape[1::-1])
    return np.where(inside, filled, photo)


def _repair(photo: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace a small part of a photo by one of another, softly."""
    inside = _blob(photo.shape[:2], rng.uniform(0.04, 0.1), rng).astype(np.float32)
    share = cv2.GaussianBlur(inside, (0, 0), 3)[..., None]
    return (photo * (1 - share) + other * share).astype(np.uint8)


def _perspective(shape: tuple[int, int], extent: float, rng: np.random.Generator) -> np.ndarray:
    """Return a homography that moves the corners by up to a share of the sides."""
    height, width = shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + rng.uniform(-extent, extent, (4, 2)) * (width, height)
    return cv2.getPerspectiveTransform(corners, moved.astype(np.float32))


def _blob(shape: tuple[int, int], share: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random ellipse that covers a share of the picture: bool of shape (height, width, 1)."""
    stretch = rng.uniform(0.7, 1.5)
    axes = [
        round(length * (share / np.pi) ** 0.5 * by)
        for length, by in zip(shape[::-1], (stretch, 1 / stretch), strict=True)
    ]
    centre = [round(length * rng.uniform(0.35, 0.65)) for length in shape[::-1]]
    return (cv2.ellipse(np.zeros(shape, np.uint8), centre, axes, 0, 0, 360, 255, -1) > 0)[..., None]
