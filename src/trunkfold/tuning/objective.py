"""The objective of a study: short training runs of all folds, on features shared by all trials."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
import torch
from accelerate import Accelerator

from trunkfold.config.schema import Config
from trunkfold.errors import DivergedError, MemoryFullError
from trunkfold.split.dataset import Labelled
from trunkfold.training.loop import train
from trunkfold.training.setup import complete, prepare_experiment, shown_photos
from trunkfold.tuning.schema import TuningConfig
from trunkfold.tuning.search_space import Space, alternatives, draw, trial_experiment

REASON, SPREAD = "reason", "std over folds"  # attributes of a trial


@dataclass
class Objective:
    """Objective function: mean macro F1 over the folds after a trial's last epoch.

    Attributes:
        config: Configuration of the study, with image size and normalization.
    """

    config: TuningConfig
    space: Space
    labelled: Labelled
    accelerator: Accelerator

    def __call__(self, trial: optuna.Trial) -> float:
        """Train all folds, reporting the score of every epoch to the pruner.

        A trial that diverges or runs out of GPU memory is pruned with score 0 rather than failed, because samplers
        ignore failed trials and would propose similar ones.

        Raises:
            TrialPruned: The pruner stopped the trial, it diverged, or it ran out of memory.
            InputError: The trial cannot be trained because the study's options are invalid.
        """
        config = trial_experiment(self.config, draw(trial, self.space))
        done = 0

        def after_epoch(epoch: int, macro_f1: float) -> None:
            nonlocal done
            done = epoch
            trial.report(macro_f1, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            history = run_trial(config, self.labelled, self.accelerator, after_epoch)
        except DivergedError:
            reason = "diverged"
        except (MemoryFullError, torch.cuda.OutOfMemoryError):
            reason = "out of memory"
        else:
            scores = history.loc[history["epoch"] == done, "val_macro_f1"]
            trial.set_user_attr(SPREAD, float(np.std(scores)))
            return float(np.mean(scores))
        trial.set_user_attr(REASON, reason)
        trial.report(0.0, done + 1)
        raise optuna.TrialPruned

    def rehearse(self) -> None:
        """Cache the features of every trunk and try each named choice, so that errors surface before the first trial.

        Raises:
            InputError: timm does not have an optimizer, schedule or model, or rejects its arguments.
        """
        for config in [trial_experiment(self.config, {}), *alternatives(self.config, self.space)]:
            shown_photos(prepare_experiment(complete(config), self.labelled, self.accelerator))
            self.accelerator.free_memory()


def run_trial(
    config: Config, labelled: Labelled, accelerator: Accelerator, after_epoch: Callable[[int, float], None]
) -> pd.DataFrame:
    """Train all folds exactly as src/train_folds.py does, independent of earlier runs in this process.

    See `trunkfold.training.loop.train` for `after_epoch`, the returned history and the errors.

    Raises:
        MemoryFullError: The features do not fit into memory.
    """
    try:
        experiment = prepare_experiment(complete(config), labelled, accelerator)
        return train(experiment.lockstep, *shown_photos(experiment), after_epoch=after_epoch, quiet=True)
    finally:
        accelerator.free_memory()  # Accelerate keeps references to all prepared models
