"""Peers of `bench_epoch.py`: training of one fold, implemented as in the examples of each library.

All read the same JPEG files and train on the same photos for as many epochs, with augmentation of the same strength as
far as the library supports it. The same layers are frozen: gradients stop before the tuned blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import timm
import torch
from accelerate import Accelerator
from machine import DTYPES
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from timm.data import ImageDataset, create_loader, resolve_model_data_config
from timm.data.readers.reader import Reader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, NativeScaler, accuracy, freeze
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from trunkfold.model.families import Family, family_of

CROP = (0.5, 1.0)
JITTER, JITTER_SHARE = (0.2, 0.2, 0.2, 0.03), 0.8  # brightness, contrast, saturation, hue
RANK, SCALE = 4, 8
TAIL_RATE, HEAD_RATE, DECAY = 2e-4, 2e-3, 0.02
RUN = 30  # epochs that the schedules are made for


@dataclass(frozen=True)
class Task:
    """What is the same for all.

    Attributes:
        paths: JPEG file of each row.
        targets: Class number of each row.
        classes: Their number.
        model: A ConvNeXt or EfficientNet of timm, with random weights.
        size: Side in pixels of what it sees.
        batch: Photos a step of one fold.
        workers: Loader processes, where the tool's example has any.
        precision: no, fp16 or bf16, where the tool's example has the choice.
    """

    paths: Sequence[str]
    targets: np.ndarray
    classes: int
    model: str
    size: int
    batch: int
    workers: int
    device: torch.device
    precision: str

    def create_model(self) -> nn.Module:
        """The model of one fold."""
        return timm.create_model(self.model, num_classes=self.classes)


class SeedWay:
    """A university project's loop: everything in one process, in float32, and two passes over the training photos.

    Each pass decodes every photo anew, reduces it to the model's size and augments the floats. DoRA is peft's, and the
    base weights of the last stage learn with it. After an epoch the accuracy on the training photos is taken in a pass
    of its own, then that on the validation photos.
    """

    def __init__(self, task: Task, learn: np.ndarray, check: np.ndarray) -> None:
        """Prepare a fold that learns from the rows `learn` and is validated on the rows `check`."""
        self.device = task.device
        model = task.create_model()
        tuned, head = tuned_layers(model), tuple(f"{name}." for name in head_of(model))
        augment, plain = seed_transforms(task.size, resolve_model_data_config(model))
        augmented = Photos(task, learn, augment)
        self.train_loader = DataLoader(augmented, task.batch, shuffle=True)
        self.plain_loaders = [DataLoader(Photos(task, rows, plain), task.batch) for rows in (learn, check)]
        self.model = add_dora(model).to(self.device)
        groups = {TAIL_RATE: [], HEAD_RATE: []}
        for name, parameter in model.named_parameters():
            if name.startswith(tuned):
                parameter.requires_grad_(True)
                groups[HEAD_RATE if name.startswith(head) else TAIL_RATE].append(parameter)
        self.optimizer = torch.optim.Adam([{"params": own, "lr": rate} for rate, own in groups.items()])

    def epoch(self) -> float:
        """Learn, and take both accuracies; gives that on the validation photos."""
        self.model.train()
        for photos, targets in self.train_loader:
            photos, targets = photos.to(self.device), targets.to(self.device)
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(photos), targets).backward()
            self.optimizer.step()
        return [self._accuracy(loader) for loader in self.plain_loaders][-1]

    @torch.no_grad()
    def _accuracy(self, loader: DataLoader) -> float:
        self.model.eval()
        right = 0
        for photos, targets in loader:
            predictions = self.model(photos.to(self.device)).argmax(1)
            right += (predictions == targets.to(self.device)).sum().item()
        return right / len(loader.dataset)


def seed_transforms(size: int, config: dict) -> tuple[transforms.Compose, transforms.Compose]:
    """What the seed's way does to a decoded photo: when it learns, and when it takes accuracies."""
    reduce = [transforms.Resize((size, size)), transforms.ToTensor()]
    augment = [
        transforms.RandomResizedCrop(size, CROP),
        transforms.RandomHorizontalFlip(),
        transforms.RandomApply([transforms.RandomAffine(10, shear=5)], 0.3),
        transforms.RandomApply([transforms.ColorJitter(*JITTER)], JITTER_SHARE),
        transforms.RandomApply([transforms.Lambda(add_noise)], 0.2),
    ]
    normalise = transforms.Normalize(config["mean"], config["std"])
    return transforms.Compose([*reduce, *augment, normalise]), transforms.Compose([*reduce, normalise])


