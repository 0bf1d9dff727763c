"""Alignment of two photos: SIFT features that fit one affine map or homography, unchanged or mirrored."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from trunkfold.copies.record import MIRRORED, points_of, root_descriptors

RATIO = 0.87  # of the distances to the nearest and the second nearest feature; pixels expose the wrong maps it admits
TOLERANCE = 4.0  # pixels, at a long side of 256
TRIALS, CONFIDENCE = 500, 0.995  # of the consensus
LARGEST_SCALE = 3.0  # of the map in any direction at the photo's centre; crops to 35 % of the area enlarge 1.7 times
LARGEST_STRETCH = 2.5  # ratio of the two scales: shear and changes of the aspect ratio
FEWEST_INLIERS = 4
CLEAR = 30  # inliers that make comparing the mirrored photo unnecessary
WORTH_A_HOMOGRAPHY = 12  # inliers of the affine map
GAIN = 1.15  # in inliers, that justifies the two more parameters of a homography


@dataclass(frozen=True)
class Alignment:
    """A map that lays one photo over another.

    Attributes:
        mirrored: Whether the first photo is mirrored before it is mapped.
        inliers: Features that fit the map, or cells, see `trunkfold.copies.cell_alignment`.
        map: Homography from pixels of the first photo to pixels of the second, of shape (3, 3).
    """

    mirrored: bool
    inliers: int
    map: np.ndarray


def align(one: np.ndarray, other: np.ndarray) -> Alignment | None:
    """Align two photos, unchanged and mirrored, by the features that most agree.

    Args:
        one: A scalar of `trunkfold.copies.record.RECORD`.
        other: A scalar of another photo.

    Returns:
        The better alignment, or None if too few features fit a plausible map.

    Sources: Lowe, 2004 (ratio test); Barath et al., "MAGSAC++, a fast, reliable and accurate robust estimator", 2020.
    """
    best, descriptors, others = None, root_descriptors(one), root_descriptors(other)
    for mirrored in (False, True):
        source, target = _matches(descriptors[:, MIRRORED] if mirrored else descriptors, others)
        found = _fit(points_of(one, mirrored)[source], points_of(other)[target], mirrored, one["size"])
        if found is not None and (best is None or found.inliers > best.inliers):
            best = found
        if best is not None and best.inliers >= CLEAR:
            break
    return best


def _fit(source: np.ndarray, target: np.ndarray, mirrored: bool, size: np.ndarray) -> Alignment | None:
    """Fit a map to the positions of matches: two arrays (matches, 2)."""
    # SIFT describes a point once per dominant direction; matches of the same two points are one observation.
    points = np.hstack([source, target]).round().astype(">u2").view(">u8")[:, 0].astype(np.uint64)
    distinct = np.unique(points, return_index=True)[1]
    source, target = source[distinct], target[distinct]
    if len(source) < FEWEST_INLIERS:
        return None
    affine, fits = cv2.estimateAffine2D(source, target, consensus())
    if affine is None or int(fits.sum()) < FEWEST_INLIERS:
        return None
    homography = np.vstack([affine, [0, 0, 1]])
    if (affine_inliers := int(fits.sum())) >= WORTH_A_HOMOGRAPHY:
        finer, also_fits = cv2.findHomography(source, target, consensus())
        if finer is not None and also_fits.sum() > GAIN * affine_inliers and plausible(finer, size):
            homography, fits = finer, also_fits
    if not plausible(homography, size):
        return None
    return Alignment(mirrored, int(fits.sum()), homography)


def consensus(tolerance: float = TOLERANCE) -> cv2.UsacParams:
    """Return OpenCV's parameters of MAGSAC++, which has a fixed seed; the tolerance is in pixels."""
    parameters = cv2.UsacParams()
    parameters.threshold, parameters.confidence, parameters.maxIterations = tolerance, CONFIDENCE, TRIALS
    parameters.sampler, parameters.score = cv2.SAMPLING_UNIFORM, cv2.SCORE_METHOD_MAGSAC
    parameters.loMethod, parameters.loIterations = cv2.LOCAL_OPTIM_SIGMA, 5
    parameters.final_polisher = cv2.MAGSAC
    return parameters


def _matches(descriptors: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of unambiguous matches: two arrays (matches,), the best match of each of the `others`."""
    similarity = descriptors @ others.T
    rows = np.arange(len(similarity))
    nearest = similarity.argmax(1)
    best = similarity[rows, nearest]
    similarity[rows, nearest] = -1
    # Of unit vectors, the squared distance is 2 - 2 x similarity.
    clear = 1 - best < RATIO**2 * (1 - similarity.max(1))
    rows = rows[clear][np.argsort(-best[clear], kind="stable")]
    rows = rows[np.unique(nearest[rows], return_index=True)[1]]
    return rows, nearest[rows]


def plausible(homography: np.ndarray, size: np.ndarray) -> bool:
    """Return whether augmentation can produce the map: no reflection (undone before), no extreme scale or stretch."""
    x, y, depth = homography @ [*(size / 2), 1]
    if depth <= 0 or (homography[2] @ _corners(size) <= 0.2 * depth).any():
        return False
    jacobian = (homography[:2, :2] - np.outer([x / depth, y / depth], homography[2, :2])) / depth
    (a, b), (c, d) = jacobian
    if a * d - b * c <= 0:
        return False
    # The singular values are half the sum and half the difference of these two lengths.
    longer, shorter = math.hypot(a + d, b - c), math.hypot(a - d, b + c)
    large, small = (longer + shorter) / 2, (longer - shorter) / 2
    return large < LARGEST_SCALE and small > 1 / LARGEST_SCALE and large / small < LARGEST_STRETCH


def _corners(size: np.ndarray) -> np.ndarray:
    """Return homogeneous coordinates of a photo's corners: (3, 4)."""
    width, height = size
    return np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
