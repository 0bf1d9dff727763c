"""An experiment made ready: what its options leave open, filled in, what learns, and what it learns from."""

from dataclasses import replace

import numpy as np
import pandas as pd
from accelerate import Accelerator
from torch.utils.data import Dataset

from trunkfold.config.schema import AnyConfig, Config
from trunkfold.images.augmentation import Augmentation, make_augmentation
from trunkfold.images.batches import FoldBalancedBatches, TrainingPhotos
from trunkfold.images.normalization import measure_normalization
from trunkfold.images.views import check_views
from trunkfold.model.backbone import Backbone
from trunkfold.model.features import FeatureBatches, FeatureSource
from trunkfold.model.pretrained import check_weights, native_image_size
from trunkfold.split.dataset import Labelled
from trunkfold.split.folds import learned_from
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.optimizers import balanced_class_weights


def complete(config: AnyConfig) -> AnyConfig:
    """Fill in what follows from other options, and check the names that only other modules know.

    Raises:
        InputError: There is no such model, view or transform, or the local weights do not fit the model.
    """
    check_views(config.predict.views)
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
