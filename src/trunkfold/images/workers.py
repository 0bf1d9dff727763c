"""Loader processes, and which photo one held when it died."""

import functools
import os
import re
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trunkfold.errors import LocalError

DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")  # what torch says of it, after a signal or without
PID, ROW = 0, 1
# Photos that a worker hands over at once, through shared memory, of which a container has as little as 64 MB. It holds
# two such pieces; batches of 512 would take 2.5 GB with 16 workers.
PIECE = 16

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
    """Photos in batches on a device, by torch's DataLoader; a worker that dies is told with the photo it held.

    The datasets say which one that is by `at_work_on`. They give photos as they lie in memory, (height, width, 3); a
    batch of them has the shape (photos, 3, height, width) and the memory format channels_last.

    Raises:
        DeadWorkerError: While batches are asked for: a worker was killed.
    """

    def __init__(
        self, photos: Dataset, workers: int, batches: Iterable, device: torch.device, persistent: bool = False
    ) -> None:
        """Load in `workers` processes or, with 0, in this one.

        Args:
            batches: The indices of each batch, and how many batches there are.
            device: Where the batches go.
            persistent: Whether the workers wait for another iteration after the end of one.
        """
        self.notes = torch.full((workers, 2), -1).share_memory_()
        self.pieces, self.device = _Pieces(batches), device
        start = functools.partial(_start_worker, self.notes)
        # With a generator of its own, asking for batches draws none of the training's random numbers.
        own = {"worker_init_fn": start, "generator": torch.Generator(), "persistent_workers": persistent}
        super().__init__(
            photos, batch_sampler=self.pieces, num_workers=workers, pin_memory=device.type == "cuda", **own
        )

    def __len__(self) -> int:
        return len(self.pieces.batches)

    def __iter__(self) -> Iterator[Tensor | list[Tensor]]:
        try:
            with _deaths_told_when_asked():
                pieces = super().__iter__()
            yield from self._joined(pieces)
        except RuntimeError as error:
            died = DIED.search(str(error))
            if died is None:
                raise
            dead = [int(pid) for pid in died[1].split(",")]
            rows = [row for pid, row in self.notes.tolist() if pid in dead and row >= 0]
            raise DeadWorkerError(str(error).partition("\n")[0], rows[0] if rows else None) from error

    def _joined(self, pieces: Iterator) -> Iterator[Tensor | list[Tensor]]:
        """Batches of the pieces, each copied out of shared memory as it comes."""
        parts = []
        for piece in pieces:
            tensors = [piece] if isinstance(piece, Tensor) else piece
            parts.append([part.to(self.device, non_blocking=True, copy=self.num_workers > 0) for part in tensors])
            if self.pieces.last.popleft():
                batch = [torch.cat(columns) for columns in zip(*parts, strict=True)]
                batch = [part.permute(0, 3, 1, 2) if part.dtype == torch.uint8 else part for part in batch]
                yield batch[0] if isinstance(piece, Tensor) else batch
                parts = []


class _Pieces:
    """Batches in pieces of at most `PIECE` photos.

    Attributes:
        last: Of each piece that was given and has not come back yet, whether it is the last one of its batch.
    """

    def __init__(self, batches: Iterable) -> None:
        self.batches, self.last = batches, deque()

    def __iter__(self) -> Iterator:
        self.last.clear()
        for batch in self.batches:
            for start in range(0, len(batch), PIECE):
                self.last.append(start + PIECE >= len(batch))
                yield batch[start : start + PIECE]


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
