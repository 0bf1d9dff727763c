"""Starting and resuming of runs: one process at a time, with unchanged options, photos and folds."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
from accelerate import Accelerator

from trunkfold.config.parsing import load_config
from trunkfold.config.rules import option_values
from trunkfold.config.schema import Config, Normalization
from trunkfold.data.tables import class_names
from trunkfold.errors import InputError
from trunkfold.evaluation.predictions import FOLDS_COLUMNS, read_folds
from trunkfold.files import occupied_folder
from trunkfold.run_folder import SUBMISSIONS, RunFolder
from trunkfold.training.checkpoint import ANOTHER

logger = logging.getLogger(__name__)
PATIENCE = 10.0  # seconds to wait for the lock, which data-loader workers of a killed run keep for a while
FREE = {  # options that do not affect results and may change before resuming
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
    """Return the folder of a run that can start or resume; call this before expensive work.

    Raises:
        InputError: The folder contains a finished run, other files, or an unfinished run with different options.
    """
    run = RunFolder(SUBMISSIONS / config.run.name, write=True)
    if config.run.restart or not _is_used(run):
        return run
    if run.is_finished:
        raise InputError(f"{run} contains a finished run: {ANOTHER}")
    if not run.config.exists():
        raise InputError(f"{run} contains files but no run: choose another --run.name")
    before = load_config(run.config)
    differences = _differences(before, config)
    if differences:
        raise InputError(
            f"{run} contains an unfinished run with {'; '.join(differences)}: resume it unchanged, or {ANOTHER}"
        )
    if config.train.epochs > before.train.epochs:
        logger.warning(
            "train.epochs is now %d instead of %d: the schedule changes during the run, so results differ from those "
            "of a run with %d epochs from the start",
            *(config.train.epochs, before.train.epochs, config.train.epochs),
        )
    return run


def check_normalization(run: RunFolder, config: Config) -> None:
    """Compare the normalization of a resumed run with the one that "dataset" measured, up to rounding.

    Raises:
        InputError: The run was started with explicit values that differ from the measured ones.
    """
    if config.run.restart or not run.config.exists():
        return
    before, now = load_config(run.config).data.normalize, config.data.normalize
    explicit = isinstance(before, Normalization)
    if explicit and not np.allclose([before.mean, before.std], [now.mean, now.std], atol=1e-3):
        raise InputError(
            f"{run} contains an unfinished run with data.normalize {before}, not {now}: resume it unchanged, or "
            f"{ANOTHER}"
        )


@contextmanager
def occupied_run(run: RunFolder, restart: bool, folds: pd.DataFrame, accelerator: Accelerator) -> Iterator[None]:
    """Create or resume the folder of `check_run` and lock it, in the first process; delete the checkpoint at the end.

    `restart` deletes the folder's content first; `folds` are the labelled photos, as written to folds.csv.

    Raises:
        InputError: Another process uses the folder, or it was started with other photos, labels or folds.
    """
    if not accelerator.is_main_process:
        yield
        return
    with occupied_folder(run.path, "--run.name", PATIENCE):
        if restart:
            _empty(run)
        elif run.folds.exists():
            before, now = (table[FOLDS_COLUMNS].to_numpy().tolist() for table in (read_folds(run.folds), folds))
            if before != now:
                raise InputError(f"the photos, labels, groups or folds have changed since {run} was started: {ANOTHER}")
            logger.warning("resuming the unfinished run in %s", run)
        run.check_writable("free space, or choose another --run.name")
        yield
        run.state.unlink(missing_ok=True)


def empty_run(run: RunFolder) -> None:
    """Delete a folder's content.

    Raises:
        InputError: Another process uses the folder, or it is not writable.
    """
    with occupied_folder(run.path, "--run.name", PATIENCE):
        _empty(run)


def _is_used(run: RunFolder) -> bool:
    """Return whether the folder contains files of a run.

    Folders without files remain if a run ends before it writes its configuration.
    """
    visible = (path for path in run.path.glob("[!.]*") if path != run.trackers)  # which may begin before the run
    return any(not path.is_dir() for own in visible for path in [own, *own.rglob("*")])


def _empty(run: RunFolder) -> None:
    try:
        for path in run.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != run.lock:
                path.unlink()
    except OSError as error:
        raise InputError(f"cannot empty {run} ({error.strerror or error}): choose another --run.name") from error


def _differences(before: Config, now: Config) -> list[str]:
    """List the changed options that prevent resuming, with both values; more epochs do not."""
    old, new = (
        {**option_values(config), "the order of data.classes": list(config.data.classes)}  # that of the logits
        for config in (before, _settled(before, now))
    )
    differing = [name for name in new if name not in FREE and new[name] != old[name]]
    if now.train.epochs > before.train.epochs:
        differing.remove("train.epochs")
    return [f"{name} {old[name]!r}, not {new[name]!r}" for name in differing]


def _settled(before: Config, now: Config) -> Config:
    """Replace options of `now` that depend on the data by the values they are saved with."""
    data, saved = now.data, before.data
    classes = class_names(pd.Series(list(saved.classes)), data.classes)
    if data.classes is None:  # names do not affect results
        classes = {label: saved.classes[label] for label in classes}
    measured = data.normalize == "dataset" and isinstance(saved.normalize, Normalization)
    normalize = saved.normalize if measured else data.normalize
    return replace(now, data=replace(data, classes=classes, normalize=normalize))
