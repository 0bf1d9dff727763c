"""Description of a photo for the search: SIFT and network features, thumbnails and a digest of its pixels."""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from trunkfold.copies.embedding import embed
from trunkfold.copies.plain_areas import plain_areas
from trunkfold.copies.record import FEATURES, LONG_SIDE, RECORD, THUMBNAIL
from trunkfold.data.photos import UnreadablePhotoError, read_photo

LARGEST_ENLARGEMENT = 4  # of smaller photos
BLUR = 1.0  # sigma in pixels, against noise
BLANK, FAINT = 3, 80  # range of the values of a photo that shows nothing, and of one whose contrast is stretched
CONTRAST = 0.02  # half of OpenCV's threshold: smooth photos have only faint features


def describe_photo(path: str | Path) -> np.ndarray:
    """Read a photo and describe it.

    Returns:
        A scalar of `trunkfold.copies.record.RECORD`; all zeros if the file cannot be read, so that it matches nothing.

    Raises:
        InputError: Memory or file handles are exhausted, see `trunkfold.data.photos.raise_if_exhausted`.

    Source: Lowe, "Distinctive image features from scale-invariant keypoints", 2004.
    """
    record = np.zeros((), RECORD)
    try:
        pixels = read_photo(path, LONG_SIDE)
    except UnreadablePhotoError:
        return record
    record["digest"] = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
    pixels = strengthen(pixels)
    record["embedding"], record["cells"] = embed(pixels)
    pixels = frame(pixels)
    grey, brightest = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), pixels.max(2)
    record["size"] = grey.shape[::-1]
    thumbnails = resize(np.dstack([grey, brightest]), min(THUMBNAIL / max(grey.shape), 1))
    record["thumbnail_shape"] = height, width = thumbnails.shape[:2]
    record["thumbnails"][:height, :width] = thumbnails
    plain = np.packbits(plain_areas(thumbnails), axis=1)
    record["plain"][:height, : plain.shape[1]] = plain
    sift = cv2.SIFT_create(FEATURES, contrastThreshold=CONTRAST, enable_precise_upscale=True)
    points, descriptors = sift.detectAndCompute(cv2.GaussianBlur(grey, (0, 0), BLUR), None)
    count = min(len(points), FEATURES)  # several directions at one point may exceed the limit
    record["count"] = count
    if count:
        record["points"][:count] = [point.pt for point in points[:count]]
        record["descriptors"][:count] = descriptors[:count]
    return record


def strengthen(pixels: np.ndarray) -> np.ndarray:
    """Stretch the contrast of a faint photo, in which hardly any features would be found: nearly black, or in fog."""
    low, high = np.percentile(pixels[::4, ::4], (1, 99))
    if not BLANK <= high - low < FAINT:
        return pixels
    return ((pixels - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def frame(pixels: np.ndarray) -> np.ndarray:
    """Resize a photo to the pixels in which features are found: a long side of 256, or less for small photos."""
    return resize(pixels, min(LONG_SIDE / max(pixels.shape[:2]), LARGEST_ENLARGEMENT))


def resize(picture: np.ndarray, scale: float) -> np.ndarray:
    """Resize an image by a factor, to at least one pixel per side."""
    size = [max(1, round(length * scale)) for length in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
