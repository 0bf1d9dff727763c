"""Alignment of two photos by a network's local features, for copies in which SIFT finds too little in common.

Each cell of one photo is matched to the most similar cell of the other. Cells are coarse but blur, noise and light
change them little.
"""

import cv2
import numpy as np

from trunkfold.copies.alignment import Alignment, consensus, plausible
from trunkfold.copies.cells import Statistics, centres, standardize
from trunkfold.copies.record import CHANNELS, GRID

FEWEST_CELLS = 10  # that fit a map; of photos of different sources, hardly any fit so many


def align_cells(one: np.ndarray, other: np.ndarray, statistics: Statistics) -> Alignment | None:
    """Align two photos, unchanged and mirrored, by the cells that most agree.

    Args:
        one: A scalar of `trunkfold.copies.record.RECORD`.
        other: A scalar of another photo.
        statistics: See `trunkfold.copies.cells.measure_cells`.

    Returns:
        The better alignment, or None if too few cells fit a plausible map.
    """
    theirs = _directions(other, statistics).T
    found = [
        _fit(_directions(one, statistics, mirrored) @ theirs, one["size"], other["size"], mirrored)
        for mirrored in (False, True)
    ]
    return max(filter(None, found), key=lambda alignment: alignment.inliers, default=None)


def _fit(similarity: np.ndarray, size: np.ndarray, other_size: np.ndarray, mirrored: bool) -> Alignment | None:
    """Fit a map to the cells of two photos that are each other's most similar."""
    nearest = similarity.argmax(1)
    mutual = similarity.argmax(0)[nearest] == np.arange(GRID**2)
    if mutual.sum() < FEWEST_CELLS:
        return None
    source, target = centres(size).reshape(-1, 2)[mutual], centres(other_size).reshape(-1, 2)[nearest[mutual]]
    affine, fits = cv2.estimateAffine2D(source, target, consensus(float(other_size.max()) / GRID))
    if affine is None or fits.sum() < FEWEST_CELLS:
        return None
    homography = np.vstack([affine, [0, 0, 1]])
    return Alignment(mirrored, int(fits.sum()), homography) if plausible(homography, size) else None


def _directions(record: np.ndarray, statistics: Statistics, mirrored: bool = False) -> np.ndarray:
    """Return how each cell differs from the photo's mean: unit vectors of shape (cells, CHANNELS)."""
    cells = standardize(record, statistics, mirrored).reshape(-1, CHANNELS)
    cells -= cells.mean(0)
    return cells / np.linalg.norm(cells, axis=1, keepdims=True).clip(1e-6)
