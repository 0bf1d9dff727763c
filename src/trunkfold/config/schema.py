"""What an experiment is: typed, frozen dataclasses, an attribute an option."""

import copy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
)

VEHICLE_DAMAGE = {1: "crack", 2: "scratch", 3: "tire flat", 4: "dent", 5: "glass shatter", 6: "lamp broken"}
SPACE = {
    "train.optimizer": {"choices": ["adam", "adamw", "sgd", "nadamw"]},
    "train.tail_lr": {"low": 1e-5, "high": 1e-2, "log": True},
    "train.head_lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "train.tail_weight_decay": {"low": 1e-5, "high": 1e-1, "log": True},
    "train.head_weight_decay": {"low": 1e-5, "high": 1e-1, "log": True},
    "train.batch_size": {"choices": [20, 40, 80]},
}


@dataclass(frozen=True)
class Normalization:
    """What pixels are normalised by: (pixel / 255 - mean) / std.

    Attributes:
        mean: Of red, green and blue.
        std: Their standard deviations.
    """

    mean: list[float]
    std: list[PositiveFloat]


@dataclass(frozen=True)
class DataConfig:
    """The photos and what is known about them.

    Attributes:
        root: Folder that is searched for train.csv and test.csv, each with an images/ folder beside it.
        image_size: Side in pixels of the square that the model sees; null takes the model's own.
        normalize: "model" takes the mean and standard deviation that the model was pretrained with, "dataset" those of
            the photos that are learned from; or {mean: [r, g, b], std: [r, g, b]}.
        classes: Name of each label of train.csv, in the order of the tables; null takes the labels as names.
        drop: CSV file with image_id: these labelled photos are left out of everything.
        relabel: CSV file with image_id and suggestion: these labelled photos take that label. A run's label_issues.csv,
            looked through, can be either.
        workers: Loader processes of each training process, all together at most one a core; null: one a core beside a
            GPU, none on a CPU, where the model needs the cores. With 0 a photo's own error is seen.
    """

    root: Path = Path("input/ripik-hackfest")
    image_size: PositiveInt | None = None
    normalize: Literal["model", "dataset"] | Normalization = "model"
    classes: dict[int | str, str] | None = field(default_factory=lambda: dict(VEHICLE_DAMAGE))
    drop: Path | None = None
    relabel: Path | None = None
    workers: NonNegativeInt | None = None


@dataclass(frozen=True)
class SplitConfig:
    """Which photos are held out, and which fold validates which.

    Attributes:
        groups: Photos of one group (copies of one source photo) are never separated. "copies" finds the groups; or a
            CSV file with image_id and group (and set, train or test, where ids of both overlap). "none" splits at
            random, which measures memory where there are copies: it finds them too, to say how much.
        folds: Number of folds, and so of models in the ensemble; 1 trains a single model, validated on 16 % of the
            photos.
        holdout: Share of the photos that no fold ever trains on, 0 for none; "legacy" is the unstratified
            13.5 % that student projects on the vehicle damage data used, copies and all.
        seed: Seed of the split alone.
    """

    groups: str = "copies"
    folds: PositiveInt = 5
    holdout: ClosedUnitInterval | Literal["legacy"] = 0.135
    seed: NonNegativeInt = 42


@dataclass(frozen=True)
class ModelConfig:
    """The network, and how much of it is tuned.

    Attributes:
        name: A timm model with stem, stages and head: any ConvNeXt or ConvNeXtV2.
        pretrained: Start from timm's pretrained weights (downloaded once); false starts from random ones.
        weights: Local weights to start from instead (safetensors, or a PyTorch state dict), for machines without a
            network.
        tune: What learns in the tuned stages. adapters: DoRA, final norm and head; block: also depthwise
            convolutions, norms and layer scale; all: also the base weights that DoRA adapts.
        tune_stages: How many of the last stages are tuned; 4 tunes the stem too and leaves no trunk to share.
        rank: Rank of DoRA's update.
        scale: Factor of DoRA's update (peft's lora_alpha is rank x scale).
        drop_path: Probability with which a tuned block is left out while learning; earlier blocks' is smaller.
    """

    name: str = "convnext_tiny"
    pretrained: bool = True
    weights: Path | None = None
    tune: Literal["adapters", "block", "all"] = "block"
    tune_stages: Literal[1, 2, 3, 4] = 1
    rank: PositiveInt = 4
    scale: PositiveFloat = 8.0
    drop_path: ClosedUnitInterval = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """How the tails learn.

    Attributes:
        epochs: Passes over the photos.
        one_copy_per_epoch: A pass visits one photo of each group, another one each time, and so costs a third where
            every photo is there three times.
        cached_views: Number of augmented views of each photo that are learned from by turns, their features computed
            once, for CPUs and many short runs; 0 augments a photo anew at every visit.
        batch_size: Photos a step over all processes, the same number of each fold; each fold learns from those of
            the others.
        tail_lr: Peak learning rate of all that is tuned but the head.
        head_lr: Peak learning rate of the new classification layer.
        tail_weight_decay: Weight decay of the tail (never of biases, norms, magnitudes).
        head_weight_decay: Weight decay of the head's matrix.
        optimizer: Any timm optimizer.
        optimizer_args: Further arguments of the optimizer, such as {betas: [0.9, 0.99]}.
        scheduler: Any timm schedule, stepped once an update: cosine, multistep, plateau ...
        scheduler_args: Further arguments of timm's create_scheduler_v2, such as {decay_milestones: [75, 150]}.
        warmup_epochs: Epochs of linear warm-up from a learning rate of 0.
        label_smoothing: Share of the target spread over all classes.
        class_weights: balanced weighs each class by the inverse of its frequency in the training photos.
        ema_decay: Decay of the exponential moving average of the weights (warmed up); null keeps the raw weights.
        clip_grad: Largest norm of a fold's gradient; null does not clip.
        mixed_precision: auto is bf16 or fp16, whichever the GPU has units for, and no on a CPU.
        keep: last keeps the weights of the last epoch, so that out-of-fold scores are not picked; best picks each
            fold's epoch by validation accuracy, which flatters them.
        seed: Seed of initial weights, order and augmentation; a CPU run repeats to the bit.
        save_minutes: Minutes between two savings of the state within an epoch; it is saved after every epoch too.
        max_hours: Hours after which to stop, with all saved, so that the same command goes on; null never stops.
    """

    epochs: PositiveInt = 30
    one_copy_per_epoch: bool = False
    cached_views: NonNegativeInt = 0
    batch_size: PositiveInt = 40
    tail_lr: PositiveFloat = 2e-4
    head_lr: PositiveFloat = 2e-3
    tail_weight_decay: NonNegativeFloat = 0.02
    head_weight_decay: NonNegativeFloat = 0.02
    optimizer: str = "adamw"
    optimizer_args: dict[str, Any] = field(default_factory=dict)
    scheduler: str = "cosine"
    scheduler_args: dict[str, Any] = field(default_factory=dict)
    warmup_epochs: NonNegativeInt = 1
    label_smoothing: ClosedUnitInterval = 0.1
    class_weights: Literal["none", "balanced"] = "none"
    ema_decay: OpenUnitInterval | None = None
    clip_grad: PositiveFloat | None = 1.0
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    keep: Literal["last", "best"] = "last"
    seed: NonNegativeInt = 0
    save_minutes: NonNegativeFloat = 10.0
    max_hours: PositiveFloat | None = None


