"""What is kept of a photo to find its copies: SIFT features, a thumbnail and a digest of its pixels."""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from trunkfold.data.photos import read_photo

cv2.setNumThreads(0)  # one photo is too small to share among threads; each thread has one of its own

LONG_SIDE = 256  # pixels; what survives noise, blur and JPEG compression can be seen at this size
LARGEST_ENLARGEMENT = 4  # of photos that are smaller
BLUR = 1.0  # sigma in pixels, against noise
FEATURES = 500
CONTRAST = 0.02  # half of OpenCV's threshold: smooth photos need their faint features too
THUMBNAIL = 128  # pixels of the long side

# One photo: 100 kB, of a fixed size, so that blocks of photos can be mapped from the disk.
RECORD = np.dtype(
    [
        ("digest", "V16"),  # of the pixels; zero where the photo could not be read
        ("count", np.uint16),
        ("size", np.float32, 2),  # width and height that the points refer to
        ("points", np.float32, (FEATURES, 2)),  # x and y
        ("descriptors", np.uint8, (FEATURES, 128)),
        ("thumbnail_shape", np.uint8, 2),  # height and width
        ("thumbnails", np.uint8, (2, THUMBNAIL, THUMBNAIL)),  # what a grey copy keeps, and what a shift in hue keeps
    ]
)

# SIFT's 4 x 4 cells of 8 directions, as they are when the picture is mirrored: the cells across the feature's own
# direction change sides, and directions turn the other way round. (No second extraction is needed.)
MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


def describe_photo(path: str | Path) -> np.ndarray:
    """Read a photo and describe it.

    Returns:
        A scalar of `RECORD`; all zero where the file cannot be read, so that it is a copy of nothing.

    Source: Lowe, "Distinctive image features from scale-invariant keypoints", 2004.
    """
    record = np.zeros((), RECORD)
    try:
        pixels = read_photo(path, LONG_SIDE)
    except ValueError:
        return record
    record["digest"] = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
    pixels = resize(pixels, min(LONG_SIDE / max(pixels.shape[:2]), LARGEST_ENLARGEMENT))
    grey, brightest = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), pixels.max(2)
    record["size"] = grey.shape[::-1]
    thumbnails = [resize(picture, min(THUMBNAIL / max(picture.shape), 1)) for picture in (grey, brightest)]
    record["thumbnail_shape"] = height, width = thumbnails[0].shape
    record["thumbnails"][:, :height, :width] = thumbnails
    sift = cv2.SIFT_create(FEATURES, contrastThreshold=CONTRAST, enable_precise_upscale=True)
    points, descriptors = sift.detectAndCompute(cv2.GaussianBlur(grey, (0, 0), BLUR), None)
    count = min(len(points), FEATURES)  # several directions of one place may exceed the limit
    record["count"] = count
    if count:
        record["points"][:count] = [point.pt for point in points[:count]]
        record["descriptors"][:count] = descriptors[:count]
    return record


def resize(picture: np.ndarray, scale: float) -> np.ndarray:
    """Resize a picture by a factor, to at least one pixel each way."""
    size = [max(1, round(length * scale)) for length in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def root_descriptors(record: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Descriptors whose dot product is their similarity, 1 for equal ones.

    Returns:
        float32 of shape (count, 128), of unit length.

    Source: Arandjelovic and Zisserman, "Three things everyone should know to improve object retrieval", 2012.
    """
    descriptors = record["descriptors"][: record["count"]].astype(np.float32)
    if mirrored:
        descriptors = descriptors[:, MIRRORED]
    return np.sqrt(descriptors / descriptors.sum(1, keepdims=True).clip(1))


def points_of(record: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Places of the features: float32 of shape (count, 2), x and y in pixels."""
    points = record["points"][: record["count"]].copy()
    if mirrored:
        points[:, 0] = record["size"][0] - 1 - points[:, 0]
    return points


def thumbnails_of(record: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Grey values and brightest channels of a photo: uint8 of shape (2, height, width), at most 128 pixels long."""
    height, width = record["thumbnail_shape"]
    thumbnails = record["thumbnails"][:, :height, :width]
    return np.ascontiguousarray(thumbnails[..., ::-1] if mirrored else thumbnails)
