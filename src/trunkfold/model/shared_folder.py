"""Folders that the processes of a run work in together, on machines with and without a common disk."""

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
    """Keep other runs out of a folder of the same name on each machine.

    Args:
        accelerator: All its processes call this at once, and leave together.
        folder: Made where there is none.
        option: What chooses the folder, for the message.

    Yields:
        (k, n): this process is number k of the n that see the same files, those of its machine or of all machines.

    Raises:
        InputError: Nothing can be written to the folder.
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
        accelerator.wait_for_everyone()  # one of each group has the lock
        yield group.index(own), len(group)
        accelerator.wait_for_everyone()
