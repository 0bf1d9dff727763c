"""A run is a folder under submissions/: its name, the newest one, and files that are written whole or not at all."""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from trunkfold.errors import InputError

SUBMISSIONS = Path("submissions")
NONE = type(None)
METRICS = {  # what metrics.json holds, where it holds it
    **{name: (dict,) for name in ("classes", "split", "seconds", "parameters")},
    **{name: (NONE, dict) for name in ("oof", "holdout", "leak", "consensus", "copy_labels")},
    "folds": (list,),
}


def newest_run() -> Path:
    """The run that finished training last.

    Raises:
        InputError: There is none.
    """
    finished = [path.parent for path in SUBMISSIONS.glob("*/metrics.json") if (path.parent / "config.yaml").exists()]
    if not finished:
        raise InputError(f"no finished run under {SUBMISSIONS}/: train one first with src/train_folds.py")
    return max(finished, key=lambda folder: (folder / "metrics.json").stat().st_mtime)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when all is on the disk and disappears when something fails.

    Raises:
        InputError: Nothing can be written there, or the disk is full; what was at `path` is still there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # else a machine that loses its power may have renamed an empty file
        os.replace(partial, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}): make room or mend it, and start again; "
            "what was there is unharmed"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


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


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(value: object, path: Path) -> None:
    """Write indented JSON."""
    write_text(json.dumps(value, indent=2) + "\n", path)


def read_metrics(folder: Path) -> dict:
    """A run's metrics.json.

    Returns:
        All that it holds; `classes` (name of each label) and `split` at the least.

    Raises:
        InputError: It is missing, is not JSON, or holds something else.
    """
    path = folder / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} is missing: {folder} is not a run, or did not finish training") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    for name, kinds in METRICS.items():
        if not isinstance(metrics, dict) or not isinstance(metrics.get(name, kinds[0]()), kinds):
            raise InputError(f"{path} is damaged: it has no {name}, or another kind of them")
    classes = metrics.get("classes", {})
    if len(classes) < 2 or not all(isinstance(name, str) for name in classes.values()):
        raise InputError(f"{path} is damaged: its classes are no labels with names")
    return metrics


class Stopwatch:
    """Seconds by phase: `with stopwatch("training"): ...`.

    Attributes:
        started: When it was made, on the monotonic clock.
        seconds: Of each phase that has ended, in order.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[phase] = round(time.perf_counter() - started, 3)
