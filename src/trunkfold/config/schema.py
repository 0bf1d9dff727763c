"""All options: typed, frozen dataclasses with one attribute per option."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from annotated_types import Len, MinLen

from trunkfold.config.types import Arguments, Count, Decay, Label, Natural, NonNegative, Number, Positive, Seed, Share

VEHICLE_DAMAGE = {1: "crack", 2: "scratch", 3: "tire flat", 4: "dent", 5: "glass shatter", 6: "lamp broken"}
COMMON = (  # listed first in --help
    *("data.root", "data.image_size", "data.classes", "split.groups", "split.folds"),
    *("model.name", "train.epochs", "train.batch_size", "train.tail_lr", "run.name"),
)


@dataclass(frozen=True)
class Normalization:
    """Normalization of red, green and blue: (pixel / 255 - mean) / std."""

    mean: Annotated[list[Number], Len(3, 3), "[red, green, blue]"]
    std: Annotated[list[Positive], Len(3, 3), "[red, green, blue], each above 0"]


@dataclass(frozen=True)
class DataConfig:
    """The photos and their labels.

    Attributes:
        root: Folder searched for train.csv and test.csv, each with an images/ folder beside it.
        image_size: Side of the model's input in pixels; null uses the size of the model's pretraining.
        normalize: "model" uses the mean and standard deviation of the model's pretraining, "dataset" those of the
            training photos; or give {mean: [r, g, b], std: [r, g, b]}.
        classes: Name of each label in train.csv, in the order used by all tables; null uses the labels as names.
        drop: CSV file with labelled photos to exclude (column image_id).
        relabel: CSV file with labelled photos to relabel (columns image_id and suggestion). A reviewed label_issues.csv
            of a run can be used for either option.
        workers: Data-loader workers per training process, limited to one per core in total; null means one per core
            with a GPU and none on a CPU, where the model needs the cores. 0 loads photos in the training process.
    """

    root: Path = Path("input/ripik-hackfest")
    image_size: Count | None = None
    normalize: Literal["model", "dataset"] | Normalization = "model"
    classes: dict[Label, str] | None = field(default_factory=VEHICLE_DAMAGE.copy)
    drop: Path | None = None
    relabel: Path | None = None
    workers: Natural | None = None


@dataclass(frozen=True)
class SplitConfig:
    """Hold-out and folds.

    Attributes:
        groups: Photos of one group (copies of one source photo) are never separated. "copies" detects the groups; a
            path reads them from a CSV file with image_id and group (and set, train or test, if the two share ids).
            "none" splits at random, which inflates scores if there are copies; the report says by how much.
        folds: Number of folds, and of models in the ensemble; 1 trains a single model, validated on 16 % of the photos.
        holdout: Share of the photos that no fold trains on, 0 for none; "legacy" is the unstratified 13.5 % used by
            student projects on the vehicle damage data, which ignores copies.
        seed: Seed of the split only.
    """

    groups: str = "copies"
    folds: Count = 5
    holdout: Share | Literal["legacy"] = 0.135
    seed: Seed = 42


@dataclass(frozen=True)
class ModelConfig:
    """The network, and the part of it that is tuned.

    Attributes:
        name: A timm model: ConvNeXt and ConvNeXtV2, ViT (DeiT, DINOv2, SigLIP 2), DINOv3, EVA02, Swin, EfficientNet or
            ResNet.
        pretrained: Start from timm's pretrained weights (downloaded once); false starts from random weights.
        weights: Local initial weights, instead of a download: a file (safetensors or a PyTorch state dict), a folder
            with model.safetensors and config.json, or package:NAME for an installed Python package.
        tune: Parameters trained in the tuned stages. adapters: DoRA, final norm and head; block: also depthwise
            convolutions, norms and layer scale; all: also the base weights that DoRA adapts. Batch norms keep the
            statistics of pretraining.
        tune_stages: Number of stages to tune, counted from the last of four (in transformers, quarters of the blocks);
            4 also tunes the stem and leaves no shared trunk.
        rank: Rank of the DoRA update.
        scale: Scale of the DoRA update (peft's lora_alpha is rank x scale).
        drop_path: Stochastic depth rate of the last tuned block; it decreases linearly towards earlier blocks.
    """

    name: str = "convnext_tiny"
    pretrained: bool = True
    weights: str | None = None
    tune: Literal["adapters", "block", "all"] = "block"
    tune_stages: Literal[1, 2, 3, 4] = 1
    rank: Count = 4
    scale: Positive = 8.0
    drop_path: Share = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """Training of the tails.

    Attributes:
        epochs: Passes over the training photos.
        one_copy_per_epoch: Use one photo of each group per epoch, a different one each time. An epoch takes a third of
            the time if every photo exists three times.
        cached_views: Number of augmented views per photo whose features are computed once and reused cyclically; 0
            disables caching, so that photos are augmented in every epoch. null means 0 with a GPU; on a CPU, a quarter
            of the epochs (at most 8), or 0 for fewer than 8 epochs.
        batch_size: Photos per step over all processes, in equal numbers from each fold; each tail trains on those of
            the other folds.
        tail_lr: Peak learning rate of everything tuned except the head; null selects it by the family of the model:
            2e-3 for EfficientNet, 1e-3 for others, times sqrt(4 / model.rank), and a tenth of that if model.tune is
            all.
        head_lr: Peak learning rate of the new classification layer.
        tail_weight_decay: Weight decay of the tail (never applied to biases, norms and magnitudes).
        head_weight_decay: Weight decay of the head's weight matrix.
        optimizer: Any timm optimizer.
        optimizer_args: Additional arguments of the optimizer, such as {betas: [0.9, 0.99]}.
        scheduler: Any timm scheduler, stepped once per update (plateau: once per epoch): cosine, multistep ...
        scheduler_args: Additional arguments of timm's create_scheduler_v2, such as {decay_milestones: [75, 150]}.
        warmup_epochs: Epochs of linear warm-up from a learning rate of 1e-7; at most a quarter of all epochs.
        label_smoothing: Share of the target distributed uniformly over all classes.
        class_weights: balanced weights classes by their inverse frequency in the training photos.
        ema_decay: Decay of the exponential moving average of the weights (with warm-up); null uses the raw weights.
        clip_grad: Maximum gradient norm per fold; null disables clipping.
        mixed_precision: auto selects bf16 or fp16 depending on the GPU; on a CPU, bf16 if the processor has
            instructions for it, else no.
        keep: last keeps the weights of the last epoch, so that out-of-fold scores are unbiased; best selects each
            fold's best epoch by validation accuracy, which makes these scores optimistic.
        seed: Seed of initial weights, data order and augmentation; runs on a CPU are reproducible bit for bit.
        save_minutes: Minutes between checkpoints within an epoch; one is also saved after every epoch.
        max_hours: Hours after which to save a checkpoint and stop; rerun the same command to resume. null means no
            limit.
    """

    epochs: Count = 30
    one_copy_per_epoch: bool = False
    cached_views: Natural | None = None
    batch_size: Count = 40
    tail_lr: Positive | None = None
    head_lr: Positive = 2e-3
    tail_weight_decay: NonNegative = 0.02
    head_weight_decay: NonNegative = 0.02
    optimizer: str = "adamw"
    optimizer_args: Arguments = field(default_factory=dict)
    scheduler: str = "cosine"
    scheduler_args: Arguments = field(default_factory=dict)
    warmup_epochs: Natural = 1
    label_smoothing: Share = 0.1
    class_weights: Literal["none", "balanced"] = "none"
    ema_decay: Decay | None = None
    clip_grad: Positive | None = 1.0
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    keep: Literal["last", "best"] = "last"
    seed: Seed = 0
    save_minutes: NonNegative = 10.0
    max_hours: Positive | None = None


@dataclass(frozen=True)
class PredictConfig:
    """Prediction, identical for held-out, out-of-fold and test photos.

    Attributes:
        views: Views for test-time augmentation, whose probabilities are averaged; see trunkfold.images.views.VIEWS.
        consensus: Average the probabilities over the photos of each group.
        batch_size: Photos per forward pass; null means 64 on a CPU and up to 512, limited by memory, on a GPU.
    """

    views: Annotated[list[str], MinLen(1), "a list of at least one view"] = field(
        default_factory=lambda: ["plain", "hflip"]
    )
    consensus: bool = True
    batch_size: Count | None = None


@dataclass(frozen=True)
class DecodeConfig:
    """Conversion of probabilities to labels.

    Attributes:
        metric: macro_f1 selects the labels with the highest expected macro F1 over the predicted set; accuracy selects
            the most probable class of each photo.
        copy_labels: Assign an unlabelled photo the label of its labelled copy, if there is one.
    """

    metric: Literal["macro_f1", "accuracy"] = "macro_f1"
    copy_labels: bool = False


@dataclass(frozen=True)
class CacheConfig:
    """Cache shared by all runs; it can be deleted at any time.

    Attributes:
        dir: Folder for decoded photos, descriptions of photos for the copy search, and computed features.
    """

    dir: Path = Path("submissions/.cache")


@dataclass(frozen=True)
class RunConfig:
    """The run's folder.

    Attributes:
        name: Name of the folder under submissions/; null uses the name of the config file.
        restart: Replace the folder of an earlier run of this name.
        trackers: Trackers to log training to, any that Accelerate supports, such as [tensorboard] or [wandb, mlflow].
    """

    name: str | None = None
    restart: bool = False
    trackers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Config:
    """Configuration of a run.

    Attributes:
        augment: "standard", "strong", "seed", "none", or albumentations transforms, [{HorizontalFlip: {p: 0.5}}, ...].
    """

    data: DataConfig = field(default_factory=DataConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    run: RunConfig = field(default_factory=RunConfig)
    augment: str | list[dict[str, Arguments]] = "standard"


AnyConfig = TypeVar("AnyConfig", bound=Config)