class TimmWay:
    """timm's train.py: its dataset, loader, transforms, prefetching, freezing, optimizer, schedule and precision.

    No DoRA: the blocks of the last stage, the norm and the head are tuned. Unlike train.py, it never waits for the GPU
    during an epoch, and the last batch is not left out.
    """

    def __init__(self, task: Task, learn: np.ndarray, check: np.ndarray) -> None:
        """Prepare a fold that learns from the rows `learn` and is validated on the rows `check`."""
        self.device, self.dtype = task.device, DTYPES[task.precision]
        model = task.create_model()
        config = resolve_model_data_config(model)
        config["input_size"] = (3, task.size, task.size)
        freeze(model, frozen_layers(model))
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.optimizer = create_optimizer_v2(self.model, "adamw", TAIL_RATE, DECAY)
        common = {
            "input_size": config["input_size"],
            "batch_size": task.batch,
            "mean": config["mean"],
            "std": config["std"],
            "num_workers": task.workers,
            "pin_memory": self.device.type == "cuda",
            "device": self.device,
        }
        self.train_loader = create_loader(
            ImageDataset("", FileReader(task, learn)),
            is_training=True,
            scale=CROP,
            color_jitter=JITTER,
            color_jitter_prob=JITTER_SHARE,
            interpolation="bilinear",  # as ours; train.py's own "random" is slower
            **common,
        )
        self.train_loader.batch_sampler.drop_last = False  # all ways learn from the same photos
        self.validation_loader = create_loader(
            ImageDataset("", FileReader(task, check)),
            interpolation=config["interpolation"],
            crop_pct=config["crop_pct"],
            **common,
        )
        self.scheduler, _ = create_scheduler_v2(
            self.optimizer, num_epochs=RUN, updates_per_epoch=len(self.train_loader)
        )
        self.scaler = NativeScaler() if self.dtype == torch.float16 else None
        self.epochs = 0

    def epoch(self) -> float:
        """`train_one_epoch`, then `validate`; gives the validation's accuracy."""
        self.model.train()
        updates = self.epochs * len(self.train_loader)
        for photos, targets in self.train_loader:
            photos = photos.contiguous(memory_format=torch.channels_last)
            with self._autocast():
                loss = F.cross_entropy(self.model(photos), targets)
            self.optimizer.zero_grad()
            if self.scaler is not None:
                self.scaler(loss, self.optimizer)
            else:
                loss.backward()
                self.optimizer.step()
            updates += 1
            self.scheduler.step_update(updates)
        self.epochs += 1
        score = self._validate()
        self.scheduler.step(self.epochs, score)
        return score

    @torch.no_grad()
    def _validate(self) -> float:
        self.model.eval()
        losses, top1 = AverageMeter(), AverageMeter()
        for photos, targets in self.validation_loader:
            photos = photos.contiguous(memory_format=torch.channels_last)
            with self._autocast():
                logits = self.model(photos)
            losses.update(F.cross_entropy(logits, targets), len(photos))
            top1.update(accuracy(logits, targets)[0], len(photos))
        return float(top1.avg) / 100

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


