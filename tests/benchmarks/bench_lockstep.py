"""How much faster K folds learn and predict behind one trunk than as K separate models. Both sides in one run.

    python tests/benchmarks/bench_lockstep.py                # ConvNeXt-Tiny, 224 pixels, five folds
    python tests/benchmarks/bench_lockstep.py --pairs 20 --precision bf16 --batch 320

Prints a table and, with --json FILE, writes it. Random weights and photos: arithmetic does not ask what they show.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from torch import nn
from tqdm import tqdm

from trunkfold.backbone import Backbone, Tail, build_backbone, merge
from trunkfold.config import Config, ModelConfig, TrainConfig
from trunkfold.loaders import FoldBalancedBatches
from trunkfold.lockstep import Lockstep, without_fold
from trunkfold.optim import make_optimizer
from trunkfold.training import trained_parameters

CLASSES = 6


class Separate:
    """K models of one fold each, as an ordinary training loop has them: each its own pass through all layers."""

    def __init__(self, accelerator: Accelerator, train: TrainConfig, backbone: Backbone, folds: int, peft_norm: bool):
        self.accelerator, self.train = accelerator, train
        self.trunk = backbone.trunk.to(accelerator.device)
        self.tails = [backbone.make_tail(fold).to(accelerator.device) for fold in range(folds)]
        if peft_norm:
            for tail in self.tails:
                use_peft_norm(tail)
        self.optimizers = [make_optimizer([tail], train) for tail in self.tails]

    def step(self, photos: torch.Tensor, targets: torch.Tensor) -> None:
        rows = len(photos) // len(self.tails)
        for fold, (tail, optimizer) in enumerate(zip(self.tails, self.optimizers, strict=True)):
            own_photos, own_targets = without_fold(photos, fold, rows), without_fold(targets, fold, rows)
            with self.accelerator.autocast():
                logits = tail.train()(self.trunk(own_photos))
            loss = nn.functional.cross_entropy(logits.float(), own_targets, label_smoothing=self.train.label_smoothing)
            loss.backward()
            nn.utils.clip_grad_norm_([p for _, p in trained_parameters(tail)], self.train.clip_grad)
            optimizer.step()
            optimizer.zero_grad()


def use_peft_norm(tail: Tail) -> None:
    """Undo `use_exact_norm`: peft's own forward pass."""
    for layer in tail.modules():
        if isinstance(layer, LoraLayer):
            layer.lora_variant = dict.fromkeys(layer.lora_variant, DoraLinearVariant())


def compare(ours: Callable, theirs: Callable, pairs: int, device: torch.device, what: str) -> dict[str, float]:
    """Run both in turn, after a round of warm-up, and give the median seconds and the ratios' median and range."""
    times = []
    for pair in tqdm(range(pairs + 1), what, leave=False):
        seconds = [_seconds(ours, device), _seconds(theirs, device)]
        if pair >= 1:
            times.append(seconds)
    ratios = sorted(slow / fast for fast, slow in times)
    return {
        "ours_s": statistics.median(fast for fast, _ in times),
        "theirs_s": statistics.median(slow for _, slow in times),
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
    }


def _seconds(call: Callable, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="convnext_tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--precision", default="no", choices=["no", "fp16", "bf16"])
    parser.add_argument("--json")
    options = parser.parse_args()

    accelerator = Accelerator(mixed_precision=options.precision)
    device = accelerator.device
    model, train = ModelConfig(name=options.model, pretrained=False), Config().train
    torch.manual_seed(0)
    photos = torch.randint(0, 256, (options.batch, 3, options.size, options.size), dtype=torch.uint8, device=device)
    targets = torch.randint(0, CLASSES, (options.batch,), device=device)
    batches = FoldBalancedBatches(np.arange(options.batch) % options.folds, options.batch, 0, accelerator)

    block = build_backbone(model, CLASSES, load_weights=False)
    lockstep = Lockstep(accelerator, train, block, batches)
    same = Separate(accelerator, train, block, options.folds, peft_norm=False)
    everything = build_backbone(replace(model, tune="all"), CLASSES, load_weights=False)
    seed_way = Separate(accelerator, train, everything, options.folds, peft_norm=True)
    merged = [merge(tail) for tail in lockstep.tails]

    @torch.no_grad()
    def ensemble() -> torch.Tensor:
        with accelerator.autocast():
            features = block.trunk(photos)
            return sum(tail(features).softmax(1) for tail in merged)

    @torch.no_grad()
    def separate_models() -> torch.Tensor:
        with accelerator.autocast():
            return sum(tail(block.trunk(photos)).softmax(1) for tail in merged)

    comparisons = {
        "training step": (lambda: lockstep.step(photos, targets), lambda: same.step(photos, targets)),
        "training step, against peft's DoRA, all weights tuned": (
            lambda: lockstep.step(photos, targets),
            lambda: seed_way.step(photos, targets),
        ),
        "ensemble's forward pass, merged": (ensemble, separate_models),
    }
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    name += f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    print(
        f"{options.model}, {options.size} px, {options.folds} folds, batch {options.batch}, {options.precision}; {name}"
    )
    results = {what: compare(ours, theirs, options.pairs, device, what) for what, (ours, theirs) in comparisons.items()}
    print(f"{'':56}{'one trunk':>11}{'separate':>11}{'ratio':>8}   lowest to highest")
    for what, row in results.items():
        print(
            f"{what:56}{row['ours_s']:>9.3f} s{row['theirs_s']:>9.3f} s{row['ratio']:>8.2f}   "
            f"{row['lowest']:.2f} to {row['highest']:.2f}"
        )
    photos_a_second = options.batch / results["training step"]["ours_s"]
    print(
        f"lockstep: {photos_a_second:.0f} photos a second in training (each seen by {options.folds - 1} folds)", end=""
    )
    if device.type == "cuda":
        print(f", peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", end="")
    print()
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"device": name, **vars(options), "results": results}, file, indent=2)


if __name__ == "__main__":
    main()
