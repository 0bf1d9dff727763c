"""Comparison of two aligned photos, pixel by pixel.

Matching features prove only that both photos show the same object, which may be a background, a poster or a logo. So
the whole overlap must look alike, except where one photo shows nothing: in darkness, fog and plain areas.
"""

from typing import NamedTuple

import cv2
import numpy as np

from trunkfold.copies.alignment import Alignment
from trunkfold.copies.descriptors import thumbnails_of
from trunkfold.copies.plain_areas import plain_areas

SCALES = (0.7, 9), (2.0, 15)  # blur (sigma) and window of the correlation, in pixels of a 128-pixel thumbnail
TEXTURE = 25.0  # smallest variance of a blurred window's grey values that is compared
ALIKE = 0.5  # smallest correlation of windows that look alike
COMPARABLE, UNKNOWN = 100, 0.5  # fewest textured pixels that allow a comparison, and the agreement of fewer
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
    height, width = first.shape[1:]
    places = _map_pixels(_between_thumbnails(alignment.map, one, other), height, width)
    inside = _inside(places, second.shape[1:])
    overlap = _overlap(inside, places, second.shape[1:])
    if inside.sum() < COMPARABLE:
        return Likeness(overlap)
    places = places + _local_displacement(first[0], look_up(second[0], places), inside)
    warped = [look_up(channel, places) for channel in second]
    inside &= _inside(places, second.shape[1:])
    alike, contrast = _correlate(first, warped)
    inside = _mean(inside.astype(np.float32), SCALES[-1][1]) > 0.99
    inside &= ~plain_areas(first) & (look_up(plain_areas(second).astype(np.float32), places) < 0.5)
    textured = inside & (contrast > TEXTURE)
    if textured.sum() < COMPARABLE:
        return Likeness(overlap, UNKNOWN)
    weights = np.sqrt(contrast) * textured
    return Likeness(overlap, float((weights * (alike > ALIKE)).sum() / weights.sum()))


def _correlate(first: np.ndarray, second: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation of the windows around each pixel, and the lower variance of the two.

    Windows must match at one scale, in grey or in the brightest channel: coarse windows are robust to noise and blur,
    fine ones to displacement, grey to desaturation, and the brightest channel to changes of hue.
    """
    maps = [[_correlation(*pair, *scale) for pair in zip(first, second, strict=True)] for scale in SCALES]
    alike = np.max([channel[0] for scale in maps for channel in scale], axis=0)
    return alike, np.max([channel[1] for channel in maps[-1]], axis=0)


def _between_thumbnails(homography: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Convert a map between photos to one between their thumbnails."""

    def scaling(record: np.ndarray) -> np.ndarray:
        scale = record["thumbnail_shape"][1] / record["size"][0]
        return np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])  # centres of pixels

    return scaling(other) @ homography @ np.linalg.inv(scaling(one))


def _map_pixels(homography: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return where each pixel is mapped to: float32 of shape (height, width, 2), x and y."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return cv2.perspectiveTransform(np.stack([columns, rows], axis=2), homography)


def _inside(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return ((places >= 0) & (places <= np.array(shape[::-1]) - 1)).all(2)


def _overlap(inside: np.ndarray, places: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the smaller share of the two photos that the other one shows."""
    right, down = np.gradient(places, axis=1), np.gradient(places, axis=0)
    areas = np.abs(right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0])
    return float(min(inside.mean(), (areas * inside).sum() / np.prod(shape), 1))


def _local_displacement(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the smooth displacement that the map left: float32 of shape (height, width, 2)."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(first, second, None)
    weights = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), SMOOTH)[..., None].clip(1e-3)
    smooth = cv2.GaussianBlur(flow.clip(-FARTHEST, FARTHEST) * inside[..., None], (0, 0), SMOOTH) / weights
    return smooth.clip(-FARTHEST, FARTHEST)


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
