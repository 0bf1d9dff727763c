"""Batch sizes that fit a device's memory, found by trial, and errors that suggest a fix."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from trunkfold.errors import MemoryFullError

LEARNING = "lower train.batch_size, data.image_size or model.tune_stages, or set train.mixed_precision to bf16 or fp16"
PREDICTING = "lower predict.batch_size or data.image_size, or set train.mixed_precision to bf16 or fp16"
# In addition to those Accelerate knows: the driver and its libraries also allocate memory.
FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")

Found = TypeVar("Found")


def first_that_fits(attempt: Callable[[int], Found], start: int, advice: str) -> Found:
    """Return the first result that does not run out of memory, starting with `start` rows and reducing by a tenth.

    Raises:
        MemoryFullError: Not even one row fits; its message ends with the advice.
    """
    rows = start
    while True:
        try:
            with told_of_memory(advice):
                return attempt(rows)
        except MemoryFullError:
            if rows <= 1:
                raise
        # Outside the handler, the error no longer keeps the attempt's tensors alive.
        clear_device_cache(garbage_collection=True)
        rows = int(0.9 * rows)


def in_pieces(compute: Callable[[Tensor], Tensor], batch: Tensor, advice: str) -> Tensor:
    """Return `compute(batch)`, computed in pieces if memory is too small for the whole batch.

    Raises:
        MemoryFullError: Not even one row fits; its message ends with the advice.
    """
    return first_that_fits(lambda rows: torch.cat([compute(piece) for piece in batch.split(rows)]), len(batch), advice)


def fewest_pieces(accelerator: Accelerator, rows: int, attempt: Callable[[int], int]) -> int:
    """Return the smallest number of pieces of a batch that each fit, the same in all processes.

    Args:
        accelerator: All its processes call this together.
        rows: Rows of each fold in this process's share of a batch.
        attempt: Runs a training step on the given number of rows per fold without side effects; returns the number.

    Raises:
        MemoryFullError: Not even one row of each fold fits in some process.
    """
    full = None
    try:
        pieces = math.ceil(rows / first_that_fits(attempt, rows, LEARNING))
    except MemoryFullError as error:  # notify the other processes before exiting, or they would wait
        pieces, full = 0, error
    found = accelerator.gather(torch.tensor([pieces], device=accelerator.device))
    if not found.all():
        raise full or MemoryFullError(f"the memory of another process's device is full: {LEARNING}")
    return int(found.max())


@contextmanager
def told_of_memory(advice: str) -> Iterator[None]:
    """Replace out-of-memory errors of the device or the CPU by a `MemoryFullError` that ends with advice."""
    try:
        yield
    except RuntimeError as error:
        if not should_reduce_batch_size(error) and not any(words in str(error) for words in FULL):
            raise
        raise MemoryFullError(f"out of memory ({str(error).partition(chr(10))[0]}): {advice}") from error
