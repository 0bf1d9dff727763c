"""The options of a study."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
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
    """The search. A trial is a short training of all folds with its own option values.

    Attributes:
        trials: Number of finished trials, complete or pruned, over all processes and restarts. Short form: --trials.
        space: Search space: {low, high} for each dotted option, with step, or log: true for a log-uniform
            distribution; or {choices}.
        pruner: How trials are stopped early: hyperband gives more epochs to the best trials so far, at several levels
            of patience; median stops trials worse than half of the others; none.
        storage: null keeps the study in its folder; or an Optuna URL that several machines share, such as
            postgresql+psycopg2://user:password@host/database.
        heartbeat: Seconds between a trial's heartbeats; after three missed heartbeats its process is considered dead,
            and another one runs the trial again.
        retries: How often to restart a trial whose process died.
        best: Dotted options of best.yaml that differ from those of the trials, which are short and train on cached
            views because only their ranking matters.
    """

    trials: Count = 100
    space: dict[str, Arguments] = field(default_factory=lambda: copy.deepcopy(SPACE))
    pruner: Literal["hyperband", "median", "none"] = "hyperband"
    storage: str | None = None
    heartbeat: Count = 20
    retries: Natural = 3
    best: dict[str, Any] = field(default_factory=lambda: {"train.epochs": 30, "train.cached_views": None})


@dataclass(frozen=True)
class TuningConfig(Config):
    """A study: the experiment its trials vary, and how."""

    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=10, cached_views=4))
    tune: TuneConfig = field(default_factory=TuneConfig)

    def experiment(self) -> Config:
        """Return the experiment without the search."""
        return Config(**{option.name: getattr(self, option.name) for option in fields(Config)})


def parse_tuning(args: Sequence[str] | None = None, description: str = "") -> TuningConfig:
    """Parse the options of a study; see `trunkfold.config.parsing.parse_config`."""
    return parse_config(args, description, TuningConfig, trials="tune.trials")