class AccelerateWay:
    """Accelerate's cv_example.py with a peft model: DoRA on the last stage, and norm and head as modules to save."""

    def __init__(self, task: Task, learn: np.ndarray, check: np.ndarray) -> None:
        """Prepare a fold that learns from the rows `learn` and is validated on the rows `check`."""
        self.accelerator = Accelerator(mixed_precision=task.precision)
        train_transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(task.size, CROP),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([transforms.ColorJitter(*JITTER)], JITTER_SHARE),
                transforms.ToTensor(),
            ]
        )
        plain = transforms.Compose([transforms.Resize((task.size, task.size)), transforms.ToTensor()])
        loading = {"batch_size": task.batch, "num_workers": task.workers}
        train_loader = DataLoader(Photos(task, learn, train_transform), shuffle=True, **loading)
        validation_loader = DataLoader(Photos(task, check, plain), **loading)
        model = task.create_model()
        config = resolve_model_data_config(model)
        self.mean, self.std = (
            torch.tensor(config[key], device=self.accelerator.device).view(1, -1, 1, 1) for key in ("mean", "std")
        )
        model = add_dora(model, modules_to_save=head_of(model))
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], TAIL_RATE, weight_decay=DECAY)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, TAIL_RATE, epochs=RUN, steps_per_epoch=len(train_loader)
        )
        prepared = self.accelerator.prepare(model, optimizer, train_loader, validation_loader, scheduler)
        self.model, self.optimizer, self.train_loader, self.validation_loader, self.scheduler = prepared

    def epoch(self) -> float:
        """Learn, then validate; gives the accuracy."""
        self.model.train()
        for photos, targets in self.train_loader:
            loss = F.cross_entropy(self.model((photos - self.mean) / self.std), targets)
            self.accelerator.backward(loss)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
        self.model.eval()
        right, seen = 0, 0
        for photos, targets in self.validation_loader:
            with torch.no_grad():
                predictions = self.model((photos - self.mean) / self.std).argmax(1)
            predictions, targets = self.accelerator.gather_for_metrics((predictions, targets))
            right += (predictions == targets).sum()
            seen += len(targets)
        return float(right) / seen


PEERS: dict[str, type[SeedWay | TimmWay | AccelerateWay]] = {
    "(a) the seed's way": SeedWay,
    "(b) timm's loader and loop": TimmWay,
    "(c) Accelerate's example, peft's DoRA": AccelerateWay,
}


class Photos(Dataset):
    """Decodes a file each time it is asked for: a tensor, and the class number."""

    def __init__(self, task: Task, rows: np.ndarray, transform: Callable[[Image.Image], Tensor]) -> None:
        self.task, self.rows, self.transform = task, rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        row = self.rows[place]
        return self.transform(Image.open(self.task.paths[row]).convert("RGB")), int(self.task.targets[row])


class FileReader(Reader):
    """Open files for timm's `ImageDataset`, in the order of rows."""

    def __init__(self, task: Task, rows: np.ndarray) -> None:
        super().__init__()
        self.task, self.rows = task, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[BinaryIO, int]:
        row = self.rows[place]
        return open(self.task.paths[row], "rb"), int(self.task.targets[row])

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return self.task.paths[self.rows[index]]


def add_noise(photo: Tensor) -> Tensor:
    """Gaussian noise of a random strength."""
    return photo + torch.empty(1).uniform_(0.02, 0.08) * torch.randn_like(photo)


def add_dora(model: nn.Module, **options: object) -> PeftModel:
    """peft's DoRA on the fully connected layers and 1 x 1 convolutions of the tuned layers, without the head."""
    tuned = tuple(prefix for prefix in tuned_layers(model) if prefix.rstrip(".") not in head_of(model))
    target = [
        name
        for name, layer in model.named_modules()
        if name.startswith(tuned) and (isinstance(layer, nn.Linear) or getattr(layer, "kernel_size", None) == (1, 1))
    ]
    return get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=RANK * SCALE, target_modules=target, use_dora=True, **options)
    )


def head_of(model: nn.Module) -> list[str]:
    """Names of the layers of the head that have parameters."""
    names = _family(model).head
    return [name for name in names if hasattr(model, name) and any(True for _ in getattr(model, name).parameters())]


def tuned_layers(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the names of tuned parameters: of the last stage's blocks, the layers behind them, and the head."""
    family = _family(model)
    blocks = (
        f"{unit}.blocks" if hasattr(model.get_submodule(unit), "blocks") else unit
        for unit in family.find_stages(model)[-1]
    )
    return tuple(f"{name}." for name in (*blocks, *family.neck, *family.head))


def frozen_layers(model: nn.Module) -> list[str]:
    """Names of all layers with parameters that are not tuned."""
    tuned = tuned_layers(model)
    names = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    return sorted(name for name in names if not f"{name}.".startswith(tuned))


def _family(model: nn.Module) -> Family:
    return family_of(model.default_cfg["architecture"])
