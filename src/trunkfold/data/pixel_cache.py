"""A cache of decoded photos on disk, shared by all runs and memory-mapped by all processes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from trunkfold.cores import usable_cores
from trunkfold.data.photos import Photos, UnreadablePhotoError, content_key, read_photo
from trunkfold.files import block_by_block, locked_folder, read_blocks

NAME, BLOCK = "photos", 256  # photos per file: at most this many are decoded again after an interruption
VERSION = 1  # increase when decoding or packing changes, so that old caches are not read
SIZES = np.dtype(np.uint32)  # heights and widths, at the start of each block


class CachedPhotos(Sequence):
    """Decoded photos by row, read-only uint8 arrays of shape (height, width, 3) in mapped files.

    Pickling stores the folder and file names, not the pixels.

    Attributes:
        paths: File of each row.
        side: Side in pixels of the black square returned for an unreadable photo.
    """

    def __init__(self, folder: Path, paths: Sequence[str], side: int) -> None:
        self.folder, self.paths, self.side, count = folder, list(paths), side, len(paths)
        self._blocks = read_blocks(folder / NAME, count, BLOCK)
        self._sizes = [_sizes(block, min(BLOCK, count - BLOCK * k)) for k, block in enumerate(self._blocks)]
        self._ends = [2 * SIZES.itemsize * len(sizes) + 3 * sizes.prod(1).cumsum() for sizes in self._sizes]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> np.ndarray:
        if not 0 <= row < len(self):
            raise IndexError(row)
        number, place = divmod(int(row), BLOCK)
        height, width = self._sizes[number][place]
        end = self._ends[number][place]
        pixels = self._blocks[number][end - 3 * height * width : end]
        return pixels.reshape(height, width, 3) if height else np.zeros((self.side, self.side, 3), np.uint8)

    def __reduce__(self) -> tuple:
        return CachedPhotos, (self.folder, self.paths, self.side)

    @property
    def key(self) -> str:
        """Key of the pixels and their order."""
        return self.folder.name

    @property
    def unreadable(self) -> list[int]:
        """Rows that could not be decoded."""
        return np.flatnonzero(np.concatenate([sizes[:, 0] for sizes in self._sizes]) == 0).tolist()


def load_photos(paths: Sequence[str], side: int, cache_dir: Path) -> Photos:
    """Load photos from the cache, decoding the missing ones first.

    The cache is keyed by file content, not by name or date. One process decodes with one thread per core while the
    others wait; an interrupted run resumes after the last complete block.

    Args:
        paths: File of each row.
        side: See `read_photo`; 7,200 photos take 1.9 GB at 256.
        cache_dir: Folder of all caches.

    Raises:
        InputError: `cache_dir` is not writable, the disk is full, or memory or file handles are exhausted.
    """
    key = content_key(paths, side, BLOCK, VERSION)
    with ThreadPoolExecutor(usable_cores()) as pool:

        def decode(rows: slice) -> np.ndarray:
            return _pack([pixels for pixels, _ in pool.map(lambda path: _read(path, side), paths[rows])])

        with locked_folder(cache_dir / f"{NAME}-{key}", "--cache.dir") as folder:
            block_by_block(folder / NAME, len(paths), BLOCK, decode, "decoding photos")
    pixels = CachedPhotos(folder, paths, side)
    return Photos(pixels, {row: _read(paths[row], side)[1] for row in pixels.unreadable})


def _read(path: str, side: int) -> tuple[np.ndarray, str]:
    """Return the pixels, or an empty array and the reason."""
    try:
        return read_photo(path, side), ""
    except UnreadablePhotoError as error:
        return np.zeros((0, 0, 3), np.uint8), str(error)


def _pack(pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate the photos of a block after their sizes."""
    sizes = np.array([photo.shape[:2] for photo in pixels], SIZES)
    return np.concatenate([sizes.view(np.uint8).ravel(), *(photo.ravel() for photo in pixels)])


def _sizes(block: np.ndarray, count: int) -> np.ndarray:
    """Return heights and widths of a block's photos: int64 of shape (count, 2)."""
    return block[: 2 * SIZES.itemsize * count].view(SIZES).reshape(-1, 2).astype(np.int64)
