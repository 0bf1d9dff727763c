"""Data-loader workers: an error in one names its photo, and a killed one ends the run with a clear message."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trunkfold.errors import InputError

# Photos that a worker passes at once through shared memory, of which a container has as little as 64 MB: each worker
# has two such pieces there. Whole batches of 512 photos would take 2.5 GB with 16 workers.
PIECE = 16


class PhotoError(InputError):
    """A photo cannot be prepared for the model; the message names its file."""

    def __init__(self, message: str) -> None:
        """Keep the sentence alone: torch raises a worker's error again with the worker's traceback before it."""
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class DeadWorkerError(InputError):
    """A data-loader worker was killed."""


class PhotoLoader(DataLoader):
    """Photos in batches on a device, loaded by torch's DataLoader in small pieces.

    A batch of photos has the shape (photos, 3, height, width) and the memory format channels_last, because datasets
    give photos as (height, width, 3). Kept features stay as they are.
    """

    def __init__(
        self, photos: Dataset, workers: int, batches: Iterable, device: torch.device, persistent: bool = False
    ) -> None:
        """Load in `workers` processes or, with 0, in this one.

        Args:
            batches: A list of indices for each batch; has a length.
            device: Where the batches go.
            persistent: Whether the workers stay after the end of an iteration.
        """
        self.pieces, self.device = _Pieces(batches), device
        super().__init__(
            photos,
            batch_sampler=self.pieces,
            num_workers=workers,
            persistent_workers=persistent,
            pin_memory=device.type == "cuda",
            # With a generator of its own, starting an iteration draws none of the training's random numbers.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.pieces.batches)

    def __iter__(self) -> Iterator[Tensor | list[Tensor]]:
        parts = []
        for piece in super().__iter__():
            tensors = [piece] if isinstance(piece, Tensor) else piece
            # A copy frees the shared memory that a piece came through.
            parts.append([part.to(self.device, non_blocking=True, copy=self.num_workers > 0) for part in tensors])
            if self.pieces.last.popleft():
                batch = [torch.cat(column) for column in zip(*parts, strict=True)]
                batch = [part.permute(0, 3, 1, 2) if part.dtype == torch.uint8 else part for part in batch]
                yield batch[0] if isinstance(piece, Tensor) else batch
                parts = []


class _Pieces:
    """Batches in pieces of at most `PIECE` photos.

    Attributes:
        last: For each piece under way, whether it is the last one of its batch.
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
    """Name the photo in whatever fails while it is prepared: its file, where `pixels` has `paths`, or its row.

    Raises:
        PhotoError: From the original error.
    """
    try:
        yield
    except Exception as error:  # each transform and each file system has its own
        path = pixels.paths[row] if hasattr(pixels, "paths") else f"the photo in row {row} (the first is 0)"
        raise PhotoError(f"{path} cannot be prepared for the model: {type(error).__name__}: {error}") from error


@contextmanager
def worker_deaths_explained() -> Iterator[None]:
    """Turn torch's error about a worker that died into one that says what to do.

    Raises:
        DeadWorkerError: From torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        reason = str(error).partition("\n")[0]
        raise DeadWorkerError(
            f"{reason}. If the memory was full, lower --data.workers or --train.batch_size; /dev/shm, through which "
            "workers pass photos, counts too. With --data.workers 0 a photo that crashes the program shows itself."
        ) from error
