"""Measure a training step on an idle machine, and while other programs occupy cores.

    python tests/benchmarks/bench_busy_machine.py
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_busy_machine.py --busy 2

Compares the kit's threads with PyTorch's threads within operations, which wait for each other in busy loops, for a tiny
model and for ConvNeXt-Tiny. All settings alternate.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from machine import Table

from trunkfold.config.schema import ModelConfig, TrainConfig
from trunkfold.cores import thread_count
from trunkfold.images.batches import FoldBalancedBatches
from trunkfold.model.backbone import build_backbone
from trunkfold.training.accelerator import start_process
from trunkfold.training.lockstep import BY_THREADS, Lockstep

CLASSES = 6
TINY = ModelConfig(name="test_convnext", pretrained=False, tune="all", tune_stages=4, scale=1.0)
# Name: model, pixels, photos per step, folds, steps per round.
STEPS = {
    "test_convnext, all tuned, 24 photos": (TINY, 48, 24, 3, 8),
    "convnext_tiny, 20 photos": (ModelConfig(pretrained=False), 224, 20, 5, 1),
}


def main() -> None:
    """Measure on an idle machine, then with busy processes, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=1, help="number of other busy processes")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for name, (model, side, photos, folds, steps) in STEPS.items():
        ways = ways_of_learning(model, side, photos, folds)
        idle = take_turns(ways, options.rounds, steps)
        with busy_processes(options.busy) if options.busy else nullcontext():
            busy = take_turns(ways, options.rounds, steps)
        for way in ways:
            rows.append([name, way, f"{idle[way]:.3f}", f"{busy[way]:.3f}", f"{busy[way] / idle[way]:.2f}"])
    print(Table(["step", "threads", "idle, s", f"with {options.busy} busy, s", "ratio"], rows))


def ways_of_learning(model: ModelConfig, side: int, photos: int, folds: int) -> dict[str, Callable[[], object]]:
    """Return functions that run a lockstep step with the kit's threads and with PyTorch's."""
    train = TrainConfig(batch_size=photos, epochs=2, tail_lr=1e-3)
    accelerator = start_process(train)
    backbone = build_backbone(model, CLASSES, load_weights=False)
    batches = FoldBalancedBatches(np.arange(folds * photos) % folds, photos, 0, accelerator)
    lockstep = Lockstep(accelerator, train, backbone, batches)
    batch = torch.randint(0, 256, (photos, 3, side, side), dtype=torch.uint8), torch.randint(0, CLASSES, (photos,))

    def step(pieces: int, threads: int) -> None:
        torch.set_num_threads(threads)
        lockstep.pieces = pieces
        lockstep.step(*batch)

    cores = thread_count()
    return {
        f"{cores} threads of the kit": lambda: step(BY_THREADS, 1),
        f"{cores} threads of operations": lambda: step(1, cores),
        "1 thread": lambda: step(1, 1),
    }


def take_turns(ways: dict[str, Callable[[], object]], rounds: int, steps: int) -> dict[str, float]:
    """Return the median seconds per step of each setting; the first round is a warm-up."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, step in ways.items():
            started = time.perf_counter()
            for _ in range(steps):
                step()
            seconds[way].append((time.perf_counter() - started) / steps)
    return {way: float(np.median(own[1:])) for way, own in seconds.items()}


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Start processes that keep cores busy, and end them after the block."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