@dataclass(frozen=True)
class PredictConfig:
    """How photos are predicted: held-out and out-of-fold ones exactly as the test photos.

    Attributes:
        views: Test-time augmentation: names of trunkfold.images.views.VIEWS, whose probabilities are averaged.
        consensus: Photos of one group share the mean of their probabilities.
        batch_size: Photos a forward pass; null: 64 on a CPU, on a GPU up to 512, as many as its memory holds.
    """

    views: list[str] = field(default_factory=lambda: ["plain", "hflip"])
    consensus: bool = True
    batch_size: PositiveInt | None = None


@dataclass(frozen=True)
class DecodeConfig:
    """How probabilities become labels.

    Attributes:
        copy_labels: An unlabelled photo with a labelled copy takes that label.
    """

    copy_labels: bool = False


@dataclass(frozen=True)
class CacheConfig:
    """What all runs share, so that it is made once; it may be deleted at any time.

    Attributes:
        dir: Folder for decoded photos and kept features.
    """

    dir: Path = Path("submissions/.cache")


@dataclass(frozen=True)
class RunConfig:
    """Where the run's folder lies.

    Attributes:
        name: Name of the folder under submissions/; null takes the config file's name.
        restart: Replace the folder of an earlier run of this name.
    """

    name: str | None = None
    restart: bool = False


@dataclass(frozen=True)
class Config:
    """An experiment.

    Attributes:
        augment: "standard", "strong", "seed", "none", or a list of albumentations' transforms, such as
            [{HorizontalFlip: {p: 0.5}}].
    """

    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    run: RunConfig = field(default_factory=RunConfig)
    augment: str | list[dict[str, dict[str, Any]]] = "standard"


@dataclass(frozen=True)
class TuneConfig:
    """How options are searched. A trial is a short training of all folds with options of its own.

    Attributes:
        trials: Finished trials that the study shall have, complete or pruned, over all its processes and starts.
        space: What is searched: for each dotted option {low, high}, with step, or log (true: evenly over the orders of
            magnitude), or {choices}.
        pruner: What ends trials early: hyperband gives more epochs to trials that are among the best so far, with
            several degrees of patience; median ends those that are worse than half of the others; none.
        storage: null keeps the study in its folder; or an Optuna URL by which several machines share it, such as
            postgresql+psycopg2://user:password@host/database.
        heartbeat: Seconds between two signs of life of a trial, where the storage has a URL; after three times as long
            without one its process counts as dead.
        retries: How often a trial is started again whose process died.
        best: Options of best.yaml that differ from those of the trials, dotted: trials are short and learn from kept
            views, because only their order matters.
    """

    trials: PositiveInt = 100
    space: dict[str, dict[str, Any]] = field(default_factory=lambda: copy.deepcopy(SPACE))
    pruner: Literal["hyperband", "median", "none"] = "hyperband"
    storage: str | None = None
    heartbeat: PositiveInt = 60
    retries: NonNegativeInt = 3
    best: dict[str, Any] = field(default_factory=lambda: {"train.epochs": 30, "train.cached_views": 0})


@dataclass(frozen=True)
class TuningConfig(Config):
    """A study: the experiment that its trials vary, and how.

    Attributes:
        augment: "standard", "strong", "seed", "none", or a list of albumentations' transforms, such as
            [{HorizontalFlip: {p: 0.5}}].
    """

    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=10, cached_views=4))
    tune: TuneConfig = field(default_factory=TuneConfig)

    def experiment(self) -> Config:
        """The experiment alone."""
        return Config(**{option.name: getattr(self, option.name) for option in fields(Config)})


AnyConfig = TypeVar("AnyConfig", bound=Config)
