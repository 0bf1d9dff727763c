"""Setup of a run: completed options, model, tails and photos."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader

from trunkfold.config.schema import AnyConfig, Config, ModelConfig, TrainConfig
from trunkfold.images.augmentation import Augmentation
from trunkfold.images.batches import FoldBalancedBatches, TrainingPhotos
from trunkfold.images.views import check_views, measure_normalization
from trunkfold.metrics import Parameters
from trunkfold.model.backbone import Backbone, build_backbone, count_parameters
from trunkfold.model.families import family_of
from trunkfold.model.features import FeatureSource
from trunkfold.model.layers import merge
from trunkfold.model.pretrained import native_image_size
from trunkfold.split.dataset import Labelled
from trunkfold.split.folds import learned_from
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.loop import Validation
from trunkfold.training.optimizers import balanced_class_weights
from trunkfold.training.trackers import check_trackers

VISITS_PER_VIEW = 4  # epochs per cached view on a CPU, where the trunk takes a third of a step
MOST_VIEWS = 8  # each takes 0.5 GB for 7,200 photos with ConvNeXt-Tiny, and is computed before the first epoch


@dataclass(frozen=True)
class Experiment:
    """Everything needed for training, on the accelerator's device; `config` is complete."""

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

    @property
    def photos(self) -> int:
        """Number of photos trained on, over all epochs."""
        return self.config.train.epochs * len(self.lockstep.batches) * self.config.train.batch_size


def prepare_experiment(
    config: Config, labelled: Labelled, accelerator: Accelerator, model: nn.Module | None = None
) -> Experiment:
    """Build the model (see `build_backbone`), its tails, their batches and their optimizer.

    The result depends on the complete configuration alone, not on earlier random numbers.

    Raises:
        InputError: See `build_backbone`; or timm has no such optimizer or schedule, or the batch size is too small.
    """
    set_seed(config.train.seed)  # also gives all processes the same initial weights
    config = settle_normalization(config, labelled)
    backbone = build_backbone(config.model, len(labelled.classes), normalize=config.data.normalize, model=model)
    fold_of_row, targets = labelled.fold_of_row, labelled.targets
    groups = pd.factorize(labelled.table["group"])[0] if config.train.one_copy_per_epoch else None
    batches = FoldBalancedBatches(fold_of_row, config.train.batch_size, config.train.seed, accelerator, groups)
    weights = None
    if config.train.class_weights == "balanced":
        weights = balanced_class_weights(targets[learned_from(fold_of_row)], len(labelled.classes))
    lockstep = Lockstep(accelerator, config.train, backbone, batches, weights)
    source = FeatureSource(accelerator, lockstep.trunk, labelled.pixels, config, lockstep.tails[0])
    augment = Augmentation(config.augment, config.data.image_size)
    return Experiment(config, labelled, augment, backbone, lockstep, source)


def merged_tails(lockstep: Lockstep) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return merged copies of the tails with the weights to keep, and with raw weights if averaging is enabled."""
    with lockstep.weights() as tails:
        kept = [merge(tail) for tail in tails]
    if lockstep.ema is None or lockstep.best is not None:
        return kept, []
    with lockstep.weights(raw=True) as tails:
        return kept, [merge(tail) for tail in tails]


def complete(config: AnyConfig) -> AnyConfig:
    """Fill in options that depend on others, and check names of models, views, trackers and transforms.

    Raises:
        InputError: There is no such model, view, tracker or transform.
    """
    check_views(config.predict.views)
    check_trackers(config.run.trackers)
    native = native_image_size(config.model.name)
    image_size = config.data.image_size or native
    Augmentation(config.augment, image_size)
    train = replace(config.train, tail_lr=config.train.tail_lr or default_tail_lr(config.model))
    return replace(config, data=replace(config.data, image_size=image_size), train=train)


def default_tail_lr(model: ModelConfig) -> float:
    """Return a learning rate for a model: of its family, lower for higher ranks and where base weights are tuned too.

    The update of a layer grows with the square root of the rank (Kalajdzievski, rsLoRA, 2023): what learns at rank 4
    diverges at 64 with the same rate. LoRA learns best at ten times the rate of full fine-tuning (Schulman et al., LoRA
    Without Regret, 2025).
    """
    rate = family_of(model.name).tail_lr * (ModelConfig.rank / model.rank) ** 0.5
    return rate / 10 if model.tune == "all" else rate


def settle_normalization(config: AnyConfig, labelled: Labelled) -> AnyConfig:
    """Replace the normalization "dataset" by the statistics of the training photos."""
    if config.data.normalize != "dataset":
        return config
    rows = np.flatnonzero(learned_from(labelled.fold_of_row))
    measured = measure_normalization(labelled.pixels, rows, config.data.image_size)
    return replace(config, data=replace(config.data, normalize=measured))


def shown_photos(experiment: Experiment) -> tuple[DataLoader, Validation]:
    """Return the data for `trunkfold.training.loop.train`; missing features are computed and cached.

    Returns:
        Batches of cached features of augmented views or, if none are cached, of augmented photos; and clean features.
    """
    labelled, source, train = experiment.labelled, experiment.source, experiment.config.train
    photos = TrainingPhotos(labelled.pixels, labelled.targets, experiment.augment, train.seed)
    validation = Validation(source.clean(labelled.rows_by_fold), labelled.fold_of_row, labelled.targets)
    views = cached_views(train, source.accelerator.device)
    seen = source.augmented(photos, views) if views else photos
    return source.loader(seen, experiment.lockstep.batches), validation


def cached_views(config: TrainConfig, device: torch.device) -> int:
    """Return the number of augmented views whose features are cached, as configured or chosen for the device."""
    if config.cached_views is not None:
        return config.cached_views
    views = min(config.epochs // VISITS_PER_VIEW, MOST_VIEWS) if device.type == "cpu" else 0
    return views if views > 1 else 0  # with a single view there would be no augmentation
