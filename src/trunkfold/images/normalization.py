"""Mean and standard deviation of the training photos' pixels."""

from collections.abc import Sequence

import cv2
import numpy as np

from trunkfold.config.schema import Normalization
from trunkfold.images.views import VIEWS, render


def measure_normalization(pixels: Sequence[np.ndarray], rows: np.ndarray, size: int) -> Normalization:
    """Measure mean and standard deviation of each channel over the plain views of some photos.

    Args:
        pixels: uint8 of shape (height, width, 3) by row.
        rows: Photos to measure.
        size: Side of the model's input in pixels.

    Returns:
        Statistics of pixels scaled to 0 .. 1.
    """
    moments = np.zeros((2, 3))
    for row in rows:
        mean, std = cv2.meanStdDev(render(pixels[row], VIEWS["plain"], size))
        moments += np.array([mean, std**2 + mean**2])[..., 0] / len(rows)
    mean, std = moments[0], np.sqrt(moments[1] - moments[0] ** 2)
    std = std.clip(1)  # avoids dividing a constant channel by zero
    return Normalization((mean / 255).round(6).tolist(), (std / 255).round(6).tolist())
