"""A study: storage of its trials, processes that share it, and retries of trials whose process died."""

import inspect
import math
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from trunkfold.config.parsing import dump_config, load_yaml
from trunkfold.errors import InputError
from trunkfold.files import locked_folder, write_text
from trunkfold.run_folder import SUBMISSIONS
from trunkfold.split.dataset import Labelled
from trunkfold.tuning.schema import TuningConfig

STUDY, JOURNAL, WORKERS, LOCK = "study.yaml", "journal.log", ".workers", ".lock"  # in the study's folder
CONFIG, PHOTOS, WORKER, HISTORY = "config", "photos", "worker", "retry_history"  # what is noted of studies and trials
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
PATIENCE = 3  # heartbeats without which a process counts as dead
POLL = 1.0  # seconds between two looks at what other processes do
OTHERS = (  # options, by prefix, that may change before a study resumes
    *("tune.trials", "tune.storage", "tune.heartbeat", "tune.retries", "tune.best"),
    *("data.root", "data.workers", "predict.", "decode.", "cache.", "run."),
)

optuna.logging.set_verbosity(optuna.logging.ERROR)  # a line of ours says what became of a trial
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_study(config: TuningConfig) -> tuple[optuna.Study, Path]:
    """Create or resume the study of a configuration; return the study and its folder.

    Raises:
        InputError: The folder belongs to a run, the storage cannot be reached, or the study was started with other
            options, which the message names.
    """
    folder = SUBMISSIONS / config.run.name
    if config.run.restart and folder.exists():
        shutil.rmtree(folder)
    with locked_folder(folder, "--run.name"):
        found = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if found and STUDY not in found:
            raise InputError(
                f"{folder} contains a run, not a study: choose another --run.name, or replace the run with "
                "--run.restart true"
            )
        try:
            study = _load(config, folder)
        except (SQLAlchemyError, ImportError) as error:
            raise InputError(f"tune.storage: {str(error).splitlines()[0]}") from error
        _check_options(study, config)
        write_text(_described(config), folder / STUDY)
    return study, folder


def check_photos(study: optuna.Study, labelled: Labelled) -> None:
    """Raise an `InputError` unless photos, labels and folds are those the study was started with."""
    table = labelled.table[["image_id", "label", "fold"]].to_csv(index=False)
    found = f"{labelled.pixels.key} {uuid.uuid5(uuid.NAMESPACE_OID, table).hex}"
    if study.user_attrs.setdefault(PHOTOS, found) != found:
        raise InputError(
            f"the photos, labels or folds are not those that the study {study.study_name} was started with: "
            "choose another --run.name"
        )
    study.set_user_attr(PHOTOS, found)


def work(
    study: optuna.Study,
    folder: Path,
    config: TuningConfig,
    objective: Callable[[Trial], float],
    after_trial: Callable[[optuna.Study, FrozenTrial], None],
) -> None:
    """Run trials until the study has `tune.trials` finished ones, together with all other processes.

    A process that finds the last trials in the hands of others waits for them, since one may die.

    Args:
        study: As `open_study` gave it.
        folder: Of the study.
        config: Of the study.
        objective: Runs a trial.
        after_trial: Is called after each trial of this process, one process of this machine at a time.

    Raises:
        KeyboardInterrupt: The user ended this process; its trial is marked failed and its parameters wait again.
    """
    starting = FileLock(folder / LOCK)
    with _presence(folder) as worker:

        def run(trial: Trial) -> float:
            trial.set_user_attr(WORKER, worker)
            starting.release()  # the others see now that this trial runs, and whose it is
            try:
                return objective(trial)
            except KeyboardInterrupt:
                retry(study, study.trials[trial.number], math.inf)
                raise

        def done(study: optuna.Study, trial: FrozenTrial) -> None:
            with starting:
                after_trial(study, trial)

        while finished_trials(study) < config.tune.trials:
            with starting:
                rescue(study, folder, config)
                if _may_start(study, config.tune.trials):
                    study.sampler = make_sampler(config.train.seed, len(study.get_trials(deepcopy=False)))
                    study.optimize(run, n_trials=1, callbacks=[done])
                    continue
            time.sleep(POLL)


def finished_trials(study: optuna.Study) -> int:
    """How many trials count: complete and pruned ones."""
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def rescue(study: optuna.Study, folder: Path, config: TuningConfig) -> None:
    """Mark the trials of dead processes as failed, and queue their parameters again.

    Where the storage has a URL, its heartbeat tells which processes are dead; where it is the folder's file, the locks
    that live processes hold there do.

    Args:
        study: Of this machine's processes only this one is looking now.
        folder: Of the study.
        config: Of the study.
    """
    optuna.storages.fail_stale_trials(study)  # does nothing without a heartbeat
    if config.tune.storage is None:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not _is_alive(folder, trial.user_attrs.get(WORKER)):
                retry(study, trial, config.tune.retries)
                study.tell(trial.number, state=TrialState.FAIL)


