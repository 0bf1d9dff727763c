"""Estimate the time of an epoch on GPUs from operations, bytes and launches, counted without a GPU.

    python tests/benchmarks/estimate_gpu.py                # ConvNeXt-Tiny, 224 pixels, five folds, 7,200 photos
    python tests/benchmarks/estimate_gpu.py --batch 320

A step runs on a simulated GPU (`pretended_gpu.py`) whose tensors have shapes but no values. The time of an operation is
the larger of its arithmetic and memory time. Meanwhile, the CPU launches operations, and data-loader workers prepare
photos. The slowest of the three determines the epoch.
"""

import argparse
import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from bench_epoch import convolution_gradient_operations
from machine import Table
from pretended_gpu import WITHOUT_KERNEL, PretendedGpu
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, shape_wrapper

from trunkfold.config.schema import ModelConfig, TrainConfig
from trunkfold.images.batches import FoldBalancedBatches
from trunkfold.model.backbone import Backbone, build_backbone
from trunkfold.training.lockstep import Lockstep

CLASSES = 6
OPERATIONS_OF = {**flop_registry, torch.ops.aten.convolution_backward: shape_wrapper(convolution_gradient_operations)}


@dataclass(frozen=True)
class Card:
    """A machine with GPUs, with the vendor's peak rates.

    Attributes:
        count: Number of GPUs, which share each batch.
        precision: Precision selected by `train.mixed_precision auto`.
        operations: Dense operations per second and GPU in this precision; a multiply-add counts as two.
        bytes: Memory bandwidth per GPU, in bytes per second.
        cores: Number of CPU cores, each with one data-loader worker.
    """

    count: int
    precision: str
    operations: float
    bytes: float
    cores: int


CARDS = {
    "2 x T4": Card(2, "fp16", 65e12, 320e9, 4),
    "H100": Card(1, "bf16", 989e12, 3.35e12, 16),
    "H200": Card(1, "bf16", 989e12, 4.8e12, 16),
}
OF_PEAK, OF_BANDWIDTH = 0.4, 0.8  # shares that large matrix products and elementwise kernels usually reach
LAUNCH = 6e-6  # CPU seconds to launch an operation in eager mode
PHOTOS_PER_CORE = 2003  # photos per second that one core loads from the cache and augments


@dataclass(frozen=True)
class Work:
    """An operator call: floating-point operations, and bytes read and written."""

    operations: float
    bytes: float


@dataclass(frozen=True)
class Counts:
    """Operations of a training step, of its trunk alone, and of the validation of as many photos."""

    step: list[Work]
    trunk: list[Work]
    validation: list[Work]


class Meter(PretendedGpu):
    """A simulated GPU without values that records the work of each operation."""

    def __init__(self) -> None:
        super().__init__(numbers="meta")
        self.work: list[Work] = []

    def measure(self, call: Callable[[], object]) -> list[Work]:
        """Return the operations of a call."""
        self.work.clear()
        call()
        return list(self.work)

    def _compute(self, name: str, function, args: tuple, kwargs: dict, on_gpu: bool):
        found = super()._compute(name, function, args, kwargs, on_gpu)
        if on_gpu and not function.is_view and not name.startswith(WITHOUT_KERNEL):
            count = OPERATIONS_OF.get(function._overloadpacket)
            operations = count(*args, **kwargs, out_val=found) if count else 0
            written = _bytes(found) or _bytes(_changed(function, args))
            self.work.append(Work(operations, _bytes((args, kwargs)) + written))
        return found


def _bytes(tree: object) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def _changed(function, args: tuple) -> list:
    """Return the arguments that an operation without a result writes to."""
    kinds = function._schema.arguments
    return [arg for arg, kind in zip(args, kinds, strict=False) if kind.alias_info and kind.alias_info.is_write]


def count(options: argparse.Namespace, backbone: Backbone, precision: str, batch: int) -> Counts:
    """Count a step of one GPU with `batch` photos."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with Meter() as gpu:
        accelerator = Accelerator(mixed_precision=precision)
        train = TrainConfig(epochs=30, batch_size=batch, tail_lr=1e-3, mixed_precision=precision)
        batches = FoldBalancedBatches(np.arange(batch) % options.folds, batch, 0, accelerator)
        lockstep = Lockstep(accelerator, train, copy.deepcopy(backbone), batches)
        lockstep.pieces = 1  # the search for it would need values
        photos = torch.zeros(batch, options.size, options.size, 3, dtype=torch.uint8, device="cuda").permute(0, 3, 1, 2)
        targets = torch.zeros(batch, dtype=torch.long, device="cuda")
        step = lambda: lockstep.step(photos, targets)  # noqa: E731
        step()  # the first step creates the optimizer's state

        @torch.no_grad()
        def trunk() -> torch.Tensor:
            with accelerator.autocast():
                return lockstep.trunk(photos)

        @torch.no_grad()
        def validate() -> None:
            for tail, rows in zip(lockstep.tails, features.chunk(options.folds), strict=True):
                with accelerator.autocast():
                    tail(rows)

        features = trunk()
        return Counts(gpu.measure(step), gpu.measure(trunk), gpu.measure(validate))


def estimate(options: argparse.Namespace, card: Card, counts: Counts) -> dict[str, float]:
    """Return totals and seconds of an epoch."""
    steps = round(options.photos / options.batch)
    epoch = [*counts.step, *counts.validation]
    arithmetic = [one.operations / (OF_PEAK * card.operations) for one in epoch]
    traffic = [one.bytes / (OF_BANDWIDTH * card.bytes) for one in epoch]
    return {
        "operations": steps * card.count * sum(one.operations for one in epoch),
        "bytes": steps * card.count * sum(one.bytes for one in epoch),
        "launches": steps * len(epoch),
        "arithmetic": steps * sum(arithmetic),
        "memory": steps * sum(traffic),
        "GPU": steps * sum(map(max, arithmetic, traffic)),
        "launching": steps * len(epoch) * LAUNCH,
        "loading": options.photos / (PHOTOS_PER_CORE * card.cores),
    }


def main() -> None:
    """Count operations, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="convnext_tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=40, help="photos per step, over all GPUs")
    parser.add_argument("--photos", type=int, default=7200, help="photos per epoch")
    options = parser.parse_args()
    backbone = build_backbone(ModelConfig(name=options.model, pretrained=False), CLASSES, load_weights=False)
    rows = []
    for name, card in CARDS.items():
        counts = count(options, backbone, card.precision, options.batch // card.count)
        found = estimate(options, card, counts)
        bound = max(("GPU", "launching", "loading"), key=found.get)
        rows.append(
            [
                f"{name}, {card.precision}",
                f"{found['operations'] / 1e12:.0f}",
                f"{found['bytes'] / 1e9:,.0f}",
                f"{found['launches']:,.0f}",
                f"{len(counts.step):,}",
                f"{len(counts.trunk)}",
                *(f"{found[part]:.2f}" for part in ("arithmetic", "memory", "GPU", "launching", "loading")),
                f"{bound}: {found[bound]:.1f} s",
            ]
        )
    print(
        f"{options.model}, {options.size} pixels, {options.folds} folds, batch {options.batch}, {options.photos} photos"
    )
    headings = ["", "TFLOP", "GB", "launches", "operations per step", "of the trunk"]
    print(Table([*headings, "arithmetic s", "memory s", "GPU s", "launching s", "loading s", "bound"], rows))


if __name__ == "__main__":
    main()
