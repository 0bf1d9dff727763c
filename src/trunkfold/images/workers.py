"""Data-loader workers: an error in one names its photo, and a killed one ends the run with a clear message."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from trunkfold.errors import InputError


class PhotoError(InputError):
    """A photo cannot be prepared for the model; the message names its file."""

    def __init__(self, message: str) -> None:
        """Keep the sentence alone: torch raises a worker's error again with the worker's traceback before it."""
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class DeadWorkerError(InputError):
    """A data-loader worker was killed."""


def photo_loader(photos: Dataset, workers: int, **options: object) -> DataLoader:
    """Load photos in `workers` processes or, with 0, in this one; `options` are those of torch's DataLoader."""
    # With a generator of its own, starting an iteration draws none of the training's random numbers.
    own = {"pin_memory": torch.cuda.is_available(), "generator": torch.Generator()}
    return DataLoader(photos, num_workers=workers, **own, **options)


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
