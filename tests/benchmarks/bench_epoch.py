"""Compare an epoch of all folds with three other implementations, and profile it.

    python tests/benchmarks/bench_epoch.py                # ConvNeXt-Tiny, 224 pixels, five folds
    python tests/benchmarks/bench_epoch.py --precision bf16 --photos 3600 --batch 320 --json FILE --page FILE.html

Draws photos of 1,000 x 750 pixels (once, in --work). trunkfold and its peers (`peers.py`) alternate, so that
disturbances of the machine affect all of them; each turn trains every fold, from image files to validation. Setup is
everything before the first epoch; for trunkfold, it includes decoding, clean features and cached views. Weights are
random, as they do not affect speed.
"""

import argparse
import io
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from bench_copies import draw
from machine import Machine, Table, measure_machine, now, seconds_of, spread, write_page, write_results
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from peers import PEERS, RUN, Task
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from trunkfold.config.schema import CacheConfig, Config, DataConfig, ModelConfig, SplitConfig, TrainConfig
from trunkfold.cores import thread_count
from trunkfold.demo.competition import BATCH, COPIES
from trunkfold.report.figures import COLOURS
from trunkfold.split.dataset import load_labelled
from trunkfold.training.accelerator import start_process
from trunkfold.training.loop import train
from trunkfold.training.setup import cached_views, prepare_experiment, shown_photos

OURS, KEPT = "trunkfold, all folds in lockstep", "trunkfold, cached views"
LOADING, TRUNK, FORWARD, BACKWARD, VALIDATION, REST = (
    "loading and augmenting",
    "trunk, forward",
    "tails, forward",
    "tails, backward",
    "validation",
    "clipping, optimizer, rest",
)
GIGA = 1e9


def main() -> None:
    """Draw the photos, and measure with temporary caches."""
    options = parse_options()
    root = draw_labelled(options.work, options.photos)
    with tempfile.TemporaryDirectory(dir=options.work) as caches:
        measure(options, our_config(options, root, Path(caches)))


def measure(options: argparse.Namespace, config: Config) -> None:
    """Count operations, measure all implementations, profile one epoch, and print the tables."""
    warm = Ours(config)
    device = warm.accelerator.device
    with threads_of_operations():
        machine = measure_machine(device, options.precision)
    fold_of_row = warm.labelled.fold_of_row
    task = Task(
        paths=[str(config.data.root / "train/train/images" / name) for name in warm.labelled.table["filename"]],
        targets=warm.labelled.targets,
        classes=len(warm.labelled.classes),
        model=options.model,
        size=options.size,
        batch=options.batch // options.folds * (options.folds - 1),
        workers=options.workers,
        device=device,
        precision=options.precision,
    )
    counted = metered_epoch(warm, counting=True)
    of_kept = metered_epoch(Ours(with_kept_views(config)), counting=True)
    macs = {
        name: sum(meter.operations.values()) / 2 / options.photos for name, meter in ((OURS, counted), (KEPT, of_kept))
    }
    macs |= {name: peer_macs(peer, task, fold_of_row, options.folds) for name, peer in PEERS.items()}
    turns, last = take_turns(config, task, fold_of_row, options.rounds)
    parts = take_apart(metered_epoch(last), counted, last, machine)
    report(options, machine, compare(turns, macs, options.photos, machine), parts)


