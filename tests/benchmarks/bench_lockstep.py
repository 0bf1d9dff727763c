"""Compare training and prediction of K folds on one trunk with K separate models.

    python tests/benchmarks/bench_lockstep.py                # ConvNeXt-Tiny, 224 pixels, five folds
    python tests/benchmarks/bench_lockstep.py --pairs 20 --precision bf16 --batch 320

Prints a table; --json FILE writes it. Weights and photos are random, as they do not affect speed.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from machine import Table, device_name, seconds_of, spread
from peft.tuners.lora.layer import Linear
from torch import nn
from tqdm import tqdm

from trunkfold.config.schema import ModelConfig, TrainConfig
from trunkfold.files import write_json
from trunkfold.images.batches import FoldBalancedBatches
from trunkfold.model.backbone import Backbone, build_backbone
from trunkfold.model.layers import ExactLinear, merge
from trunkfold.model.linear import FastLinear
from trunkfold.training.accelerator import start_process
from trunkfold.training.gradients import learned_shares
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.loop import trained_parameters
from trunkfold.training.optimizers import make_optimizer

CLASSES = 6


class Separate:
    """K separate models as in an ordinary training loop, each with its own pass through all layers."""

    def __init__(self, accelerator: Accelerator, train: TrainConfig, backbone: Backbone, folds: int, plain: bool):
        self.accelerator, self.train = accelerator, train
        self.trunk = backbone.trunk.to(accelerator.device)
        self.tails = [backbone.make_tail(fold).to(accelerator.device) for fold in range(folds)]
        if plain:
            for module in (self.trunk, *self.tails):
                use_plain_layers(module)
        self.optimizers = [make_optimizer([tail], train) for tail in self.tails]

    def step(self, photos: torch.Tensor, targets: torch.Tensor) -> None:
        shares = (learned_shares(batch, len(self.tails)) for batch in (photos, targets))
        for tail, optimizer, own_photos, own_targets in zip(self.tails, self.optimizers, *shares, strict=True):
            with self.accelerator.autocast():
                logits = tail.train()(self.trunk(own_photos))
            loss = nn.functional.cross_entropy(logits.float(), own_targets, label_smoothing=self.train.label_smoothing)
            loss.backward()
            nn.utils.clip_grad_norm_([p for _, p in trained_parameters(tail)], self.train.clip_grad)
            optimizer.step()
            optimizer.zero_grad()


def use_plain_layers(model: nn.Module) -> None:
    """Undo `use_exact_dora` and `use_fast_linear`, to use the forward passes of peft and PyTorch."""
    for layer in model.modules():
        if type(layer) is ExactLinear:
            layer.__class__ = Linear
        elif type(layer) is FastLinear:
            layer.__class__ = nn.Linear


def compare(ours: Callable, theirs: Callable, pairs: int, device: torch.device, what: str) -> dict[str, dict]:
    """Run both alternately after a warm-up; return seconds and ratio as median, lowest and highest."""
    times = [[seconds_of(call, device) for call in (ours, theirs)] for _ in tqdm(range(pairs + 1), what, leave=False)]
    fast, slow = zip(*times[1:], strict=True)
    ratios = [theirs / ours for ours, theirs in zip(fast, slow, strict=True)]
    return {"ours_s": spread(fast), "theirs_s": spread(slow), "ratio": spread(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="convnext_tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--precision", default="no", choices=["no", "fp16", "bf16"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    model = ModelConfig(name=options.model, pretrained=False)
    train = TrainConfig(batch_size=options.batch, tail_lr=1e-3, mixed_precision=options.precision)
    accelerator = start_process(train)
    device = accelerator.device
    torch.manual_seed(0)
    shape = options.batch, options.size, options.size, 3  # in the loader's memory format
    photos = torch.randint(0, 256, shape, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    targets = torch.randint(0, CLASSES, (options.batch,), device=device)
    batches = FoldBalancedBatches(np.arange(options.batch) % options.folds, options.batch, 0, accelerator)

    block = build_backbone(model, CLASSES, load_weights=False)
    lockstep = Lockstep(accelerator, train, block, batches)
    same = Separate(accelerator, train, block, options.folds, plain=False)
    everything = build_backbone(replace(model, tune="all"), CLASSES, load_weights=False)
    seed_way = Separate(accelerator, train, everything, options.folds, plain=True)
    merged = [merge(tail) for tail in lockstep.tails]

    @torch.no_grad()
    def ensemble() -> torch.Tensor:
        with accelerator.autocast():
            features = lockstep.trunk(photos)
            return sum(tail(features).softmax(1) for tail in merged)

    @torch.no_grad()
    def separate_models() -> torch.Tensor:
        with accelerator.autocast():
            return sum(tail(block.trunk(photos)).softmax(1) for tail in merged)

    comparisons = {
        "training step": (lambda: lockstep.step(photos, targets), lambda: same.step(photos, targets)),
        "the same, peft's DoRA and plain layers, all weights tuned": (
            lambda: lockstep.step(photos, targets),
            lambda: seed_way.step(photos, targets),
        ),
        "ensemble's forward pass, merged": (ensemble, separate_models),
    }
    results = {what: compare(ours, theirs, options.pairs, device, what) for what, (ours, theirs) in comparisons.items()}
    report(options, device, results)


def report(options: argparse.Namespace, device: torch.device, results: dict[str, dict]) -> None:
    """Print the table, and write it."""
    rows = [
        [
            what,
            *(f"{row[side]['median']:.3f} s" for side in ("ours_s", "theirs_s")),
            f"{row['ratio']['median']:.2f}",
            f"{row['ratio']['lowest']:.2f} to {row['ratio']['highest']:.2f}",
        ]
        for what, row in results.items()
    ]
    print(f"{options.model}, {options.size} px, {options.folds} folds, batch {options.batch}, {options.precision}")
    print(device_name(device))
    print(Table(["", "one trunk", "separate", "ratio", "lowest to highest"], rows))
    photos_a_second = options.batch / results["training step"]["ours_s"]["median"]
    print(f"lockstep: {photos_a_second:.0f} photos per second in training, each used by {options.folds - 1} folds")
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    if options.json:
        settings = {name: str(value) for name, value in vars(options).items()}
        write_json({"device": device_name(device), "options": settings, "results": results}, options.json)


if __name__ == "__main__":
    main()
