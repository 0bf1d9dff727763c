"""Atomic writes, exclusive folder locks, and large arrays saved in blocks."""

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from trunkfold.errors import InputError, WriteError

LOCK = ".lock"  # in each locked folder


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` at the end of the block, or is deleted after an error.

    Raises:
        WriteError: The file cannot be written, or the disk is full; the file at `path` is unchanged.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # otherwise a power failure may leave an empty file under the new name
        os.replace(partial, path)
    except OSError as error:
        raise WriteError(
            f"cannot write {path} ({error.strerror or error}): free space or fix its permissions, then rerun; "
            "the previous file is intact"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder that is renamed to `path` at the end of the block, or deleted after an error.

    Raises:
        InputError: The folder cannot be written, or the disk is full.
    """
    parent = path.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=parent, ignore_cleanup_errors=True) as partial:
            content = Path(partial, "content")  # a temporary folder has mode 700, which rename would keep
            content.mkdir()
            yield content
            content.rename(path)
    except OSError as error:
        fix = "choose another --out, or free space"
        raise InputError(f"cannot write to {parent} ({error.strerror or error}): {fix}") from error


def check_writable(paths: Iterable[Path], fix: str) -> None:
    """Check that files can be written, creating their folders; call this before long work.

    Raises:
        InputError: A folder is not writable, or a path is a folder; the message ends with `fix`.
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
    """Return whether a folder exists and is writable, by creating a file, as permission bits do not apply to root."""
    with suppress(OSError), tempfile.TemporaryFile(dir=folder):
        return True
    return False


@contextmanager
def locked_folder(folder: Path, option: str) -> Iterator[Path]:
    """Create a folder if necessary, and lock it against other processes.

    Raises:
        InputError: The folder is not writable, or the block raised a `WriteError`; the message names `option`, which
            selects the folder.
    """
    with occupied_folder(folder, option):
        try:
            yield folder
        except WriteError as error:
            raise InputError(f"{error}; or choose another {option}") from error


@contextmanager
def occupied_folder(folder: Path, option: str, patience: float = -1) -> Iterator[None]:
    """Lock a folder as `locked_folder`; give up after `patience` seconds, and leave a `WriteError` as it is."""
    lock = FileLock(folder / LOCK, timeout=patience)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).open("a").close()  # FileLock would wait forever for write permission
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process uses {folder}: wait for it, or choose another {option}") from error
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror or error}): choose another {option}") from error
    try:
        yield
    finally:
        lock.release()


def make_blocks(
    name: Path,
    count: int,
    size: int,
    make: Callable[[list[slice]], Iterable[np.ndarray]],
    bar: str | None = None,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Compute an array in blocks and save each one, so that an interrupted computation can resume.

    Args:
        name: Prefix of the files' paths.
        count: Rows in total.
        size: Rows per block.
        make: Yields one block for each of the missing row ranges, in order.
        bar: Label of the progress bar; None shows none.
        share: (k, n): this process computes every n-th block, starting with block k.
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
    """Map the blocks written by `make_blocks` into memory."""
    return [np.load(block_file(name, number), mmap_mode="r") for number in range(math.ceil(count / size))]


def block_by_block(
    name: Path, count: int, size: int, make: Callable[[slice], np.ndarray], bar: str | None = None
) -> list[np.ndarray]:
    """Compute the missing blocks with one call per block, and map all blocks into memory."""
    make_blocks(name, count, size, lambda wanted: map(make, wanted), bar)
    return read_blocks(name, count, size)


def block_file(name: Path, number: int) -> Path:
    """Return the path of a block."""
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