def parse_options() -> argparse.Namespace:
    """Parse the command line; some defaults depend on the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu, cores = torch.cuda.is_available(), os.cpu_count() or 1
    parser.add_argument("--model", default="convnext_tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=40, help="photos per step; peers train on those of one fold")
    parser.add_argument("--photos", type=int, default=1800 if gpu else 120, help="rounded down to whole batches")
    parser.add_argument("--rounds", type=int, default=4)
    # With a GPU, the first epoch starts the data-loader workers; without one there are none.
    parser.add_argument("--epochs", type=int, default=2 if gpu else 1, help="per turn; the last one is measured")
    # On a CPU, data-loader workers take cores from the model: with 1 to 4 workers, as in the peers' examples, both
    # peers took 1.4 to 2 times as long on 2 cores. With a GPU, the examples' 4 workers would be too few.
    parser.add_argument("--workers", type=int, default=cores if gpu else 0, help="data-loader workers of the peers")
    parser.add_argument("--precision", default="no", choices=["no", "fp16", "bf16"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "trunkfold-bench-epoch")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    whole = math.lcm(COPIES, options.batch)
    options.photos = max(options.photos // whole, 1) * whole
    return options


def our_config(options: argparse.Namespace, root: Path, caches: Path) -> Config:
    """Return the configuration: drawn photos with their true groups, and default options."""
    return Config(
        data=DataConfig(root=root, image_size=options.size),
        split=SplitConfig(groups=str(root / "groups.csv"), folds=options.folds, holdout=0.0),
        model=ModelConfig(name=options.model, pretrained=False),
        train=TrainConfig(
            epochs=options.epochs,
            batch_size=options.batch,
            tail_lr=1e-3,
            mixed_precision=options.precision,
            cached_views=0,
        ),
        cache=CacheConfig(caches),
    )


def draw_labelled(work: Path, photos: int) -> Path:
    """Draw a competition (once), and remove sources of its largest class from train.csv until `photos` are left."""
    work.mkdir(parents=True, exist_ok=True)
    root = work / str(photos)
    draw(root, math.ceil(photos * 5 / 3 / BATCH) * BATCH)
    path = root / "train/train/train.csv"
    table = pd.read_csv(path, dtype=str)
    groups = pd.read_csv(root / "groups.csv", dtype=str).set_index("image_id")["group"]
    group_of_row = table["image_id"].map(groups)
    largest = group_of_row[table["label"] == table["label"].mode()[0]].unique()
    surplus = (len(table) - photos) // COPIES
    table[~group_of_row.isin(largest[:surplus])].to_csv(path, index=False)
    return root


class Ours:
    """trunkfold's training of all folds, with the steps of src/train_folds.py."""

    def __init__(self, config: Config) -> None:
        """Run all steps before the first epoch."""
        cache = CacheConfig(Path(tempfile.mkdtemp(dir=config.cache.dir)))  # empty, so that each turn decodes the photos
        self.config = config = replace(config, cache=cache)
        self.accelerator = start_process(config.train)
        with quietly():
            self.labelled = labelled = load_labelled(config)
            experiment = prepare_experiment(config, labelled, self.accelerator)
            self.loader, self.validation = shown_photos(experiment)
        self.lockstep = experiment.lockstep

    def epoch(self) -> float:
        """Train and validate; return the seconds of the last epoch."""
        with quietly():
            history = train(self.lockstep, self.loader, self.validation)
        return float(history["seconds"].iloc[-1])


@contextmanager
def threads_of_operations() -> Iterator[None]:
    """Use PyTorch's default threads within operations, instead of the kit's."""
    kits, cores = torch.get_num_threads(), thread_count()
    torch.set_num_threads(cores)
    try:
        yield
    finally:
        torch.set_num_threads(kits)


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress output, such as progress bars."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


@dataclass(frozen=True)
class Turn:
    """Seconds of all folds, before the first epoch and per epoch."""

    one_off: float
    epoch: float

    @property
    def run(self) -> float:
        """Return the seconds of a whole training run."""
        return self.one_off + RUN * self.epoch


def take_turns(config: Config, task: Task, fold_of_row: np.ndarray, rounds: int) -> tuple[dict[str, list[Turn]], Ours]:
    """Train all folds with each implementation in turn; return all turns, and trunkfold's last training."""
    turns: dict[str, list[Turn]] = {name: [] for name in (OURS, KEPT, *PEERS)}
    with tqdm(total=rounds * len(turns), desc="turns", leave=False) as bar:
        for _ in range(rounds):
            turn, ours = our_turn(config)
            turns[OURS].append(turn)
            bar.update()
            turns[KEPT].append(our_turn(with_kept_views(config))[0])
            bar.update()
            for name, peer in PEERS.items():
                with threads_of_operations():
                    turns[name].append(peer_turn(peer, task, fold_of_row, config))
                bar.update()
    return turns, ours


