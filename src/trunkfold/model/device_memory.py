"""What fits into the memory of a device, found by trying, and what to say where nothing does."""

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
# Beside those that Accelerate knows: the driver and its libraries allocate memory of their own.
FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")

Found = TypeVar("Found")


def is_memory_full(error: RuntimeError) -> bool:
    """Whether PyTorch raised an error because a device's memory, or the CPU's, is too small."""
    return should_reduce_batch_size(error) or any(words in str(error) for words in FULL)


def first_that_fits(attempt: Callable[[int], Found], start: int, advice: str) -> Found:
    """Result of the first attempt that does not run out of memory: with `start` rows, then each time a tenth fewer.

    Raises:
        MemoryFullError: Not even one row fits; its message ends with the advice.
    """
    rows = start
    while rows > 1:
        try:
            return attempt(rows)
        except RuntimeError as error:
            if not is_memory_full(error):
                raise
        # Out of the handler, where the error no longer holds what the attempt allocated.
        clear_device_cache(garbage_collection=True)
        rows = int(0.9 * rows)
    with told_of_memory(advice):
        return attempt(rows)


def largest_batch(attempt: Callable[[int], object], start: int, advice: str) -> int:
    """The first size, going down from `start`, that does not run out of memory.

    Raises:
        MemoryFullError: Not even one row fits; its message ends with the advice.
    """
    return first_that_fits(lambda rows: (attempt(rows), rows)[1], start, advice)


def in_pieces(compute: Callable[[Tensor], Tensor], batch: Tensor, advice: str) -> Tensor:
    """`compute(batch)`; where the memory is too small for the whole batch, the joined results of its pieces.

    Raises:
        MemoryFullError: Not even one row fits; its message ends with the advice.
    """
    return first_that_fits(lambda rows: torch.cat([compute(piece) for piece in batch.split(rows)]), len(batch), advice)


def fewest_pieces(accelerator: Accelerator, rows: int, attempt: Callable[[int], object]) -> int:
    """How many pieces a batch is divided into so that each fits, the same number in all processes.

    Args:
        accelerator: All its processes call this at once.
        rows: Rows of each fold in this process's share of a batch.
        attempt: Learns from so many rows of each fold, and leaves no trace.

    Raises:
        MemoryFullError: In some process not even one row of each fold fits.
    """
    full = None
    try:
        pieces = math.ceil(rows / largest_batch(attempt, rows, LEARNING))
    except MemoryFullError as error:  # the others are told before this one ends: they would wait for it
        pieces, full = 0, error
    found = accelerator.gather(torch.tensor([pieces], device=accelerator.device))
    if not found.all():
        raise full or MemoryFullError(f"the memory of another process's device is full: {LEARNING}")
    return int(found.max())


@contextmanager
def told_of_memory(advice: str) -> Iterator[None]:
    """Turn running out of memory into a `MemoryFullError` that ends with an advice."""
    try:
        yield
    except RuntimeError as error:
        if not is_memory_full(error):
            raise
        raise MemoryFullError(f"out of memory ({str(error).partition(chr(10))[0]}): {advice}") from error
