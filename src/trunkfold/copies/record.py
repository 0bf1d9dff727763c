"""Record of a photo: what the search keeps of it, in a fixed size."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

LONG_SIDE = 256  # pixels; details that survive noise, blur and JPEG compression are visible at this size
FEATURES = 500
THUMBNAIL = 128  # pixels of the long side
EMBEDDING = 2296  # pooled features: means of all stages and of the last layer, and three stages' standard deviations
MAPPED = 8  # files of records per process: mapped pages count as memory in use
GRID, CHANNELS = 16, 40  # cells per side of a photo, and features of each

# A fixed size of 148 kB per photo, so that blocks of photos can be memory-mapped.
RECORD = np.dtype(
    [
        ("digest", "V16"),  # of the pixels; zero if the photo cannot be read
        ("count", np.uint16),
        ("size", np.float32, 2),  # width and height, the frame of the points
        ("points", np.float32, (FEATURES, 2)),  # x and y
        ("descriptors", np.uint8, (FEATURES, 128)),
        ("embedding", np.float16, EMBEDDING),
        ("cells", np.float16, (2, GRID, GRID, CHANNELS)),  # of the photo, and of its mirror image
        ("thumbnail_shape", np.uint8, 2),  # height and width
        ("thumbnails", np.uint8, (THUMBNAIL, THUMBNAIL, 2)),  # grey, and brightest channel
        ("plain", np.uint8, (THUMBNAIL, THUMBNAIL // 8)),  # one bit per pixel, see `trunkfold.copies.plain_areas`
    ]
)

# Permutation of SIFT's 4 x 4 cells of 8 directions that describes the mirrored photo without a second extraction: cells
# across the feature's direction change sides, and directions are reversed.
MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


class Records(Sequence):
    """Records of many photos in files, few of which are mapped into memory at a time.

    Other processes receive the paths of the files.
    """

    def __init__(self, files: Sequence[str | Path], rows: Sequence[int] | None = None) -> None:
        """Use some rows of files, by default all.

        Args:
            files: Arrays of `RECORD` saved by NumPy, of one size, except for the last one, which may be smaller.
            rows: Rows of the joined arrays.
        """
        self._files = [str(file) for file in files]
        self._size = len(_map(self._files[0])) if files else 1
        everything = self._size * (len(files) - 1) + len(_map(self._files[-1])) if files else 0
        self._rows = range(everything) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int | slice) -> np.ndarray | list[np.ndarray]:
        """Return a scalar of `RECORD`, or a list of them."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        row = self._rows[place]
        return _map(self._files[row // self._size])[row % self._size]

    def of(self, rows: Sequence[int]) -> "Records":
        """Return the records of some rows of all files."""
        return Records(self._files, rows)

    def embeddings(self) -> np.ndarray:
        """Return the embeddings: float16 of shape (photos, EMBEDDING)."""
        return np.fromiter((record["embedding"] for record in self), np.dtype((np.float16, EMBEDDING)), len(self))


@functools.lru_cache(MAPPED)
def _map(file: str) -> np.memmap:
    return np.load(file, mmap_mode="r")


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
    """Return the thumbnails, grey and brightest channel: uint8 of shape (height, width, 2)."""
    height, width = record["thumbnail_shape"]
    thumbnails = record["thumbnails"][:height, :width]
    return np.ascontiguousarray(thumbnails[:, ::-1] if mirrored else thumbnails)


def plain_areas_of(record: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Return the pixels of the thumbnails in and around plain areas: bool of shape (height, width)."""
    height, width = record["thumbnail_shape"]
    plain = np.unpackbits(record["plain"], axis=1)[:height, :width].astype(bool)
    return np.ascontiguousarray(plain[:, ::-1]) if mirrored else plain