def our_turn(config: Config) -> tuple[Turn, Ours]:
    """Train all folds with trunkfold."""
    started = time.perf_counter()
    ours = Ours(config)
    one_off = now(ours.accelerator.device) - started
    return Turn(one_off, ours.epoch()), ours


def with_kept_views(config: Config) -> Config:
    """Return the configuration with the default number of cached views of a full run on a CPU."""
    views = cached_views(TrainConfig(epochs=RUN), torch.device("cpu"))
    return replace(config, train=replace(config.train, cached_views=views))


def peer_turn(peer: type, task: Task, fold_of_row: np.ndarray, config: Config) -> Turn:
    """Train all folds with a peer, one after the other."""
    one_off = epoch = 0.0
    for fold in range(config.split.folds):
        started = now(task.device)
        loop = peer(task, np.flatnonzero(fold_of_row != fold), np.flatnonzero(fold_of_row == fold))
        one_off += now(task.device) - started
        epoch += [seconds_of(loop.epoch, task.device) for _ in range(config.train.epochs)][-1]
    return Turn(one_off, epoch)


def peer_macs(peer: type, task: Task, fold_of_row: np.ndarray, folds: int) -> float:
    """Count multiply-adds per photo and epoch of all folds, on one batch and a proportional share of validation."""
    learn = np.flatnonzero(fold_of_row != 0)[: task.batch]
    check = np.flatnonzero(fold_of_row == 0)[: task.batch // (folds - 1)]
    loop = peer(task, learn, check)
    with operation_counter() as counter:
        loop.epoch()
    return counter.get_total_flops() / 2 * folds / (len(learn) + len(check))


def operation_counter() -> FlopCounterMode:
    """Return PyTorch's FLOP counter with correct gradients of depthwise convolutions, which it counts as dense ones."""
    gradients = {torch.ops.aten.convolution_backward: convolution_gradient_operations}
    return FlopCounterMode(display=False, custom_mapping=gradients)


def convolution_gradient_operations(gradient: list[int], _: list[int], weight: list[int], *rest: object, **__) -> int:
    """Count operations of the requested gradients of a convolution (input, weight), from the shapes of tensors."""
    wanted = rest[-1][:2]
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * sum(wanted)


class Meter:
    """Seconds and operations of an epoch's parts.

    Attributes:
        seconds: Seconds by part; the device is synchronized after each part.
        operations: Operations by part, if a counter is given.
    """

    def __init__(self, device: torch.device, counter: FlopCounterMode | None) -> None:
        self.device, self.counter = device, counter
        self.seconds: dict[str, float] = defaultdict(float)
        self.operations: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block towards a part, except for parts within it."""
        started = now(self.device) - sum(self.seconds.values())
        operations = self._counted() - sum(self.operations.values())
        yield
        self.seconds[name] += now(self.device) - sum(self.seconds.values()) - started
        self.operations[name] += self._counted() - sum(self.operations.values()) - operations

    def around(self, name: str, call: Callable) -> Callable:
        """Wrap a function to count its calls towards a part."""

        def metered(*values: object, **named: object) -> object:
            with self.part(name):
                return call(*values, **named)

        return metered

    def _counted(self) -> float:
        return 0.0 if self.counter is None else self.counter.get_total_flops()


class MeteredLoader:
    """A data loader whose loading time is counted towards a part."""

    def __init__(self, loader: DataLoader, meter: Meter) -> None:
        self.loader, self.meter = loader, meter

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        batches = iter(self.loader)
        for _ in range(len(self)):
            with self.meter.part(LOADING):
                batch = next(batches)
            yield batch


def metered_epoch(ours: Ours, counting: bool = False) -> Meter:
    """Measure one more epoch part by part; `ours` cannot be used afterwards.

    On a CPU, parts of different tails usually run concurrently in threads, which cannot be measured separately. Here
    they run sequentially, with PyTorch's threads within operations.
    """
    counter = operation_counter() if counting else None
    meter = Meter(ours.accelerator.device, counter)
    for name, owner, method in (
        (TRUNK, ours.lockstep.trunk, "forward"),
        (FORWARD, ours.lockstep, "_losses"),
        (BACKWARD, ours.accelerator, "backward"),
        (VALIDATION, ours.validation, "score"),
    ):
        setattr(owner, method, meter.around(name, getattr(owner, method)))
    ours.loader = MeteredLoader(ours.loader, meter)
    with ExitStack() as stack:
        if meter.device.type == "cpu":
            ours.lockstep.pieces = 1
            stack.enter_context(threads_of_operations())
            stack.enter_context(mock.patch.dict(os.environ, OMP_NUM_THREADS="1"))
        if counter is not None:
            stack.enter_context(counter)
        seconds = seconds_of(ours.epoch, meter.device)
    meter.seconds[REST] = seconds - sum(meter.seconds.values())
    for values in (meter.seconds, meter.operations):
        values.update({name: value / ours.config.train.epochs for name, value in values.items()})
    return meter


@dataclass(frozen=True)
class Part:
    """A part of the epoch: seconds, multiply-adds, and the lower bound of seconds on this machine."""

    name: str
    seconds: float
    macs: float
    floor: float


def take_apart(timed: Meter, counted: Meter, ours: Ours, machine: Machine) -> list[Part]:
    """Return seconds, operations and lower bound of each part."""
    train_config, side = ours.config.train, ours.config.data.image_size
    steps = len(ours.loader)
    kept = np.mean([pixels.nbytes for pixels in ours.labelled.pixels])
    learning = sum(parameter.numel() for parameter in ours.lockstep.learning)
    moved = {
        LOADING: steps * train_config.batch_size * (kept + 3 * side**2),
        # AdamW reads weight, gradient and two moments, and writes all but the gradient.
        REST: steps * 7 * 4 * learning,
    }
    return [
        Part(
            name,
            timed.seconds[name],
            counted.operations[name] / 2,
            machine.floor(counted.operations[name], moved.get(name, 0)),
        )
        for name in (LOADING, TRUNK, FORWARD, BACKWARD, REST, VALIDATION)
    ]


def compare(turns: dict[str, list[Turn]], macs: dict[str, float], photos: int, machine: Machine) -> dict[str, dict]:
    """Return seconds of each implementation, and their ratio to trunkfold's, as median and range over the rounds."""
    rows = {}
    for name, own in turns.items():
        pairs = list(zip(own, turns[OURS], strict=True))
        epoch = spread([turn.epoch for turn in own])
        rows[name] = {
            "gmac_per_photo": macs[name] / GIGA,
            "epoch_s": epoch,
            "photos_per_second": photos / epoch["median"],
            "share_of_peak": machine.floor(2 * macs[name] * photos) / epoch["median"],
            "one_off_s": spread([turn.one_off for turn in own]),
            "run_s": spread([turn.run for turn in own]),
            "epoch_ratio": spread([theirs.epoch / ours.epoch for theirs, ours in pairs]),
            "run_ratio": spread([theirs.run / ours.run for theirs, ours in pairs]),
        }
    return rows


def report(options: argparse.Namespace, machine: Machine, ways: dict[str, dict], parts: list[Part]) -> None:
    """Print both tables, and write them to the files given by the options."""
    setting = (
        f"{options.model}, {options.size} pixels, {options.photos} photos, {options.folds} folds, "
        f"batch {options.batch}, precision {options.precision}, {options.rounds} rounds"
    )
    tables = {
        f"One epoch of {options.folds} folds": ways_table(ways),
        "Parts of an epoch of trunkfold": parts_table(parts, options.photos),
    }
    print(f"{machine.describe()}\n{setting}")
    for heading, table in tables.items():
        print(f"\n{heading}\n{table}")
    if options.json:
        write_results(options.json, machine, vars(options), ways=ways, parts=[asdict(part) for part in parts])
    if options.page:
        lines = [machine.describe(), setting, *REMARKS]
        write_page(options.page, "Time per epoch", lines, tables, lambda: draw_parts(parts))


def ways_table(ways: dict[str, dict]) -> Table:
    """Return the table of trunkfold and its peers."""
    headings = ["", "GMAC per photo", "epoch, s", "photos/s", "of peak", "ratio (range)"]
    headings += ["setup, s", f"{RUN} epochs, s", "ratio"]
    rows = [
        [
            name,
            f"{way['gmac_per_photo']:.2f}",
            f"{way['epoch_s']['median']:.2f}",
            f"{way['photos_per_second']:.1f}",
            f"{way['share_of_peak']:.0%}",
            "{median:.2f} ({lowest:.2f} to {highest:.2f})".format(**way["epoch_ratio"]),
            f"{way['one_off_s']['median']:.1f}",
            f"{way['run_s']['median']:.0f}",
            f"{way['run_ratio']['median']:.2f}",
        ]
        for name, way in ways.items()
    ]
    return Table(headings, rows)


def parts_table(parts: list[Part], photos: int) -> Table:
    """Return the table of an epoch's parts and their sum."""
    sums = (sum(getattr(part, field) for part in parts) for field in ("seconds", "macs", "floor"))
    total = Part("all", *sums)
    rows = [
        [
            part.name,
            f"{part.seconds:.3f}",
            f"{part.seconds / total.seconds:.1%}",
            f"{part.macs / photos / GIGA:.2f}",
            f"{part.floor:.3f}",
            times_floor(part),
        ]
        for part in [*parts, total]
    ]
    return Table(["", "seconds", "share", "GMAC per photo", "bound, s", "relative to the bound"], rows)


def times_floor(part: Part) -> str:
    """Return the ratio of a part's seconds to its lower bound."""
    if not part.floor:
        return ""
    times = part.seconds / part.floor
    return f"{times:.1f}" if times < 10 else f"{times:,.0f}"


def draw_parts(parts: list[Part]) -> Figure:
    """Draw two bars per part: measured seconds and lower bound."""
    total, places = sum(part.seconds for part in parts), np.arange(len(parts))
    figure, axis = plt.subplots(figsize=(10, 0.6 * len(parts) + 1.2), layout="constrained")
    measured, floor = [part.seconds for part in parts], [part.floor for part in parts]
    axis.barh(places - 0.2, measured, 0.38, color=COLOURS[0], label="measured")
    axis.barh(places + 0.2, floor, 0.38, color=COLOURS[4], hatch="///", edgecolor="black", label="floor")
    for place, part in zip(places, parts, strict=True):
        times = times_floor(part)
        distance = f", {times} x bound" if times and part.seconds > total / 100 else ""
        axis.text(part.seconds, place - 0.2, f"  {part.seconds / total:.0%}{distance}", va="center")
    axis.set_yticks(places, [part.name for part in parts])
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.grid(visible=False, axis="y")
    axis.set_axisbelow(True)
    axis.set(xlabel="seconds", title=f"One epoch of trunkfold: {total:.2f} s; sum of lower bounds: {sum(floor):.2f} s")
    axis.legend(frameon=False, loc="lower right")
    return figure


REMARKS = (
    "GMAC per photo: multiply-adds of an epoch of all folds, including validation, divided by the number of photos. "
    "Ratios are relative to trunkfold's seconds in the same round: median, lowest and highest. trunkfold's setup time "
    "is proportional to the number of photos, so the last ratio hardly depends on it.",
    "The lower bound of a part is the number of operations divided by the measured peak, or the bytes divided by the "
    "measured bandwidth. Parts are measured in a separate epoch with synchronization after each part; otherwise, a GPU "
    "and the threads of a CPU overlap them.",
)


if __name__ == "__main__":
    main()
