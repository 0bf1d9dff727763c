"""Measure photos per second of loading and augmentation: from files, from the cache, per transform, and on all cores.

    python tests/benchmarks/bench_loading.py

Draws photos of 1,000 x 750 pixels (once, in --work). Measures each row on one core (the fastest of several alternating
rounds), then whole batches on all cores, with data-loader workers and with threads. Prints a table; --json FILE writes
it.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import timm
import torch
from accelerate import Accelerator
from bench_copies import draw
from machine import Table, device_name
from peers import Photos, Task, seed_transforms
from tqdm import tqdm

from trunkfold.data.photos import read_photo
from trunkfold.data.pixel_cache import load_photos
from trunkfold.files import write_json
from trunkfold.images.augmentation import PRESETS, Augmentation
from trunkfold.images.batches import FoldBalancedBatches, TrainingPhotos
from trunkfold.images.workers import PhotoLoader
from trunkfold.split.dataset import side_to_keep

SEED = "student project: decoded, reduced and augmented as floats"


def main() -> None:
    """Draw the photos, and measure on one core and on all cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "trunkfold-bench-copies")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    root = options.work / str(options.photos)
    draw(root, options.photos)
    paths = [str(path) for path in sorted(root.rglob("*.jpg"))]

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        pixels = load_photos(paths, side_to_keep(options.size), Path(cache)).pixels
        one_core = measure_one_core(paths, pixels, options.size, options.rounds)
        all_cores = measure_all_cores(paths, pixels, options)
    print(f"photos of 1,000 x 750 pixels for {options.size}; {device_name(torch.device('cpu'))}")
    print(table("one core", one_core))
    print(table(f"all {os.cpu_count()} cores", all_cores))
    if options.json:
        results = {"one core": one_core, "all cores": all_cores}
        write_json({"device": device_name(torch.device("cpu")), "photos_a_second": results}, options.json)


def table(heading: str, rates: dict[str, float]) -> Table:
    """Return photos per second, and their ratio to the first row."""
    first = next(iter(rates.values()))
    rows = [[name, f"{rate:,.0f}", f"{1e6 / rate:,.0f}", f"{rate / first:.1f}"] for name, rate in rates.items()]
    return Table([heading, "photos/s", "microseconds", "ratio"], rows)


def measure_one_core(paths: list[str], pixels: Iterable[np.ndarray], size: int, rounds: int) -> dict[str, float]:
    """Return photos per second of each method and transform on one core."""
    side, rows = side_to_keep(size), range(len(paths))
    seed_augment, _ = seed_transforms(size, timm.get_pretrained_cfg("convnext_tiny").to_dict())
    seed = Photos(seed_task(paths, size), np.arange(len(paths)), seed_augment)
    ways: dict[str, Callable[[int], object]] = {
        SEED: lambda row: seed[row],
        "decoded for the cache, once": lambda row: read_photo(paths[row], side),
        "read from the cache": lambda row: pixels[row].copy(),
        "from the cache, standard augmentation": augmented(pixels, PRESETS["standard"], size),
    }
    for step in PRESETS["standard"]:
        ((name, arguments),) = step.items()
        ways[f"    {name} alone, every time"] = augmented(pixels, [{name: {**arguments, "p": 1.0}}], size)
    fastest = dict.fromkeys(ways, float("inf"))
    for _ in tqdm(range(rounds), "one core", leave=False):
        for name, way in ways.items():
            chosen = rows[: max(20, len(paths) // 10)] if name == SEED else rows
            fastest[name] = min(fastest[name], seconds(lambda: [way(row) for row in chosen]) / len(chosen))  # noqa: B023
    return {name: 1 / each for name, each in fastest.items()}


def measure_all_cores(paths: list[str], pixels: Iterable[np.ndarray], options: argparse.Namespace) -> dict[str, float]:
    """Return photos per second of whole batches: in this process, with data-loader workers, and with threads."""
    cores = os.cpu_count() or 1
    fold_of_row = np.arange(len(paths)) % 5
    photos = TrainingPhotos(pixels, fold_of_row, Augmentation("standard", options.size), seed=0)
    epochs = max(1, 6000 // len(paths))

    def batches() -> FoldBalancedBatches:
        return FoldBalancedBatches(fold_of_row, options.batch, 0, Accelerator(cpu=True))

    def load(workers: int) -> int:
        loader = PhotoLoader(photos, batches(), workers, torch.device("cpu"))
        next(iter(loader))  # starts the processes
        return sum(len(targets) for _ in range(epochs) for _, targets in loader)

    def load_by_threads() -> int:
        with ThreadPoolExecutor(cores) as pool:
            drawn = batches()
            return sum(
                len(torch.stack([pixels for pixels, _ in pool.map(photos.__getitem__, batch)]))
                for _ in range(epochs)
                for batch in drawn
            )

    ways = {
        "this process": lambda: load(0),
        f"{cores} data-loader workers": lambda: load(cores),
        f"{cores} threads": load_by_threads,
    }
    rates = dict.fromkeys(ways, 0.0)
    for _ in tqdm(range(3), "all cores", leave=False):
        for name, way in ways.items():
            started = time.perf_counter()
            loaded = way()
            rates[name] = max(rates[name], loaded / (time.perf_counter() - started))
    return rates


def augmented(pixels: Iterable[np.ndarray], steps: list, size: int) -> Callable[[int], np.ndarray]:
    """Return a function that augments a row of the cache."""
    augment = Augmentation(steps, size)
    return lambda row: augment(pixels[row], row)


def seed_task(paths: list[str], size: int) -> Task:
    """Return the task for the student project's loader."""
    targets = np.zeros(len(paths), int)
    return Task(paths, targets, 6, "convnext_tiny", size, 32, 0, torch.device("cpu"), "no")


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
