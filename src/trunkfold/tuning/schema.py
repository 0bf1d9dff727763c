"""The options of a study."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trunkfold.config.parsing import parse_config
from trunkfold.config.schema import Config, TrainConfig
from trunkfold.config.types import Arguments, Count, Natural

SPACE = {
    "train.optimizer": {"choices": ["adam", "adamw", "sgd", "nadamw"]},
    "train.tail_lr": {"low": 1e-5, "high": 1e-2, "log": True},
    "train.head_lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "train.tail_weight_decay": {"low": 1e-5, "high": 1e-1, "log": True},
    "train.head_weight_decay": {"low": 1e-5, "high": 1e-1, "log": True},
    "train.batch_size": {"choices": [20, 40, 80]},
}


@dataclass(frozen=True)
class TuneConfig:
    """The search. A trial is a short training run of all folds with its own option values.

    Attributes:
        trials: Number of finished trials, complete or pruned, over all processes and restarts. Short form: --trials.
        space: Search space. Maps a dotted option to {low, high}, optionally with step, or with log: true for a
            log-uniform distribution; or to {choices}.
        pruner: Early stopping of trials. hyperband runs several successive-halving brackets; median stops trials below
            the median of the others at the same epoch; none runs all trials to the end.
        storage: URL of an Optuna database shared by several machines, such as
            postgresql+psycopg2://user:password@host/database; null keeps the study in its folder.
        heartbeat: Seconds between a trial's heartbeats. After three missed heartbeats its process is considered dead,
            and the trial is queued again.
        retries: Number of times to rerun a trial whose process died.
        best: Dotted options of best.yaml that replace those of the study, whose trials are short and train on cached
            views because only their ranking matters. Options that were searched keep the best trial's values.
    """

    trials: Count = 100
    space: dict[str, Arguments] = field(default_factory=SPACE.copy)
    pruner: Literal["hyperband", "median", "none"] = "hyperband"
    storage: str | None = None
    heartbeat: Count = 20
    retries: Natural = 3
    best: dict[str, Any] = field(default_factory=lambda: {"train.epochs": 30, "train.cached_views": None})


@dataclass(frozen=True)
class TuningConfig(Config):
    """Options of a study: the run that trials vary, and the search."""

    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=10, cached_views=4))
    tune: TuneConfig = field(default_factory=TuneConfig)


def parse_tuning(args: Sequence[str] | None = None, description: str = "") -> TuningConfig:
    """Parse the options of a study; see `trunkfold.config.parsing.parse_config`."""
    return parse_config(args, description, TuningConfig, trials="tune.trials")
