"""Comparison of two aligned photos, pixel by pixel.

Matching features prove only that both photos show the same object, which may be a background, a poster or a logo. So
the whole overlap must look alike, except where one photo shows nothing: in darkness, fog and plain areas.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from trunkfold.copies.alignment import Alignment
from trunkfold.copies.record import plain_areas_of, thumbnails_of

SCALES = (0.7, 9), (2.0, 15)  # blur (sigma) and window of the correlation, in pixels of a 128-pixel thumbnail
TEXTURE = 25.0  # smallest variance of a blurred window's grey values that is compared
ALIKE = 0.5  # smallest correlation of windows that look alike
CLEAR = 0.97  # agreement from which replaced tones are not compared, because that takes time
COMPARABLE, UNKNOWN = 100, 0.5  # fewest textured pixels that allow a comparison, and the agreement of fewer
TONES = 4.0  # grey values: sigma of the average over similar tones
INVERTED = 0.2  # gain in correlation by replaced tones that proves more than a change of brightness and contrast
NARROWEST = 12  # pixels of a thumbnail in which the optical flow is defined
FARTHEST, SMOOTH = 5.0, 5.0  # pixels: largest and sigma of the local displacements; a coarser map cannot bend objects


class Likeness(NamedTuple):
    """Likeness of two aligned photos.

    Attributes:
        overlap: Share of a photo that the other one also shows; the smaller of the two shares.
        agreement: Share of the overlap that looks alike, weighted by contrast, where both photos have contrast.
    """

    overlap: float = 0.0
    agreement: float = 0.0


def compare_pixels(one: np.ndarray, other: np.ndarray, alignment: Alignment) -> Likeness:
    """Lay one photo over the other, correct the map locally, and compare.

    Source: Kroeger et al., "Fast optical flow using dense inverse search", 2016.
    """
    first, second = thumbnails_of(one, alignment.mirrored), thumbnails_of(other)
    homography, shape, other_shape = _between_thumbnails(alignment.map, one, other), first.shape[:2], second.shape[:2]
    overlap = _overlap(homography, shape, other_shape)
    places = cv2.perspectiveTransform(_pixels(*shape), homography)
    inside = _inside(places, other_shape)
    if inside.sum() < COMPARABLE:
        return Likeness(overlap)
    grey = cv2.extractChannel(first, 0)
    places += _local_displacement(grey, look_up(second[..., 0], places), inside)
    inside &= _inside(places, other_shape)
    second = look_up(second, places)
    alike, contrast = _correlate(first, second)
    compared = _mean(inside.astype(np.float32), SCALES[-1][1]) > 0.99
    plain = plain_areas_of(other).astype(np.float32)
    compared &= ~plain_areas_of(one, alignment.mirrored) & (look_up(plain, places) < 0.5)
    textured = compared & (contrast > TEXTURE)
    if textured.sum() < COMPARABLE:
        return Likeness(overlap, UNKNOWN)
    weights = np.sqrt(contrast) * textured
    agreement = np.average(alike > ALIKE, weights=weights)
    if agreement < CLEAR:
        tones = _correlate_tones(grey, second[..., 0], inside)
        agreement = np.average(np.maximum(alike, tones) > ALIKE, weights=weights)
    return Likeness(overlap, float(agreement))


def _correlate(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation of the windows around each pixel, and the lower variance of the two.

    Windows must match at one scale, in grey or in the brightest channel: coarse windows are robust to noise and blur,
    fine ones to displacement, grey to desaturation, and the brightest channel to changes of hue.
    """
    channels = list(zip(cv2.split(first), cv2.split(second), strict=True))
    maps = [[_correlation(*pair, *scale) for pair in channels] for scale in SCALES]
    alike = functools.reduce(np.maximum, (correlation for scale in maps for correlation, _ in scale))
    return alike, functools.reduce(np.maximum, (variance for _, variance in maps[-1]))


