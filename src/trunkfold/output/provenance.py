"""Provenance of a run: versions, commit, device, memory, seconds, and properties of the photos."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from PIL import Image

from trunkfold.metrics import MadeWith, Memory, Parameters, PhotoFacts, Sizes
from trunkfold.split.dataset import Labelled

PACKAGES = ("trunkfold", "torch", "torchvision", "timm", "peft", "accelerate", "albumentations", "numpy")
FREQUENT = 5  # sizes that are listed
GIB = 2**30


class Stopwatch:
    """Seconds by phase: `with stopwatch("training"): ...`.

    Attributes:
        started: When it was made, on the monotonic clock.
        seconds: Of each phase that has ended, in order.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[phase] = round(time.perf_counter() - started, 3)


def describe_training(
    accelerator: Accelerator,
    labelled: Labelled,
    parameters: Parameters,
    history: pd.DataFrame,
    photos: int,
    seconds: Mapping[str, float],
) -> dict[str, object]:
    """Facts of a training for its metrics: what it was made with, its size and speed.

    Args:
        parameters: Of one fold's model.
        history: Of the training, whose seconds count also what was done before an interruption.
        photos: How many were trained on.
        seconds: By phase.
    """
    training = round(history.drop_duplicates("epoch")["seconds"].sum(), 3)
    return {
        "parameters": parameters,
        "made_with": made_with(accelerator, labelled.paths, labelled.table["group"]),
        "seconds": {**seconds, "training": training},
        "images_per_second": round(photos / training, 1),
    }


def made_with(accelerator: Accelerator, paths: Sequence[str], groups: pd.Series) -> MadeWith:
    """Describe the run's software, hardware and photos; what cannot be known is None.

    Args:
        accelerator: Of the run, which has used its memory.
        paths: File of each labelled photo.
        groups: Its group.
    """
    return MadeWith(
        versions={"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}},
        commit=commit(Path(__file__)),
        device=device_name(accelerator.device),
        processes=accelerator.num_processes,
        precision=accelerator.mixed_precision,
        memory_gib=peak_memory(accelerator.device),
        data=PhotoFacts(photo_sizes(paths), group_sizes(groups)),
    )


def package_version(name: str) -> str | None:
    """Version of an installed package, None where it is not installed."""
    with suppress(PackageNotFoundError):
        return version(name)
    return None


def commit(file: Path) -> str | None:
    """Commit of the checkout that a file is part of, with -dirty where tracked files differ from it; None elsewhere."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        git("ls-files", "--error-unmatch", file.name)  # the file may be in another project's checkout
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    return None


def device_name(device: torch.device) -> str:
    """The GPU, or the processor and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def peak_memory(device: torch.device) -> Memory:
    """The most GiB that the first process has used of the machine's memory, and of its GPU's."""
    peak = None
    with suppress(ImportError):
        import resource  # Windows has none

        unit = 1 if sys.platform == "darwin" else 1024
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 2)
    on_gpu = round(torch.cuda.max_memory_allocated(device) / GIB, 2) if device.type == "cuda" else None
    return Memory(peak, on_gpu)


def photo_sizes(paths: Sequence[str]) -> Sizes:
    """Sizes of the photos that can be read, from the heads of their files."""
    with ThreadPoolExecutor() as pool:
        sizes = pd.DataFrame([size for size in pool.map(_size, paths) if size], columns=["width", "height"])
    if sizes.empty:
        return Sizes(0, None, None, {})
    frequent = sizes.value_counts().head(FREQUENT)
    return Sizes(
        photos=len(sizes),
        **{side: sizes[side].quantile([0, 0.5, 1]).astype(int).tolist() for side in sizes},
        frequent={f"{width} x {height}": int(count) for (width, height), count in frequent.items()},
    )


def group_sizes(groups: pd.Series) -> dict[str, int]:
    """How many groups there are of each number of photos."""
    return {str(size): int(count) for size, count in groups.value_counts().value_counts().sort_index().items()}


def _size(path: str) -> tuple[int, int] | None:
    with suppress(Exception), Image.open(path) as image:  # decoders raise whatever their libraries do
        return image.size
    return None
