"""Experiment trackers through Accelerate: TensorBoard, MLflow, Weights & Biases, Trackio and the others it supports."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from trunkfold.config.rules import option_values
from trunkfold.config.schema import Config
from trunkfold.errors import InputError, nearest
from trunkfold.metrics import Metrics
from trunkfold.run_folder import RunFolder

logger = logging.getLogger(__name__)
PROJECT = "trunkfold"
RUN_NAME = {"mlflow": "run_name", "swanlab": "experiment_name", "trackio": "name", "wandb": "name"}  # argument names
OF_FOLD = ("train_", "val_")  # prefixes of history columns that differ between folds; others are per epoch


def check_trackers(names: Sequence[str]) -> None:
    """Raise an `InputError` for a tracker that Accelerate does not know or that is not installed."""
    installed = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            close = nearest(name, LOGGER_TYPE_TO_CLASS)
            raise InputError(f"run.trackers: Accelerate has no tracker {name}; the nearest is {close}")
        if name not in installed:
            raise InputError(f"run.trackers: {name} is not installed: pip install {name}")


@contextmanager
def tracking(run: RunFolder, config: Config, accelerator: Accelerator) -> Iterator[None]:
    """Start the trackers of `run.trackers` with the configuration, and finish them at the end of the block.

    The first process alone tracks, by `accelerator.log`. TensorBoard and Aim write to the run's folder; other trackers
    use their own settings. A tracker that fails is left out with a warning; it never ends a training.
    """
    names = dict.fromkeys(config.run.trackers if accelerator.is_main_process else [])
    # Usually an argument of Accelerator; set here, because the run is unknown when the process starts.
    accelerator.log_with = [_Guarded(name, run) for name in names]
    accelerator.init_trackers(PROJECT, {name: _plain(value) for name, value in option_values(config).items()})
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers.clear()


def log_epoch(accelerator: Accelerator, rows: Sequence[Mapping[str, float]]) -> None:
    """Log one epoch of the history (one row per fold), as `val_loss/fold_0`, ..., and `val_loss/mean`."""
    values = {key: value for key, value in rows[0].items() if key not in ("epoch", "fold")}
    for key in [key for key in values if key.startswith(OF_FOLD)]:
        del values[key]
        values |= {f"{key}/fold_{row['fold']}": float(row[key]) for row in rows}
        values[f"{key}/mean"] = sum(float(row[key]) for row in rows) / len(rows)
    accelerator.log(values, step=rows[0]["epoch"])


def log_results(accelerator: Accelerator, metrics: Metrics, run: RunFolder) -> None:
    """Log the final scores with their intervals, such as `holdout/macro_f1`, and the report as an artifact."""
    values = {}
    for name, scores in metrics.by_set().items():
        for score in ("macro_f1", "accuracy"):
            low, high = getattr(scores.intervals, score)
            values |= {f"{name}/{score}": getattr(scores, score)}
            values |= {f"{name}/{score}_low": low, f"{name}/{score}_high": high}
    accelerator.log(values)
    for tracker in accelerator.trackers:
        tracker.log_artifact(str(run.report))


class _Guarded(GeneralTracker):
    """Wraps one of Accelerate's trackers, and disables it with a warning at the first failure."""

    requires_logging_directory = False

    def __init__(self, name: str, run: RunFolder) -> None:
        self.name, self.tracker = name, None
        super().__init__()
        with self._guard():
            self.tracker = _start(name, run)

    def store_init_configuration(self, values: dict) -> None:
        self._call("store_init_configuration", values)

    def log(self, values: dict, step: int | None = None, **options: object) -> None:
        self._call("log", values, step=step, **options)

    def log_artifact(self, path: str) -> None:
        """Log a file, if the tracker supports artifacts."""
        with self._guard():
            for owner in (self.tracker, getattr(self.tracker, "tracker", None)):
                if hasattr(owner, "log_artifact"):
                    owner.log_artifact(path)
                    return

    def finish(self) -> None:
        self._call("finish")

    def _call(self, method: str, *args: object, **options: object) -> None:
        with self._guard():
            if self.tracker is not None:
                getattr(self.tracker, method)(*args, **options)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # trackers raise any type: from their library, server or disk
            self.tracker = None
            reason = str(error).partition("\n")[0] or type(error).__name__
            logger.warning("run.trackers: %s failed and is disabled for the rest of the run (%s)", self.name, reason)


def _start(name: str, run: RunFolder) -> GeneralTracker:
    kind = LOGGER_TYPE_TO_CLASS[name]
    if kind.requires_logging_directory:
        tracker = kind(run.name, str(run.trackers))
    else:
        tracker = kind(PROJECT, **({RUN_NAME[name]: run.name} if name in RUN_NAME else {}))
    if hasattr(tracker, "start"):  # older versions of Accelerate start trackers in the constructor
        tracker.start()
    return tracker


def _plain(value: object) -> bool | int | float | str:
    """Convert a value to a type that trackers accept."""
    if isinstance(value, bool | int | float | str):
        return value
    return str(value) if isinstance(value, Path) else json.dumps(value, default=vars)