def retry(study: optuna.Study, trial: FrozenTrial, limit: float) -> None:
    """Queue the parameters of a failed trial again, unless that was done `limit` times.

    It leaves the notes of Optuna's own callback, optuna.storages.RetryFailedTrialCallback, which others can read.
    """
    history = [*trial.system_attrs.get(HISTORY, []), trial.number]
    if len(history) <= limit:
        attrs = {**trial.system_attrs, "failed_trial": history[0], HISTORY: history}
        parameters = {"params": trial.params, "distributions": trial.distributions}
        study.add_trial(optuna.create_trial(state=TrialState.WAITING, **parameters, system_attrs=attrs))


def make_sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Return a TPE sampler seeded by the trial's number: resumed studies are reproducible, and processes differ."""
    drawn = np.random.SeedSequence([seed, number]).generate_state(1)[0]
    return optuna.samplers.TPESampler(seed=int(drawn), constant_liar=True)


def make_pruner(config: TuningConfig) -> optuna.pruners.BasePruner:
    """Return the pruner, which stops trials early."""
    if config.tune.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=config.train.epochs)
    return optuna.pruners.MedianPruner() if config.tune.pruner == "median" else optuna.pruners.NopPruner()


def _may_start(study: optuna.Study, trials: int) -> bool:
    begun = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))
    return len(begun) < trials


def _load(config: TuningConfig, folder: Path) -> optuna.Study:
    storage = _storage(config, folder)
    name = config.run.name
    if config.run.restart and name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)
    return optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True, pruner=make_pruner(config)
    )


def _storage(config: TuningConfig, folder: Path) -> BaseStorage:
    if config.tune.storage is None:
        # Optuna's own lock outlives a process that was killed, and with a relative path for good.
        lock = FileLock(folder / ".journal.lock")
        with lock:
            _repair(folder / JOURNAL)
        return JournalStorage(JournalFileBackend(str(folder / JOURNAL), lock_obj=lock))
    renamed = "heartbeat_stale_trial_callback"  # in Optuna 4.9
    callback = renamed if renamed in inspect.signature(RDBStorage).parameters else "failed_trial_callback"
    return RDBStorage(
        config.tune.storage,
        engine_kwargs={"pool_pre_ping": True},  # servers drop connections that were idle for hours
        heartbeat_interval=config.tune.heartbeat,
        grace_period=PATIENCE * config.tune.heartbeat,
        **{callback: partial(retry, limit=config.tune.retries)},
    )


def _repair(journal: Path) -> None:
    """Remove an incomplete last line, left by a full disk, which would make the file unreadable."""
    if journal.exists():
        whole = journal.read_bytes().rfind(b"\n") + 1
        os.truncate(journal, whole)


def _check_options(study: optuna.Study, config: TuningConfig) -> None:
    """Note the options of a new study; an older one's must be the same, but for `OTHERS`."""
    text = _described(config)
    before = study.user_attrs.get(CONFIG)
    if before is None:
        study.set_user_attr(CONFIG, text)
        return
    old, new = (dict(_flat(load_yaml(options))) for options in (before, text))
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name) and not name.startswith(OTHERS)]
    if changed:
        lines = [f"  {name}: {old.get(name)} in the study, {new.get(name)} now" for name in changed]
        raise InputError(
            f"the study {study.study_name} was started with other options; choose another --run.name, or start from "
            "scratch with --run.restart true:\n" + "\n".join(lines)
        )


def _flat(options: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _described(config: TuningConfig) -> str:
    """Return the configuration as YAML for resuming, with restart off and without a password."""
    tune = replace(config.tune, storage=_hidden(config.tune.storage))
    return dump_config(replace(config, tune=tune, run=replace(config.run, restart=False)))


def _hidden(storage: str | None) -> str | None:
    return storage and make_url(storage).render_as_string(hide_password=True)


@contextmanager
def _presence(folder: Path) -> Iterator[str]:
    """A name of this process, and a lock of that name, which the system frees when the process dies."""
    (folder / WORKERS).mkdir(exist_ok=True)
    worker = uuid.uuid4().hex
    path = folder / WORKERS / worker
    with FileLock(path):
        yield worker
    path.unlink(missing_ok=True)


def _is_alive(folder: Path, worker: str | None) -> bool:
    if worker is None or not (folder / WORKERS / worker).exists():
        return False
    try:
        with FileLock(folder / WORKERS / worker, timeout=0):
            return False
    except Timeout:
        return True
