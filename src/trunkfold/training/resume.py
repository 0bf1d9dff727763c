"""A run's folder: begun, or found unfinished and gone on with; by one process at a time, and only as it was begun."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
from accelerate import Accelerator
from filelock import FileLock, Timeout

from trunkfold.config.parsing import load_config
from trunkfold.config.rules import option_values
from trunkfold.config.schema import Config
from trunkfold.errors import InputError
from trunkfold.evaluation.predictions import FOLDS_COLUMNS, read_folds
from trunkfold.run_folder import SUBMISSIONS, RunFolder
from trunkfold.training.checkpoint import ANOTHER

logger = logging.getLogger(__name__)
PATIENCE = 10.0  # seconds; loader processes keep a killed run's lock for some
FREE = {  # options that change no number of a run, and so may change while it is interrupted
    "cache.dir",
    "data.root",
    "data.workers",
    "decode.copy_labels",
    "predict.batch_size",
    "run.restart",
    "run.trackers",
    "train.max_hours",
    "train.save_minutes",
}


def check_run(config: Config) -> RunFolder:
    """The folder of a run that can begin or go on, checked before anything costly is done.

    Raises:
        InputError: It holds a finished run, something else, or an unfinished run of another configuration.
    """
    run = RunFolder(SUBMISSIONS / config.run.name, write=True)
    if config.run.restart or not _is_used(run):
        return run
    if run.metrics.exists() and not run.state.exists():
        raise InputError(f"{run} holds a finished run: {ANOTHER}")
    if not run.config.exists():
        raise InputError(f"{run} holds something else than a run: give this one another --run.name")
    before = load_config(run.config)
    differences = _differences(before, config)
    if differences:
        raise InputError(f"{run} holds an unfinished run with {'; '.join(differences)}: go on as it was, or {ANOTHER}")
    if config.train.epochs > before.train.epochs:
        logger.warning(
            "train.epochs is %d now and was %d: the schedule changes in mid-run, which is not what %d epochs from the "
            "start give",
            *(config.train.epochs, before.train.epochs, config.train.epochs),
        )
    return run


@contextmanager
def occupied_run(run: RunFolder, restart: bool, folds: pd.DataFrame, accelerator: Accelerator) -> Iterator[None]:
    """Make the folder, or go on in it, and keep all other runs out; at the end nothing is left to go on with.

    Args:
        run: As `check_run` gave it.
        restart: Throw away what is in it.
        folds: The labelled photos, as they are written to folds.csv.
        accelerator: Its first process occupies the folder.

    Raises:
        InputError: Another run is in it, or it was begun with other photos, labels or folds.
    """
    if not accelerator.is_main_process:
        yield
        return
    with _locked(run):
        if restart:
            _empty(run)
        elif run.folds.exists():
            _check_folds(run, folds)
            logger.warning("going on with the unfinished run in %s", run)
        run.check_writable("free the place, or give this run another --run.name")
        yield
        run.state.unlink(missing_ok=True)


@contextmanager
def _locked(run: RunFolder) -> Iterator[None]:
    lock = FileLock(run.lock, timeout=PATIENCE)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process works in {run}: wait for it, or give this one another --run.name") from error
    except OSError as error:
        raise InputError(f"cannot write to {run} ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()


def _check_folds(run: RunFolder, folds: pd.DataFrame) -> None:
    before, now = (table[FOLDS_COLUMNS].to_numpy().tolist() for table in (read_folds(run.folds), folds))
    if before != now:
        raise InputError(f"the photos, labels, groups or folds are not those that {run} was begun with: {ANOTHER}")


def _is_used(run: RunFolder) -> bool:
    """Whether anything is in the folder but the lock and files that were not finished."""
    return run.path.exists() and any(not path.name.startswith(".") for path in run.path.iterdir())


def _empty(run: RunFolder) -> None:
    for path in run.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != run.lock:
            path.unlink()


def _differences(before: Config, now: Config) -> list[str]:
    """The options that make another run, each with both values; but not a longer training."""
    old, new = _values(before), _values(_settled(before, now))
    differing = [name for name in new if name not in FREE and new[name] != old[name]]
    if now.train.epochs > before.train.epochs:
        differing.remove("train.epochs")
    return [f"{name} {old[name]!r}, not {new[name]!r}" for name in differing]


def _settled(before: Config, now: Config) -> Config:
    """`now` with what the data decide, which the saved configuration holds."""
    data = now.data
    classes = before.data.classes if data.classes is None else data.classes
    normalize = before.data.normalize if data.normalize == "dataset" else data.normalize
    return replace(now, data=replace(data, classes=classes, normalize=normalize))


def _values(config: Config) -> dict[str, object]:
    """Each option's value by its dotted name; labels are texts, as the saved configuration has them."""
    values = option_values(config)
    classes = values["data.classes"]
    return {**values, "data.classes": classes and {str(key): name for key, name in classes.items()}}
