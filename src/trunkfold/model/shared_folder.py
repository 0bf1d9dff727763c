"""Folders shared by the processes of a run, on machines with or without a shared file system."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from uuid import uuid4

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from trunkfold.errors import InputError
from trunkfold.files import locked_folder


@contextmanager
def shared_folder(accelerator: Accelerator, folder: Path, option: str) -> Iterator[tuple[int, int]]:
    """Create a folder if necessary, and lock it on each machine against other runs; collective over all processes.

    Yields:
        (k, n): the index of this process among the n processes that share a file system.

    Raises:
        InputError: The folder is not writable; the message names `option`, which selects it.
    """
    own, (run,) = accelerator.process_index, broadcast_object_list([uuid4().hex])
    mark = folder / f".{run}-{own}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror or error}): choose another {option}") from error
    try:
        accelerator.wait_for_everyone()
        seen = gather_object([{int(path.name.rpartition("-")[2]) for path in folder.glob(f".{run}-*")}])
    finally:
        mark.unlink(missing_ok=True)
    group = [rank for rank, found in enumerate(seen) if own in found or rank in seen[own]]
    with locked_folder(folder, option) if own == group[0] else nullcontext():
        accelerator.wait_for_everyone()  # one process per file system holds the lock
        yield group.index(own), len(group)
        accelerator.wait_for_everyone()
