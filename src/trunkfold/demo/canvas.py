"""An image to draw on with OpenCV, and basic shapes.

The unit of length is the image's height: x ranges from 0 to 4/3, y from 0 (top) to 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import ArrayLike

Colour = tuple[float, float, float]
ASPECT = 4 / 3
SHIFT = 4  # fractional bits of coordinates: OpenCV draws with a precision of 1/16 pixel
TURN = 2 * np.pi


class Canvas:
    """An RGB image with drawing methods; the unit of length is the image's height."""

    def __init__(self, height: int):
        self.height = height
        self.pixels = np.zeros((height, round(height * ASPECT), 3), np.uint8)

    def fill(self, points: ArrayLike, colour: Colour, alpha: float = 1.0) -> None:
        """Fill the polygon `points` (n, 2)."""
        layer = self.pixels if alpha == 1 else self.pixels.copy()
        cv2.fillPoly(layer, [self._fixed(points)], colour, cv2.LINE_AA, SHIFT)
        self._blend(layer, alpha)

    def line(self, points: ArrayLike, colour: Colour, width: float, alpha: float = 1.0, closed: bool = False) -> None:
        """Draw a line through `points` (n, 2)."""
        layer = self.pixels if alpha == 1 else self.pixels.copy()
        pixels = max(1, round(width * self.height))
        cv2.polylines(layer, [self._fixed(points)], closed, colour, pixels, cv2.LINE_AA, SHIFT)
        self._blend(layer, alpha)

    def mask(self, points: ArrayLike) -> np.ndarray:
        """Return the share of each pixel that is inside the polygon: (height, width, 1), from 0 to 1."""
        layer = np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.fillPoly(layer, [self._fixed(points)], 255, cv2.LINE_AA, SHIFT)
        return layer[..., None] / np.float32(255)

    def multiply(self, factor: np.ndarray) -> None:
        """Brighten or darken the pixels by `factor`, which broadcasts to (height, width, 3)."""
        self.pixels = np.clip(self.pixels * factor, 0, 255).astype(np.uint8)

    def soften(self, contrast: float, grey: float) -> None:
        """Reduce the contrast to `contrast` (0..1) by blending with `grey` (0..255)."""
        self.pixels = cv2.addWeighted(self.pixels, contrast, np.full_like(self.pixels, round(grey)), 1 - contrast, 0)

    @contextmanager
    def inside(self, mask: np.ndarray) -> Iterator[None]:
        """Limit what the block draws to a mask (height, width, 1)."""
        before = self.pixels.copy()
        yield
        self.pixels = (before + (self.pixels.astype(np.float32) - before) * mask).astype(np.uint8)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of every pixel, each of shape (height, width, 1)."""
        y, x = np.mgrid[: self.pixels.shape[0], : self.pixels.shape[1]].astype(np.float32) / self.height
        return x[..., None], y[..., None]

    def _fixed(self, points: ArrayLike) -> np.ndarray:
        return np.round(np.asarray(points) * self.height * 2**SHIFT).astype(np.int32)

    def _blend(self, layer: np.ndarray, alpha: float) -> None:
        if alpha < 1:
            self.pixels = cv2.addWeighted(layer, alpha, self.pixels, 1 - alpha, 0)


def jagged(
    start: np.ndarray, angle: float, length: float, rng: np.random.Generator, centred: bool = True, wild: float = 0.022
) -> np.ndarray:
    """Return a random zigzag (9, 2) of `length`, starting at or centred on `start`; `wild` scales its deviations."""
    steps = (np.linspace(0, 1, 9) - 0.5 * centred)[:, None] * length
    stray = rng.uniform(-wild, wild, (9, 2)) * (np.arange(9) > 0)[:, None]
    return start + steps * directions(angle) + stray


def directions(angles: np.ndarray | float) -> np.ndarray:
    """Return the unit vectors (..., 2) of angles."""
    return np.stack((np.cos(angles), np.sin(angles)), -1)


def ellipse(middle: ArrayLike, wide: float, high: float, corners: int = 32) -> np.ndarray:
    """Return an ellipse around `middle` with half-axes `wide` and `high`, as a polygon (corners, 2)."""
    angles = np.arange(corners) * TURN / corners
    return middle + directions(angles) * (wide, high)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return a rectangle (4, 2)."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
