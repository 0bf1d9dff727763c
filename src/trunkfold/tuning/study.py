"""A study: trials in a database shared by all worker processes.

Optuna's heartbeats show which trials belong to live processes. All other running trials are marked as failed, and
their parameters are queued again.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from trunkfold.config.parsing import dump_config, load_yaml
from trunkfold.errors import InputError
from trunkfold.files import LOCK, locked_folder, write_text
from trunkfold.run_folder import SUBMISSIONS, RunFolder
from trunkfold.split.dataset import Labelled
from trunkfold.training.resume import empty_run
from trunkfold.tuning.schema import TuningConfig

STUDY, TRIALS = "study.yaml", "study.db"  # in the study's folder
CONFIG, PHOTOS, STARTED, HISTORY = "config", "photos", "started", "retry_history"  # keys of user and system attributes
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
PATIENCE = 3  # missed heartbeats after which a process is considered dead
POLL = 1.0  # seconds between checks for trials of other processes
DATABASE_WAIT = 60  # seconds to wait for another process's write
OTHERS = (  # prefixes of options that may change when a study is resumed
    *("tune.trials", "tune.storage", "tune.heartbeat", "tune.retries", "tune.best"),
    *("data.root", "data.workers", "predict.", "decode.", "cache.", "run."),
)

optuna.logging.set_verbosity(optuna.logging.ERROR)  # describe_trial replaces Optuna's log lines
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_study(config: TuningConfig) -> tuple[optuna.Study, Path]:
    """Create or resume a study, and return it with its folder.

    Raises:
        InputError: The folder belongs to a run, or is replaced while another process uses it; the storage cannot be
            reached; or the study was started with different options; the message names them.
    """
    folder = SUBMISSIONS / config.run.name
    if config.run.restart:
        empty_run(RunFolder(folder))
    with locked_folder(folder, "--run.name"):
        found = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if found and not {STUDY, TRIALS} & set(found):
            raise InputError(
                f"{folder} contains a run, not a study: choose another --run.name, or replace the run with "
                "--run.restart true"
            )
        with _database_errors(ImportError):
            study = _load(config, folder)
            _check_options(study, config)
        write_text(_described(config), folder / STUDY)
    return study, folder


def check_photos(study: optuna.Study, labelled: Labelled) -> None:
    """Raise an `InputError` if photos, labels, groups or folds have changed since the study was started."""
    found = labelled.key
    if study.user_attrs.setdefault(PHOTOS, found) != found:
        raise InputError(
            f"the photos, labels, groups or folds have changed since the study {study.study_name} was started: "
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
    """Run trials until all processes together have finished `tune.trials` of them.

    While other processes run the last trials, this one waits, so that it can take over if one of them dies.

    Args:
        objective: Runs a trial and returns its score.
        after_trial: Called after each trial of this process, under a lock shared by all processes on this machine.

    Raises:
        KeyboardInterrupt: The process was interrupted; its trial is marked as failed and its parameters are queued.
        InputError: The database fails, or another process took over a trial because this one missed its heartbeats.
    """
    starting = FileLock(folder / LOCK)

    def run(trial: Trial) -> float:
        trial.set_user_attr(STARTED, trial.number)  # a retry copies the attributes
        starting.release()  # the trial is now visible to other processes as running
        try:
            return objective(trial)
        except KeyboardInterrupt:
            RetryHeartbeatStaleTrialCallback()(study, study.trials[trial.number])
            raise

    def done(study: optuna.Study, trial: FrozenTrial) -> None:
        with starting:
            after_trial(study, trial)

    with _database_errors():
        while finished_trials(study) < config.tune.trials:
            with starting:
                _fail_stale_trials(study, config)
                begun = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING))
                if len(begun) < config.tune.trials:
                    study.sampler = make_sampler(config.train.seed, len(study.get_trials(deepcopy=False)))
                    study.optimize(run, n_trials=1, callbacks=[done])
                    continue
            time.sleep(POLL)


def finished_trials(study: optuna.Study) -> int:
    """Return the number of complete and pruned trials."""
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def make_sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Return a TPE sampler seeded by trial number: resumed studies are reproducible, and processes differ."""
    drawn = np.random.SeedSequence([seed, number]).generate_state(1)[0]
    return optuna.samplers.TPESampler(seed=int(drawn), constant_liar=True)


def make_pruner(config: TuningConfig) -> optuna.pruners.BasePruner:
    """Return the pruner selected by `tune.pruner`."""
    if config.tune.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=config.train.epochs)
    return optuna.pruners.MedianPruner() if config.tune.pruner == "median" else optuna.pruners.NopPruner()


def _fail_stale_trials(study: optuna.Study, config: TuningConfig) -> None:
    """Mark trials of dead processes as failed, and queue their parameters again."""
    optuna.storages.fail_stale_trials(study)
    patience = timedelta(seconds=PATIENCE * config.tune.heartbeat)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        # Optuna considers a trial alive if its process died before the first heartbeat.
        if trial.user_attrs.get(STARTED) != trial.number and datetime.now() - trial.datetime_start > patience:
            RetryHeartbeatStaleTrialCallback(config.tune.retries)(study, trial)
            study.tell(trial.number, state=TrialState.FAIL)


def _load(config: TuningConfig, folder: Path) -> optuna.Study:
    url = make_url(config.tune.storage or URL.create("sqlite", database=str((folder / TRIALS).resolve())))
    storage = RDBStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs={
            "pool_pre_ping": True,  # servers close connections that have been idle for hours
            "connect_args": {"timeout": DATABASE_WAIT} if url.get_backend_name() == "sqlite" else {},
        },
        heartbeat_interval=config.tune.heartbeat,
        grace_period=PATIENCE * config.tune.heartbeat,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(config.tune.retries),
    )
    name = config.run.name
    if config.run.restart and name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)
    return optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True, pruner=make_pruner(config)
    )


@contextmanager
def _database_errors(*others: type[Exception]) -> Iterator[None]:
    """Convert errors of the storage, and `others`, to an `InputError`."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, *others) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(
            f"the study's database (tune.storage) failed: {reason}. Fix this and rerun; finished trials are intact"
        ) from error
    except ValueError as error:
        if not str(error).startswith("Cannot tell"):  # Optuna has no exception class for this case
            raise
        raise InputError(
            f"another process took over this process's trial, which sent no heartbeat for {PATIENCE} x tune.heartbeat "
            "seconds: rerun to resume, with a longer --tune.heartbeat"
        ) from error


def _check_options(study: optuna.Study, config: TuningConfig) -> None:
    """Record the options of a new study; compare those of an existing one, except for `OTHERS`."""
    text = _described(config)
    before = study.user_attrs.get(CONFIG)
    if before is None:
        study.set_user_attr(CONFIG, text)
        return
    # By dotted name, such as tune.space.train.tail_lr.low.
    old, new = (pd.json_normalize(load_yaml(options)).to_dict("records")[0] for options in (before, text))
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name) and not name.startswith(OTHERS)]
    if changed:
        lines = [f"  {name}: {old.get(name)} in the study, {new.get(name)} now" for name in changed]
        raise InputError(
            f"the study {study.study_name} was started with different options; choose another --run.name, or start "
            "from scratch with --run.restart true:\n" + "\n".join(lines)
        )


def _described(config: TuningConfig) -> str:
    """Return the configuration as YAML for resuming, with restart off and the password masked."""
    storage = config.tune.storage and make_url(config.tune.storage).render_as_string(hide_password=True)
    tune = replace(config.tune, storage=storage)
    return dump_config(replace(config, tune=tune, run=replace(config.run, restart=False)))
