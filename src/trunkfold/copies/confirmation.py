"""Features where a map puts them: which of them the other photo confirms, and the region that lacks them.

Two photos of one background share its features, but where an object differs, both have features and none agree. Blur,
noise and colour lose features everywhere.
"""

from typing import NamedTuple

import cv2
import numpy as np

from trunkfold.copies.alignment import Alignment
from trunkfold.copies.descriptors import points_of, root_descriptors

NEAR = 8.0  # pixels, at a long side of 256: local warping remains after alignment
ALIKE = 0.8  # smallest similarity of descriptors that confirm each other
CELLS, REGION = 20, 5  # cells along the long side, and side of a region in cells
SURE = 1e-3  # of shares of features, which are neither 0 nor 1


class Confirmation(NamedTuple):
    """Confirmation of a map by the features of the overlap.

    Attributes:
        confirmed: Share of both photos' features that have a counterpart where the map puts them.
        missing: Evidence that one region lacks counterparts, beyond chance: log-likelihood ratio of its share of
            confirmed features against that of the rest, summed over both photos.
    """

    confirmed: float = 0.0
    missing: float = 0.0


def confirm(one: np.ndarray, other: np.ndarray, alignment: Alignment) -> Confirmation:
    """Compare the features of two aligned photos.

    Args:
        one: A scalar of `trunkfold.copies.descriptors.RECORD`.
        other: A scalar of another photo.
        alignment: Lays `one` over `other`.
    """
    points, others = points_of(one, alignment.mirrored), points_of(other)
    there = _map(points, alignment.map)
    back = _map(others, np.linalg.inv(alignment.map))
    inside, others_inside = _inside(there, other["size"]), _inside(back, one["size"])
    if not inside.any() or not others_inside.any():
        return Confirmation()
    there, back = there[inside], back[others_inside]
    targets = others[others_inside]
    squares = (there**2).sum(1)[:, None] + (targets**2).sum(1) - 2 * there @ targets.T
    descriptors = root_descriptors(one, alignment.mirrored)[inside]
    pairs = (squares < NEAR**2) & (descriptors @ root_descriptors(other)[others_inside].T > ALIKE)
    found, others_found = pairs.any(1), pairs.any(0)
    confirmed = (found.sum() + others_found.sum()) / (len(found) + len(others_found) + 2)  # few show little
    side = one["size"].max()
    missing = _missing(points[inside], found, side) + _missing(back, others_found, side)
    return Confirmation(float(confirmed), float(missing.max()))


def _missing(points: np.ndarray, found: np.ndarray, side: float) -> np.ndarray:
    """Return the log-likelihood ratio of each region: (CELLS, CELLS); zero where more than elsewhere are confirmed."""
    cells = np.minimum(points / side * CELLS, CELLS - 1).astype(int)
    cells = cells[:, 1] * CELLS + cells[:, 0]
    count, confirmed = (
        cv2.boxFilter(
            np.bincount(cells, weights, CELLS**2).reshape(CELLS, CELLS),
            -1,
            (REGION, REGION),
            normalize=False,
            borderType=cv2.BORDER_CONSTANT,
        )
        for weights in (np.ones(len(found)), found)
    )
    share = (confirmed / count.clip(1)).clip(SURE, 1 - SURE)
    elsewhere = ((found.sum() - confirmed + 0.5) / (len(found) - count + 1)).clip(SURE, 1 - SURE)
    ratio = share * np.log(share / elsewhere) + (1 - share) * np.log((1 - share) / (1 - elsewhere))
    return np.where(share < elsewhere, count * ratio, 0)


def _map(points: np.ndarray, homography: np.ndarray) -> np.ndarray:
    return cv2.perspectiveTransform(points[:, None], homography)[:, 0]


def _inside(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    return ((points >= 0) & (points < size)).all(1)
