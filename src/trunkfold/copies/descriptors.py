"""Description of a photo for the search: SIFT and network features, thumbnails and a digest of its pixels."""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from trunkfold.copies.embedding import CHANNELS, GRID, LENGTH, embed
from trunkfold.data.photos import read_photo

cv2.setNumThreads(0)  # a photo is too small for several threads; each thread processes a different photo

LONG_SIDE = 256  # pixels; details that survive noise, blur and JPEG compression are visible at this size
LARGEST_ENLARGEMENT = 4  # of smaller photos
BLUR = 1.0  # sigma in pixels, against noise
FEATURES = 500
CONTRAST = 0.02  # half of OpenCV's threshold: smooth photos have only faint features
THUMBNAIL = 128  # pixels of the long side

# A fixed size of 146 kB per photo, so that blocks of photos can be memory-mapped.
RECORD = np.dtype(
    [
        ("digest", "V16"),  # of the pixels; zero if the photo cannot be read
        ("count", np.uint16),
        ("size", np.float32, 2),  # width and height, the frame of the points
        ("points", np.float32, (FEATURES, 2)),  # x and y
        ("descriptors", np.uint8, (FEATURES, 128)),
        ("embedding", np.float16, LENGTH),
        ("cells", np.float16, (2, GRID, GRID, CHANNELS)),  # of the photo, and of its mirror image
        ("thumbnail_shape", np.uint8, 2),  # height and width
        ("thumbnails", np.uint8, (2, THUMBNAIL, THUMBNAIL)),  # grey, and brightest channel
    ]
)

# Permutation of SIFT's 4 x 4 cells of 8 directions that describes the mirrored photo without a second extraction: cells
# across the feature's direction change sides, and directions are reversed.
MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


def describe_photo(path: str | Path) -> np.ndarray:
    """Read a photo and describe it.

    Returns:
        A scalar of `RECORD`; all zeros if the file cannot be read, so that it matches nothing.

    Source: Lowe, "Distinctive image features from scale-invariant keypoints", 2004.
    """
    record = np.zeros((), RECORD)
    try:
        pixels = read_photo(path, LONG_SIDE)
    except ValueError:
        return record
    record["digest"] = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
    record["embedding"], record["cells"] = embed(pixels)
    pixels = frame(pixels)
    grey, brightest = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), pixels.max(2)
    record["size"] = grey.shape[::-1]
    thumbnails = [resize(picture, min(THUMBNAIL / max(picture.shape), 1)) for picture in (grey, brightest)]
    record["thumbnail_shape"] = height, width = thumbnails[0].shape
    record["thumbnails"][:, :height, :width] = thumbnails
    sift = cv2.SIFT_create(FEATURES, contrastThreshold=CONTRAST, enable_precise_upscale=True)
    points, descriptors = sift.detectAndCompute(cv2.GaussianBlur(grey, (0, 0), BLUR), None)
    count = min(len(points), FEATURES)  # several directions at one point may exceed the limit
    record["count"] = count
    if count:
        record["points"][:count] = [point.pt for point in points[:count]]
        record["descriptors"][:count] = descriptors[:count]
    return record


def frame(pixels: np.ndarray) -> np.ndarray:
    """Resize a photo to the pixels in which features are found: a long side of 256, or less for small photos."""
    return resize(pixels, min(LONG_SIDE / max(pixels.shape[:2]), LARGEST_ENLARGEMENT))


def resize(picture: np.ndarray, scale: float) -> np.ndarray:
    """Resize an image by a factor, to at least one pixel per side."""
    size = [max(1, round(length * scale)) for length in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def root_descriptors(record: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Return unit descriptors, whose dot product is their similarity.

    Returns:
        float32 of shape (count, 128), of unit length.

    Source: Arandjelovic and Zisserman, "Three things everyone should know to improve object retrieval", 2012.
    """
    descriptors = record["descriptors"][: record["count"]].astype(np.float32)
    if mirrored:
        descriptors = descriptors[:, MIRRORED]
    return np.sqrt(descriptors / descriptors.sum(1, keepdims=True).clip(1))


def points_of(record: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Return the positions of the features: float32 of shape (count, 2), x and y in pixels."""
    points = record["points"][: record["count"]].copy()
    if mirrored:
        points[:, 0] = record["size"][0] - 1 - points[:, 0]
    return points


def thumbnails_of(record: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Return the thumbnails, grey and brightest channel: uint8 of shape (2, height, width)."""
    height, width = record["thumbnail_shape"]
    thumbnails = record["thumbnails"][:, :height, :width]
    return np.ascontiguousarray(thumbnails[..., ::-1] if mirrored else thumbnails)
