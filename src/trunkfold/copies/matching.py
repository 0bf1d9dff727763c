"""Comparison of two photos: copies have features that fit one affine map, and pixels that agree after alignment.

Matching features prove only that both photos show the same object, which may be a background, a poster or a logo. So
the photos are aligned, and the whole overlap must look alike.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from trunkfold.copies.descriptors import FEATURES, points_of, root_descriptors, thumbnails_of

RATIO = 0.8  # of the distances to the nearest and the second nearest feature (Lowe, 2004)
TOLERANCE = 4.0  # pixels, at a long side of 256
TRIALS, CONFIDENCE = 500, 0.995  # of RANSAC
LARGEST_SCALE = 2.5  # of the affine map in any direction; crops to 60 % of the area enlarge 1.3 times
LARGEST_STRETCH = 2.0  # ratio of the two scales: shear and changes of the aspect ratio
FEWEST_INLIERS = 6
CLEAR = 30  # inliers that make comparing the mirrored photo unnecessary

WINDOW, REGION = 9, 25  # pixels of a 128-pixel thumbnail: window of the correlation, and size of a relevant difference
BLUR = 0.7
TEXTURE = 80.0  # smallest variance of a window's grey values that is compared; noise alone is below it
ALIKE = 0.5  # smallest correlation of windows that look alike
COMPARABLE = 100  # fewest textured pixels that allow a decision
WORTH_REFINING = 0.4  # agreement below which refining the map cannot help


@dataclass(frozen=True)
class Evidence:
    """Evidence for and against two photos being copies of one source.

    Attributes:
        inliers: Features that fit one affine map.
        overlap: Share of a photo that the other one also shows; the smaller of the two shares.
        agreement: Share of the overlap that looks alike, weighted by contrast.
        difference: Share that looks different in the most different region; regions are a fifth of a photo long.
    """

    inliers: int = 0
    overlap: float = 0.0
    agreement: float = 0.0
    difference: float = 1.0

    @property
    def same(self) -> bool:
        """Whether the photos are copies."""
        return (
            self.inliers >= FEWEST_INLIERS and self.overlap >= 0.45 and self.agreement >= 0.85 and self.difference < 0.6
        )

    @property
    def sure(self) -> bool:
        """Whether the photos are certain copies, so that their groups may merge."""
        return self.same and self.inliers >= 15 and self.agreement >= 0.93 and self.difference < 0.4

    @property
    def different(self) -> bool:
        """Whether the photos are certainly not copies: they align, but a region differs."""
        return self.inliers >= 12 and (self.agreement < 0.75 or self.difference > 0.8)

    @property
    def strength(self) -> tuple[bool, float]:
        """Sort key of links, the most certain last."""
        return self.sure, self.agreement * (1 - self.difference) * self.inliers / (self.inliers + 10)


IDENTICAL = Evidence(FEATURES, overlap=1.0, agreement=1.0, difference=0.0)


def compare(one: np.ndarray, other: np.ndarray) -> Evidence:
    """Compare two photos, unchanged and mirrored.

    Args:
        one: A scalar of `trunkfold.copies.descriptors.RECORD`.
        other: A scalar of another photo.

    Sources: Lowe, 2004 (ratio test); Fischler and Bolles, "Random sample consensus", 1981; Evangelidis and Psarakis,
    "Parametric image alignment using enhanced correlation coefficient maximization", 2008.
    """
    best, best_map, best_mirrored = 0, None, False
    for mirrored in (False, True):
        if best >= CLEAR:
            break
        inliers, affine = _fit(one, other, mirrored)
        if inliers > best:
            best, best_map, best_mirrored = inliers, affine, mirrored
    if best < FEWEST_INLIERS:
        return Evidence(best)
    return Evidence(best, *_lay_over(one, other, best_mirrored, best_map))


def _fit(one: np.ndarray, other: np.ndarray, mirrored: bool) -> tuple[int, np.ndarray | None]:
    """Fit an affine map (2, 3) from `one` to `other`; return the number of inliers and the map, if plausible."""
    source, target = _matches(one, other, mirrored)
    if len(source) < FEWEST_INLIERS:
        return 0, None
    affine, fits = cv2.estimateAffine2D(
        source, target, ransacReprojThreshold=TOLERANCE, maxIters=TRIALS, confidence=CONFIDENCE
    )
    if affine is None or not _plausible(affine):
        return 0, None
    return int(fits.sum()), affine


def _matches(one: np.ndarray, other: np.ndarray, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of unambiguous matches in both photos: two arrays (matches, 2)."""
    if min(one["count"], other["count"]) < FEWEST_INLIERS:
        return np.empty((0, 2)), np.empty((0, 2))
    similarity = root_descriptors(one, mirrored) @ root_descriptors(other).T
    rows = np.arange(len(similarity))
    nearest = similarity.argmax(1)
    best = similarity[rows, nearest]
    similarity[rows, nearest] = -1
    # Of unit vectors, the squared distance is 2 - 2 x similarity.
    clear = 1 - best < RATIO**2 * (1 - similarity.max(1))
    rows = rows[clear][np.argsort(-best[clear], kind="stable")]
    rows = rows[np.unique(nearest[rows], return_index=True)[1]]  # the best match of each target
    source, target = points_of(one, mirrored)[rows], points_of(other)[nearest[rows]]
    # SIFT describes a point once per dominant direction; matches of the same two points are one observation.
    distinct = np.unique(np.hstack([source, target]).round(), axis=0, return_index=True)[1]
    return source[distinct], target[distinct]


