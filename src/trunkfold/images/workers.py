"""Data loading with clear errors: they name the failing photo, and explain killed workers."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trunkfold.errors import InputError

# Photos per piece that a worker passes through shared memory, which may be as small as 64 MB in a container. Each
# worker holds two pieces; whole batches of 512 photos would take 2.5 GB with 16 workers.
PIECE = 16


class PhotoError(InputError):
    """A photo cannot be prepared for the model; the message names its file."""

    def __init__(self, message: str) -> None:
        """Keep only the message: torch prepends the worker's traceback when it raises the error again."""
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class DeadWorkerError(InputError):
    """A data-loader worker was killed."""


class PhotoLoader(DataLoader):
    """Batches of photos on a device, loaded by torch's DataLoader in small pieces.

    Batches of photos have the shape (photos, 3, height, width) and the memory format channels_last, because datasets
    return photos as (height, width, 3). Cached features are not permuted.
    """

    def __init__(self, photos: Dataset, batches: Iterable, workers: int, device: torch.device) -> None:
        """Load batches, a sized iterable of lists of indices, in `workers` processes or, with 0, in this one."""
        self.pieces, self.device = _Pieces(batches), device
        super().__init__(
            photos,
            batch_sampler=self.pieces,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            # Without a separate generator, each iteration would advance the global random state of the training.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.pieces.batches)

    def __iter__(self) -> Iterator[Tensor | list[Tensor]]:
        parts = []
        for piece in super().__iter__():
            tensors = [piece] if isinstance(piece, Tensor) else piece
            # Copying releases the shared memory of the piece.
            parts.append([part.to(self.device, non_blocking=True, copy=self.num_workers > 0) for part in tensors])
            if self.pieces.last.popleft():
                batch = [torch.cat(column) for column in zip(*parts, strict=True)]
                batch = [part.permute(0, 3, 1, 2) if part.dtype == torch.uint8 else part for part in batch]
                yield batch[0] if isinstance(piece, Tensor) else batch
                parts = []


class _Pieces:
    """Batches in pieces of at most `PIECE` photos.

    Attributes:
        last: For each requested piece, whether it is the last one of its batch.
    """

    def __init__(self, batches: Iterable) -> None:
        self.batches, self.last = batches, deque()

    def __iter__(self) -> Iterator:
        self.last.clear()
        for batch in self.batches:
            for start in range(0, len(batch), PIECE):
                self.last.append(start + PIECE >= len(batch))
                yield batch[start : start + PIECE]


@contextmanager
def photo_named(pixels: Sequence[np.ndarray], row: int) -> Iterator[None]:
    """Add the photo's file, which `pixels.paths` lists by row, to errors raised in the block.

    Raises:
        PhotoError: Chained to the original error.
    """
    try:
        yield
    except Exception as error:  # transforms and file systems raise various types
        reason = f"{type(error).__name__}: {error}"
        raise PhotoError(f"{pixels.paths[row]} cannot be prepared for the model: {reason}") from error


@contextmanager
def worker_deaths_explained() -> Iterator[None]:
    """Replace torch's error about a dead worker by one that suggests a fix.

    Raises:
        DeadWorkerError: Chained to torch's error.
    """
    try:
        try:
            yield
        except (EOFError, OSError):
            # If a worker dies while it passes on a photo, its connection ends first; torch raises when it is signalled.
            time.sleep(1)
            raise
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        reason = str(error).partition("\n")[0]
        raise DeadWorkerError(
            f"{reason}. If memory (or /dev/shm, used by workers) was full, lower --data.workers or --train.batch_size. "
            "Use --data.workers 0 to find a photo that crashes the decoder."
        ) from error
