"""Loader processes, and which photo one held when it died."""

import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trunkfold.errors import LocalError

DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")  # what torch says of it, after a signal or without
PID, ROW = 0, 1

_note: Tensor | None = None  # in a worker: its process id, and the row of the photo that it is at work on


class DeadWorkerError(LocalError):
    """A loader's worker was killed.

    Attributes:
        reason: What torch says of it.
        row: Of the photo that it took up last; None where it had not begun.
    """

    def __init__(self, reason: str, row: int | None, name: str | None = None) -> None:
        """Say what happened and what to do.

        Args:
            name: The photo's file, where it is known.
        """
        photo = name or f"that in row {row} (the first is 0)"
        held = " before its first photo" if row is None else f"; the photo that it took up last is {photo}"
        super().__init__(
            f"a loader process died{held} ({reason}): --data.workers 0 shows whether that photo crashes the program; "
            "or the memory was full, then fewer data.workers or a smaller train.batch_size take less of it, and of "
            "/dev/shm, through which they hand over photos"
        )
        self.reason, self.row = reason, row


class PhotoLoader(DataLoader):
    """Photos in batches, as torch's DataLoader loads them; a worker that dies is told with the photo it held.

    The datasets say which one that is by `at_work_on`.

    Raises:
        DeadWorkerError: While batches are asked for: a worker was killed.
    """

    def __init__(self, photos: Dataset, workers: int, **options: object) -> None:
        """Load in `workers` processes or, with 0, in this one.

        Args:
            options: Of torch's DataLoader.
        """
        self.notes = torch.full((workers, 2), -1).share_memory_()
        pinned = torch.cuda.is_available()
        start = functools.partial(_start_worker, self.notes)
        # With a generator of its own, asking for batches draws none of the training's random numbers.
        own = {"worker_init_fn": start, "generator": torch.Generator()}
        super().__init__(photos, num_workers=workers, pin_memory=pinned, **own, **options)

    def __iter__(self) -> Iterator:
        try:
            with _deaths_told_when_asked():
                batches = super().__iter__()
            yield from batches
        except RuntimeError as error:
            died = DIED.search(str(error))
            if died is None:
                raise
            dead = [int(pid) for pid in died[1].split(",")]
            rows = [row for pid, row in self.notes.tolist() if pid in dead and row >= 0]
            raise DeadWorkerError(str(error).partition("\n")[0], rows[0] if rows else None) from error


def at_work_on(row: int) -> None:
    """Note, in a loader's worker, which photo it takes up; elsewhere nothing."""
    if _note is not None:
        _note[ROW] = int(row)


@contextmanager
def photos_named(names: Sequence[str]) -> Iterator[None]:
    """Let the error of a worker that died name the file it held.

    Args:
        names: A file for each row.

    Raises:
        DeadWorkerError: As it came, with the file's name in its message.
    """
    try:
        yield
    except DeadWorkerError as error:
        if error.row is None:
            raise
        raise DeadWorkerError(error.reason, error.row, list(names)[error.row]) from error


def _start_worker(notes: Tensor, number: int) -> None:
    global _note
    _note = notes[number]
    _note[PID] = os.getpid()


@contextmanager
def _deaths_told_when_asked() -> Iterator[None]:
    """Keep torch from raising the death of a worker out of whatever runs at that moment: the loader asks every 5 s."""
    settable = sys.platform != "win32" and threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if settable else None
    try:
        yield
    finally:
        if settable and before is not None:
            signal.signal(signal.SIGCHLD, before)
