"""What fits into the memory of a device, found by trying, and what to say where nothing does."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import find_executable_batch_size
from accelerate.utils.memory import should_reduce_batch_size

from trunkfold.errors import MemoryFullError

LEARNING = "lower train.batch_size, data.image_size or model.tune_stages, or set train.mixed_precision to bf16 or fp16"
PREDICTING = "lower predict.batch_size or data.image_size, or set train.mixed_precision to bf16 or fp16"


def largest_batch(attempt: Callable[[int], object], start: int, advice: str) -> int:
    """The first size, going down from `start`, that does not run out of memory.

    Raises:
        MemoryFullError: Not even one row fits; its message ends with the advice.
    """

    def fits(batch_size: int) -> int:
        if batch_size > 1:
            attempt(batch_size)
        else:
            with told_of_memory(advice):
                attempt(batch_size)
        return batch_size

    return find_executable_batch_size(fits, starting_batch_size=start)()


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
        if not isinstance(error, torch.cuda.OutOfMemoryError) and not should_reduce_batch_size(error):
            raise
        raise MemoryFullError(f"out of memory ({str(error).partition(chr(10))[0]}): {advice}") from error
