"""Plain areas of a photo: frames, bars, filled borders and cut-outs, which hide what the other photo shows.

They are evidence neither for nor against a copy, so they are left out of comparisons. Photographed surfaces of one
colour, such as an overexposed sky, are plain too, and show nothing that could be compared.
"""

import cv2
import numpy as np

SIDE = 9  # pixels of a thumbnail: smaller areas are not plain
RANGE = 1  # largest difference of grey values within an area: rounding
INFLUENCE = 14  # pixels, half of them on each side: windows and cells near the border of an area show the border


def plain_areas(thumbnails: np.ndarray) -> np.ndarray:
    """Find the pixels in and around plain areas.

    Args:
        thumbnails: uint8 of shape (height, width, 2), see `trunkfold.copies.record.thumbnails_of`.

    Returns:
        bool of shape (height, width).
    """
    square = np.ones((SIDE, SIDE), np.uint8)
    ranges = cv2.dilate(thumbnails, square) - cv2.erode(thumbnails, square)
    plain = (ranges.max(2) <= RANGE).astype(np.uint8)
    around = np.ones((SIDE + INFLUENCE,) * 2, np.uint8)
    return cv2.dilate(plain, around, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