def _correlate_tones(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the correlation of windows if the tones of one photo are replaced by those of the other: in negatives."""
    pairs = (_replace_tones(first, second, inside), second), (first, _replace_tones(second, first, inside))
    maps = [_correlation(*pair, *scale) for pair in pairs for scale in SCALES]
    return functools.reduce(np.maximum, (np.where(variance > TEXTURE, found, -1) for found, variance in maps))


def _replace_tones(picture: np.ndarray, other: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Replace each grey value by the mean of the other picture's values where it occurs, as float32.

    Source: Roche et al., "The correlation ratio as a new similarity measure for multimodal image registration", 1998.
    """
    counts = np.bincount(picture[inside], minlength=256)
    sums = np.bincount(picture[inside], other[inside].astype(float), 256)
    counts, sums = gaussian_filter1d(np.stack([counts, sums]).astype(float), TONES, mode="constant")
    return (sums / counts.clip(1e-3)).astype(np.float32)[picture]


def _between_thumbnails(homography: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Convert a map between photos to one between their thumbnails."""

    def scaling(record: np.ndarray) -> np.ndarray:
        scale = record["thumbnail_shape"][1] / record["size"][0]
        return np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])  # centres of pixels

    return scaling(other) @ homography @ np.linalg.inv(scaling(one))


@functools.cache
def _pixels(height: int, width: int) -> np.ndarray:
    """Return the coordinates of all pixels: float32 of shape (height, width, 2), x and y."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([columns, rows], axis=2)


def _inside(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    x, y = places[..., 0], places[..., 1]
    return (x >= 0) & (x <= shape[1] - 1) & (y >= 0) & (y <= shape[0] - 1)


def _overlap(homography: np.ndarray, shape: tuple[int, int], other_shape: tuple[int, int]) -> float:
    """Return the smaller share of the two photos that the other one shows."""
    mapped = cv2.perspectiveTransform(_frame(*shape), homography)
    area, common = cv2.intersectConvexConvex(mapped, _frame(*other_shape))
    if area <= 0:
        return 0.0
    own_area = cv2.contourArea(cv2.perspectiveTransform(common, np.linalg.inv(homography)))
    return float(min(own_area / np.prod(shape), area / np.prod(other_shape), 1))


def _frame(height: int, width: int) -> np.ndarray:
    """Return the corners of a photo, half a pixel around the centres of its outer pixels: (4, 1, 2)."""
    return np.float32([[0, 0], [width, 0], [width, height], [0, height]])[:, None] - np.float32(0.5)


def _local_displacement(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the smooth displacement that the map left: float32 of shape (height, width, 2)."""
    if min(first.shape) < NARROWEST:
        return np.zeros((*first.shape, 2), np.float32)
    toned = _replace_tones(first, second, inside)
    with np.errstate(all="ignore"):  # a plain picture has no correlation
        found, plain = (np.corrcoef(picture[inside], second[inside])[0, 1] for picture in (toned, first))
    # The flow is found by similar values, which negatives do not have. Replaced elsewhere, they hide differences.
    first = toned.astype(np.uint8) if found - plain > INVERTED else first
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(first, second, None)
    inside = inside.astype(np.float32)
    weights = cv2.GaussianBlur(inside, (0, 0), SMOOTH).clip(1e-3)
    smooth = [cv2.GaussianBlur(part.clip(-FARTHEST, FARTHEST) * inside, (0, 0), SMOOTH) for part in cv2.split(flow)]
    return cv2.merge([(part / weights).clip(-FARTHEST, FARTHEST) for part in smooth])


def look_up(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return a picture's values at places between its pixels.

    Args:
        picture: Shape (height, width) or, with up to four channels, (height, width, channels).
        places: float32 of shape (rows, columns, 2), x and y.
    """
    return cv2.remap(np.ascontiguousarray(picture), places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _correlation(first: np.ndarray, second: np.ndarray, blur: float, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation of two images in the window around each pixel, and the lower of their variances there."""
    first, second = (cv2.GaussianBlur(picture.astype(np.float32), (0, 0), blur) for picture in (first, second))
    means = _mean(first, window), _mean(second, window)
    variances = [
        (_mean(picture**2, window) - mean**2).clip(0) for picture, mean in zip((first, second), means, strict=True)
    ]
    covariance = _mean(first * second, window) - means[0] * means[1]
    return covariance / np.sqrt((variances[0] * variances[1]).clip(1)), np.minimum(*variances)


def _mean(picture: np.ndarray, side: int) -> np.ndarray:
    return cv2.boxFilter(picture, -1, (side, side), borderType=cv2.BORDER_REFLECT)
