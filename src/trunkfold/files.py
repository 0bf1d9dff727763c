"""Files that are written whole or not at all, and folders that one process at a time works in."""

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from trunkfold.errors import InputError, WriteError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when all is on the disk and disappears when something fails.

    Raises:
        WriteError: Nothing can be written there, or the disk is full; what was at `path` is still there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # else a machine that loses its power may have renamed an empty file
        os.replace(partial, path)
    except OSError as error:
        raise WriteError(
            f"cannot write {path} ({error.strerror or error}): make room or mend it, and start again; "
            "what was there is unharmed"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def check_writable(paths: Iterable[Path], fix: str) -> None:
    """Try to write beside each of some paths before the work that they are for; their folders are made.

    Args:
        paths: Files that will be written.
        fix: What the user can do, for the message.

    Raises:
        InputError: A folder takes no files, or something else is in a file's place.
    """
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror or error}): {fix}") from error
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; {fix}")


def is_writable(folder: Path) -> bool:
    """Whether a folder exists and takes files, tried with one: permission bits mean nothing to root."""
    with suppress(OSError), tempfile.TemporaryFile(dir=folder):
        return True
    return False


@contextmanager
def locked_folder(folder: Path, option: str) -> Iterator[Path]:
    """A folder that only one process at a time is in, made where there is none.

    Args:
        option: What chooses the folder, for the message.

    Raises:
        InputError: Nothing can be written to it, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").open("a").close()  # FileLock would wait for a right to write that never comes
        with FileLock(folder / ".lock"):
            yield folder
    except WriteError as error:
        raise InputError(f"{error}; or choose another {option}") from error
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror or error}): choose another {option}") from error


def make_blocks(
    name: Path,
    count: int,
    size: int,
    make: Callable[[list[slice]], Iterable[np.ndarray]],
    bar: str | None = None,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Make something large in blocks that are saved as they are done, so that it goes on where it was interrupted.

    Args:
        name: Path that the files' names begin with.
        count: Rows of the whole.
        size: Rows of a block.
        make: Gives block after block for the rows that are still wanted.
        bar: Text of the progress bar; None draws none.
        share: Of (k, n): this process makes every n-th block from block k on.
    """
    blocks = {
        block_file(name, number): slice(number * size, min((number + 1) * size, count))
        for number in range(share[0], math.ceil(count / size), share[1])
    }
    wanted = {path: rows for path, rows in blocks.items() if not path.exists()}
    if not wanted:
        return
    total = sum(rows.stop - rows.start for rows in wanted.values())
    with tqdm(total=total, desc=bar, disable=bar is None) as progress:
        for (path, rows), block in zip(wanted.items(), make(list(wanted.values())), strict=True):
            with whole_file(path) as partial, partial.open("wb") as file:
                np.save(file, block)
            progress.update(rows.stop - rows.start)


def read_blocks(name: Path, count: int, size: int) -> list[np.ndarray]:
    """What `make_blocks` made, mapped from the files."""
    return [np.load(block_file(name, number), mmap_mode="r") for number in range(math.ceil(count / size))]


def block_by_block(
    name: Path, count: int, size: int, make: Callable[[slice], np.ndarray], bar: str | None = None
) -> list[np.ndarray]:
    """`make_blocks`, each block by a call of its own, then `read_blocks`."""
    make_blocks(name, count, size, lambda wanted: map(make, wanted), bar)
    return read_blocks(name, count, size)


def block_file(name: Path, number: int) -> Path:
    """Path of one block."""
    return name.with_name(f"{name.name}-{number:05}.npy")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table without its index; probabilities keep eight significant digits."""
    with whole_file(path) as partial:
        table.to_csv(partial, index=False, float_format="%.8g")


def write_bytes(content: bytes, path: Path) -> None:
    """Write a binary file."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8."""
    write_bytes(text.encode(), path)


def write_json(value: object, path: Path) -> None:
    """Write indented JSON."""
    write_text(json.dumps(value, indent=2) + "\n", path)
