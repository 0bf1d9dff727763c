"""Compare a trial on cached features with a trial of the student project.

    python tests/benchmarks/bench_tuning.py                                # a few photos, scaled to a full trial
    python tests/benchmarks/bench_tuning.py --photos 2560 --epochs 10 --rounds 1   # a full trial: hours on a CPU

The trial is that of the student project: ConvNeXt-Tiny at 224 pixels, one model, 1,920 photos for training and 640 for
validation, 10 epochs. The project's loop (`peers.py`) decodes and augments every photo in every epoch, and runs the
frozen layers; trunkfold reads cached features shared by all trials, whose computation is listed separately. Both
alternate. Draws photos of 1,000 x 750 pixels (once, in --work). Seconds per epoch are scaled linearly from --photos to
2,560 photos; other parts of a trial are not scaled. Weights are random, as they do not affect speed. --json FILE writes
the results.
"""

import argparse
import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from bench_epoch import draw_labelled, quietly
from machine import Table, device_name, now, seconds_of, spread
from peers import SeedWay, Task
from tqdm import tqdm

from trunkfold.config.schema import CacheConfig, Config, DataConfig, ModelConfig, SplitConfig, TrainConfig
from trunkfold.demo.competition import COPIES
from trunkfold.files import write_json
from trunkfold.split.dataset import Labelled, load_labelled
from trunkfold.split.folds import ONLY_LEARNED
from trunkfold.training.accelerator import start_process
from trunkfold.tuning.objective import run_trial

PHOTOS, EPOCHS, PARTS = 2560, 10, 4  # the student project's trial, which validates on a quarter of the photos
OURS, THEIRS = "trunkfold, cached features", "the student project"


@dataclass(frozen=True)
class Turn:
    """Seconds per epoch, and of the other parts of a trial."""

    epoch: float
    rest: float

    def trial(self, photos: int) -> float:
        """Scale the seconds, measured with `photos` photos, to a full trial."""
        return self.rest + EPOCHS * self.epoch * PHOTOS / photos


def main() -> None:
    """Draw the photos, cache the features, measure alternately, and print."""
    options = parse_options()
    root = draw_labelled(options.work, options.photos)
    with tempfile.TemporaryDirectory(dir=options.work) as cache:
        measure(options, make_config(options, root, Path(cache)))


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="convnext_tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--views", type=int, default=4, help="cached augmented views per photo")
    parser.add_argument("--photos", type=int, default=90, help="three quarters of them are for training")
    parser.add_argument("--epochs", type=int, default=1, help="per turn; their mean is used")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="no", choices=["no", "fp16", "bf16"], help="of ours")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "trunkfold-bench-tuning")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.photos = max(options.photos // COPIES, 1) * COPIES
    return options


def make_config(options: argparse.Namespace, root: Path, cache: Path) -> Config:
    """Return the configuration of the trial."""
    return Config(
        data=DataConfig(root=root, image_size=options.size),
        split=SplitConfig(groups=str(root / "groups.csv"), folds=PARTS, holdout=0.0),
        model=ModelConfig(name=options.model, pretrained=False),
        train=TrainConfig(
            epochs=options.epochs,
            batch_size=options.batch,
            tail_lr=1e-3,
            cached_views=options.views,
            mixed_precision=options.precision,
        ),
        cache=CacheConfig(cache),
    )


def measure(options: argparse.Namespace, config: Config) -> None:
    """Compute the features once, then measure both implementations alternately."""
    accelerator = start_process(config.train)
    logging.getLogger("trunkfold").setLevel(logging.ERROR)  # hides the warning about random weights
    started = now(accelerator.device)
    with quietly():
        labelled = one_model(load_labelled(config))
        first = our_turn(config, labelled, accelerator)
    once = now(accelerator.device) - started - options.epochs * first.epoch
    task = Task(
        paths=[str(config.data.root / "train/train/images" / name) for name in labelled.table["filename"]],
        targets=labelled.targets,
        classes=len(labelled.classes),
        model=options.model,
        size=options.size,
        batch=options.batch,
        workers=0,
        device=accelerator.device,
        precision=options.precision,
    )
    turns: dict[str, list[Turn]] = {OURS: [], THEIRS: []}
    for _ in tqdm(range(options.rounds), "rounds", leave=False):
        with quietly():
            turns[OURS].append(our_turn(config, labelled, accelerator))
        turns[THEIRS].append(seed_turn(task, labelled.fold_of_row, options.epochs))
    report(options, turns, once - spread([turn.rest for turn in turns[OURS]])["median"], accelerator.device)


def one_model(labelled: Labelled) -> Labelled:
    """Assign a quarter of the photos to validation, and the others to training."""
    fold = np.where(labelled.fold_of_row == 0, 0, ONLY_LEARNED)
    return replace(labelled, table=labelled.table.assign(fold=fold))


def our_turn(config: Config, labelled: Labelled, accelerator: Accelerator) -> Turn:
    """Run a trial like src/tune.py."""
    started = now(accelerator.device)
    history = run_trial(config, labelled, accelerator, lambda epoch, macro_f1: None)
    seconds = now(accelerator.device) - started
    epoch = history["seconds"].mean()
    return Turn(epoch, seconds - config.train.epochs * epoch)


def seed_turn(task: Task, fold_of_row: np.ndarray, epochs: int) -> Turn:
    """Run the same trial with the student project's loop."""
    started = now(task.device)
    loop = SeedWay(task, np.flatnonzero(fold_of_row != 0), np.flatnonzero(fold_of_row == 0))
    rest = now(task.device) - started
    return Turn(float(np.mean([seconds_of(loop.epoch, task.device) for _ in range(epochs)])), rest)


def report(options: argparse.Namespace, turns: dict[str, list[Turn]], once: float, device: torch.device) -> None:
    """Print the table, and write it."""
    trials = {name: [turn.trial(options.photos) for turn in own] for name, own in turns.items()}
    ratio = spread([theirs / ours for theirs, ours in zip(trials[THEIRS], trials[OURS], strict=True)])
    rows = [
        [
            name,
            f"{spread([turn.epoch for turn in own])['median']:.2f}",
            f"{spread([turn.rest for turn in own])['median']:.2f}",
            "{median:.1f} ({lowest:.1f} to {highest:.1f})".format(**spread(trials[name])),
        ]
        for name, own in turns.items()
    ]
    print(f"\n{device_name(device)}; {options.model}, {options.size} pixels, {options.photos} photos")
    print(Table(["", "epoch, s", "other, s", f"trial with {PHOTOS} photos and {EPOCHS} epochs, s"], rows))
    print("a trial is {median:.1f} ({lowest:.1f} to {highest:.1f}) times faster".format(**ratio))
    shared = once * PHOTOS / options.photos
    print(f"shared by all trials: {shared:.0f} s to decode {PHOTOS} photos and to compute {options.views + 1} views")
    if options.json:
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        results = {"trial_s": {name: spread(own) for name, own in trials.items()}, "ratio": ratio, "features_s": shared}
        write_json({"device": device_name(device), "options": settings, **results}, options.json)


if __name__ == "__main__":
    main()
