"""The mean and standard deviation that pixels are normalised by, where they are those of the photos."""

from collections.abc import Sequence

import cv2
import numpy as np

from trunkfold.config.schema import Normalization
from trunkfold.images.views import VIEWS, render


def measure_normalization(pixels: Sequence[np.ndarray], rows: np.ndarray, size: int) -> Normalization:
    """Mean and standard deviation of each channel over all pixels of some photos, as the model is shown them.

    Args:
        pixels: uint8 of shape (height, width, 3) by row.
        rows: The photos that count.
        size: Side in pixels of what the model sees.

    Returns:
        Numbers for pixels between 0 and 1.
    """
    moments = np.zeros((2, 3))
    for row in rows:
        mean, std = cv2.meanStdDev(render(pixels[row], VIEWS["plain"], size))
        moments += np.array([mean, std**2 + mean**2])[..., 0] / len(rows)
    mean, std = moments[0], np.sqrt(moments[1] - moments[0] ** 2)
    std = std.clip(1)  # a channel that never changes is not divided by zero
    return Normalization((mean / 255).round(6).tolist(), (std / 255).round(6).tolist())
