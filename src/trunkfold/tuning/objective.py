"""A trial: a short training of all folds with options of its own, on features that all trials share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import Dataset

from trunkfold.config.schema import Config, ModelConfig
from trunkfold.errors import DivergedError, MemoryFullError
from trunkfold.images.augmentation import make_augmentation
from trunkfold.images.batches import choose_workers, training_loader
from trunkfold.model.backbone import Backbone, build_backbone
from trunkfold.model.features import FeatureBatches, FeatureSource
from trunkfold.split.dataset import Labelled
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.loop import Validation, train
from trunkfold.training.setup import prepare, shown_photos
from trunkfold.tuning.schema import TuningConfig
from trunkfold.tuning.search_space import Space, alternatives, draw, trial_experiment

REASON, SPREAD = "reason", "std over folds"  # what is noted of a trial


@dataclass
class Objective:
    """What a trial is worth: the folds' mean macro F1 after its last epoch.

    Attributes:
        config: Of the study, its image size and normalisation settled.
        space: What trials differ in.
        labelled: The photos and their folds, the same for all.
        accelerator: Where they run.
    """

    config: TuningConfig
    space: Space
    labelled: Labelled
    accelerator: Accelerator

    def __call__(self, trial: optuna.Trial) -> float:
        """Train, and report every epoch to the pruner.

        A training that diverges, or that the GPU's memory is too small for, is a pruned trial of score 0, and not a
        failed one: samplers learn nothing from failures and would draw its like again and again.

        Raises:
            TrialPruned: The trial is not worth going on with.
            InputError: It cannot be trained; so the study's options are wrong.
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
        """Keep the features of every trunk, and try each named choice, so that a wrong one ends no study at night.

        Raises:
            InputError: timm has no such optimizer, schedule or model, or it does not take the given arguments.
        """
        backbones: dict[ModelConfig, Backbone] = {}
        for config in [trial_experiment(self.config, {}), *alternatives(self.config, self.space)]:
            if config.model not in backbones:
                backbones[config.model] = make_backbone(config, self.labelled)
            lockstep = prepare(config, self.labelled, backbones[config.model], self.accelerator)
            shared_features(config, self.labelled, self.accelerator, lockstep)
            self.accelerator.free_memory()


def run_trial(
    config: Config, labelled: Labelled, accelerator: Accelerator, after_epoch: Callable[[int, float], None]
) -> pd.DataFrame:
    """Train all folds exactly as src/train_folds.py does, whatever was trained before in this process.

    Args:
        config: Its image size and normalisation are settled.
        labelled: The photos and their folds.
        accelerator: What it held of an earlier trial is freed.
        after_epoch: See `trunkfold.training.loop.train`.

    Returns:
        The history: a row for each epoch and fold.

    Raises:
        DivergedError: A loss is not finite.
    """
    try:
        lockstep = prepare(config, labelled, make_backbone(config, labelled), accelerator)
        clean, seen = shared_features(config, labelled, accelerator, lockstep)
        loader = training_loader(seen, lockstep.batches, choose_workers(config.data, accelerator), accelerator.device)
        validation = Validation(clean, labelled.fold_of_row, labelled.targets)
        return train(lockstep, loader, validation, after_epoch=after_epoch, quiet=True)
    finally:
        accelerator.free_memory()  # it keeps every model that it ever prepared


def make_backbone(config: Config, labelled: Labelled) -> Backbone:
    """The model that the folds share, with the random weights that src/train_folds.py would have drawn."""
    set_seed(config.train.seed)
    return build_backbone(config.model, len(labelled.classes), normalize=config.data.normalize)


def shared_features(
    config: Config, labelled: Labelled, accelerator: Accelerator, lockstep: Lockstep
) -> tuple[FeatureBatches, Dataset]:
    """What does not depend on the trial: clean features to validate on, and augmented ones to learn from.

    See `trunkfold.training.setup.shown_photos`.
    """
    source = FeatureSource(accelerator, lockstep.trunk, labelled.pixels, config, lockstep.tails[0])
    return shown_photos(source, labelled, make_augmentation(config.augment, config.data.image_size))
