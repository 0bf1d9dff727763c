"""An experiment: its options completed, its model and photos prepared, and its training."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from trunkfold.config.schema import AnyConfig, Config
from trunkfold.images.augmentation import Augmentation, make_augmentation
from trunkfold.images.batches import FoldBalancedBatches, TrainingPhotos, choose_workers, training_loader
from trunkfold.images.normalization import measure_normalization
from trunkfold.images.views import check_views
from trunkfold.metrics import Parameters
from trunkfold.model.backbone import Backbone, build_backbone, count_parameters
from trunkfold.model.features import FeatureBatches, FeatureSource
from trunkfold.model.layers import merge
from trunkfold.model.pretrained import check_weights, native_image_size
from trunkfold.split.dataset import Labelled
from trunkfold.split.folds import learned_from
from trunkfold.training.checkpoint import Checkpoint
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.loop import Validation, train
from trunkfold.training.optimizers import balanced_class_weights
from trunkfold.training.trackers import check_trackers


@dataclass(frozen=True)
class Experiment:
    """Everything that a training needs, on the accelerator's device.

    Attributes:
        config: Nothing is left open in it.
        labelled: The photos and their folds.
        augment: Makes training photos.
        backbone: What the tails are made of.
        lockstep: The tails.
        source: Features of the photos.
    """

    config: Config
    labelled: Labelled
    augment: Augmentation
    backbone: Backbone
    lockstep: Lockstep
    source: FeatureSource

    @property
    def parameters(self) -> Parameters:
        """Size of one fold's model."""
        return count_parameters(self.backbone, self.lockstep.tails[0])


def prepare_experiment(config: Config, labelled: Labelled, accelerator: Accelerator) -> Experiment:
    """Build the model, its tails and their optimizer.

    Args:
        config: See `complete`.

    Raises:
        InputError: See `build_backbone` and `prepare`.
    """
    config = settle_normalization(config, labelled)
    backbone = build_backbone(config.model, len(labelled.classes), normalize=config.data.normalize)
    lockstep = prepare(config, labelled, backbone, accelerator)
    source = FeatureSource(accelerator, lockstep.trunk, labelled.pixels, config, lockstep.tails[0])
    augment = make_augmentation(config.augment, config.data.image_size)
    return Experiment(config, labelled, augment, backbone, lockstep, source)


def train_folds(
    experiment: Experiment, clean: FeatureBatches, seen: Dataset, state: Path, started: float
) -> tuple[pd.DataFrame, int]:
    """Train the tails of an experiment, or resume.

    Args:
        clean: See `shown_photos`; so are `seen`.
        state: File of the training's state.
        started: When the command was, on the monotonic clock.

    Returns:
        The history, see `trunkfold.training.loop.train`, and the number of photos trained on.
    """
    config, labelled, lockstep = experiment.config, experiment.labelled, experiment.lockstep
    accelerator = lockstep.accelerator
    workers = choose_workers(config.data, accelerator)
    loader = training_loader(seen, lockstep.batches, workers, accelerator.device)
    checkpoint = Checkpoint(state, accelerator, config.train, labelled.pixels.key, started)
    history = train(lockstep, loader, Validation(clean, labelled.fold_of_row, labelled.targets), checkpoint)
    return history, config.train.epochs * len(loader) * config.train.batch_size


def merged_tails(lockstep: Lockstep) -> tuple[list[nn.Module], list[nn.Module]]:
    """Merged copies of the tails with the weights to keep, and with the raw ones where these were averaged."""
    with lockstep.weights() as tails:
        kept = [merge(tail) for tail in tails]
    if lockstep.ema is None or lockstep.best is not None:
        return kept, []
    with lockstep.weights(raw=True) as tails:
        return kept, [merge(tail) for tail in tails]


def complete(config: AnyConfig) -> AnyConfig:
    """Fill in what follows from other options, and check the names that only other modules know.

    Raises:
        InputError: There is no such model, view, tracker or transform, or the local weights do not fit the model.
    """
    check_views(config.predict.views)
    check_trackers(config.run.trackers)
    image_size = config.data.image_size or native_image_size(config.model.name)
    make_augmentation(config.augment, image_size)
    check_weights(config.model)
    return replace(config, data=replace(config.data, image_size=image_size))


def settle_normalization(config: AnyConfig, labelled: Labelled) -> AnyConfig:
    """Replace "dataset" by the numbers of the photos that are learned from, so that the run's folder holds them."""
    if config.data.normalize != "dataset":
        return config
    rows = np.flatnonzero(learned_from(labelled.fold_of_row))
    measured = measure_normalization(labelled.pixels, rows, config.data.image_size)
    return replace(config, data=replace(config.data, normalize=measured))


def prepare(config: Config, labelled: Labelled, backbone: Backbone, accelerator: Accelerator) -> Lockstep:
    """What learns, and the order in which it sees the photos.

    Raises:
        InputError: timm has no such optimizer or schedule, or a batch is too small.
    """
    fold_of_row, targets = labelled.fold_of_row, labelled.targets
    groups = pd.factorize(labelled.table["group"])[0] if config.train.one_copy_per_epoch else None
    batches = FoldBalancedBatches(fold_of_row, config.train.batch_size, config.train.seed, accelerator, groups)
    weights = None
    if config.train.class_weights == "balanced":
        weights = balanced_class_weights(targets[learned_from(fold_of_row)], len(labelled.classes))
    return Lockstep(accelerator, config.train, backbone, batches, weights)


def shown_photos(source: FeatureSource, labelled: Labelled, augment: Augmentation) -> tuple[FeatureBatches, Dataset]:
    """What the tails are validated on, and what they learn from.

    Args:
        source: Of the labelled photos; what it keeps is computed where it is not kept yet.
        augment: The experiment's augmentation.

    Returns:
        Clean features; and kept features of augmented views, or without `train.cached_views` the photos themselves.
    """
    train = source.config.train
    photos = TrainingPhotos(labelled.pixels, labelled.targets, augment, train.seed)
    clean = source.clean(labelled.rows_by_fold)
    return clean, source.augmented(photos, train.cached_views) if train.cached_views else photos