def _plausible(affine: np.ndarray) -> bool:
    """Return whether augmentation can produce the map: no reflection (undone before), no extreme scale or stretch."""
    large, small = np.linalg.svd(affine[:, :2], compute_uv=False)
    return (
        np.linalg.det(affine[:, :2]) > 0
        and large < LARGEST_SCALE
        and small > 1 / LARGEST_SCALE
        and large / small < LARGEST_STRETCH
    )


def _lay_over(one: np.ndarray, other: np.ndarray, mirrored: bool, affine: np.ndarray) -> tuple[float, float, float]:
    """Return overlap, agreement and difference of `Evidence`, after refining the map on the pixels if that may help."""
    first, second = thumbnails_of(one, mirrored), thumbnails_of(other)
    affine = _between_thumbnails(affine, one, other)
    found = _likeness(first, second, affine)
    if found[1] < WORTH_REFINING:
        return found
    refined = _likeness(first, second, _refine(first[0], second[0], affine))
    return max(found, refined, key=lambda likeness: likeness[1])


def _likeness(first: np.ndarray, second: np.ndarray, affine: np.ndarray) -> tuple[float, float, float]:
    """Return overlap, agreement and difference of two thumbnails, the second one warped onto the first."""
    height, width = first.shape[1:]
    warp = {"dsize": (width, height), "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
    second_there = cv2.warpAffine(np.ones(second.shape[1:], np.float32), affine, **warp) > 0.99
    shared = second_there.mean()
    overlap = shared * min(1, abs(np.linalg.det(affine[:, :2])) * first.size / second.size)

    # Windows must match in grey or in the brightest channel: one is robust to desaturation, the other to hue shifts.
    pictures = zip(first.astype(np.float32), second.astype(np.float32), strict=True)
    maps = [_correlation(picture, cv2.warpAffine(copy, affine, **warp)) for picture, copy in pictures]
    alike, contrast = np.max(maps, axis=0)
    inside = _mean(second_there.astype(np.float32), WINDOW) > 0.99
    textured = inside & (contrast > TEXTURE)
    if textured.sum() < COMPARABLE:
        return float(overlap), 0.0, 1.0
    weights = np.sqrt(contrast) * textured
    agreement = (weights * (alike > ALIKE)).sum() / weights.sum()
    differs = (textured & (alike <= ALIKE)).astype(np.float32)
    return float(overlap), float(agreement), float(_mean(differs, REGION).max())


def _between_thumbnails(affine: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Convert a map between photos to one between their thumbnails: float32 of shape (2, 3)."""

    def scaling(record: np.ndarray) -> np.ndarray:
        scale = record["thumbnail_shape"][1] / record["size"][0]
        return np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])  # centres of pixels

    whole = scaling(other) @ np.vstack([affine, [0, 0, 1]]) @ np.linalg.inv(scaling(one))
    return whole[:2].astype(np.float32)


def _refine(first: np.ndarray, second: np.ndarray, affine: np.ndarray) -> np.ndarray:
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-3)
    try:
        return cv2.findTransformECC(first, second, affine.copy(), cv2.MOTION_AFFINE, criteria, None, 3)[1]
    except cv2.error:  # does not converge if the photos differ
        return affine


def _correlation(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation of two images in the window around each pixel, and the larger variance there."""
    first, second = (cv2.GaussianBlur(picture, (0, 0), BLUR) for picture in (first, second))
    means = _mean(first, WINDOW), _mean(second, WINDOW)
    variances = [
        (_mean(picture**2, WINDOW) - mean**2).clip(0) for picture, mean in zip((first, second), means, strict=True)
    ]
    covariance = _mean(first * second, WINDOW) - means[0] * means[1]
    return covariance / np.sqrt((variances[0] * variances[1]).clip(1)), np.maximum(*variances)


def _mean(picture: np.ndarray, side: int) -> np.ndarray:
    return cv2.boxFilter(picture, -1, (side, side), borderType=cv2.BORDER_REFLECT)
