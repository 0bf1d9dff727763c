"""Views of a photo by region, mirroring and scale, for test-time augmentation, and statistics of plain views."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from trunkfold.config.schema import Normalization
from trunkfold.errors import InputError, nearest

STRIDE = 32  # total stride of ConvNeXt


@dataclass(frozen=True)
class View:
    """A rendering of a photo for the model.

    Attributes:
        box: Left, top, right and bottom edge of the region, as shares of width and height.
        mirror: Whether to flip horizontally.
        strides: Number of 32-pixel strides to add to the model's input size.
    """

    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    mirror: bool = False
    strides: int = 0


# The plain view is the whole photo resized to a square, not a centre crop, because damage may be at the border.
VIEWS = {
    "plain": View(),
    "hflip": View(mirror=True),
    "larger": View(strides=1),
    "larger_hflip": View(strides=1, mirror=True),
    "smaller": View(strides=-1),
    "smaller_hflip": View(strides=-1, mirror=True),
    "centre": View(box=(0.1, 0.1, 0.9, 0.9)),
    "centre_hflip": View(box=(0.1, 0.1, 0.9, 0.9), mirror=True),
    "top_left": View(box=(0.0, 0.0, 0.8, 0.8)),
    "top_right": View(box=(0.2, 0.0, 1.0, 0.8)),
    "bottom_left": View(box=(0.0, 0.2, 0.8, 1.0)),
    "bottom_right": View(box=(0.2, 0.2, 1.0, 1.0)),
}


def check_views(names: Sequence[str]) -> None:
    """Raise an `InputError` that lists the known views if a name is unknown."""
    unknown = [name for name in names if name not in VIEWS]
    if unknown:
        near = ", ".join(nearest(name, VIEWS) for name in unknown)
        raise InputError(
            f"predict.views: there is no view {', '.join(unknown)}; the nearest is {near} of {', '.join(VIEWS)}"
        )


def render(pixels: np.ndarray, view: View, size: int) -> np.ndarray:
    """Render a view of a photo.

    Args:
        pixels: uint8 of shape (height, width, 3).
        size: Side of the model's input in pixels.

    Returns:
        uint8 of shape (side, side, 3); `side` is `size` plus the view's strides.
    """
    side = max(size + view.strides * STRIDE, min(size, STRIDE))
    height, width = pixels.shape[:2]
    left, top, right, bottom = view.box
    part = pixels[_span(top, bottom, height), _span(left, right, width)]
    shrinks = part.shape[0] >= side and part.shape[1] >= side
    shown = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(shown[:, ::-1]) if view.mirror else shown


def measure_normalization(pixels: Sequence[np.ndarray], rows: np.ndarray, size: int) -> Normalization:
    """Measure mean and standard deviation of each channel, scaled to 0 .. 1, over the plain views of some photos.

    Args:
        pixels: uint8 of shape (height, width, 3) by row.
        size: Side of the model's input in pixels.
    """
    moments = np.zeros((2, 3))
    for row in rows:
        mean, std = cv2.meanStdDev(render(pixels[row], VIEWS["plain"], size))
        moments += np.array([mean, std**2 + mean**2])[..., 0] / len(rows)
    mean, std = moments[0], np.sqrt(moments[1] - moments[0] ** 2)
    std = std.clip(1)  # avoids dividing a constant channel by zero
    return Normalization((mean / 255).round(6).tolist(), (std / 255).round(6).tolist())


def _span(start: float, end: float, length: int) -> slice:
    """Convert two shares of a length to a slice of at least one pixel."""
    first = min(round(start * length), length - 1)
    return slice(first, max(round(end * length), first + 1))
