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

from trunkfold.metrics import MadeWith, Memory, PhotoFacts, Sizes
from trunkfold.split.dataset import Labelled

PACKAGES = ("trunkfold", "torch", "torchvision", "timm", "peft", "accelerate", "albumentations", "numpy")
FREQUENT = 5  # listed sizes
GIB = 2**30


class Stopwatch:
    """Seconds by phase: `with stopwatch("training"): ...`.

    Attributes:
        started: Time of creation, on the monotonic clock.
        seconds: Seconds of each finished phase, in order.
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
    history: pd.DataFrame,
    photos: int,
    seconds: Mapping[str, float],
) -> dict[str, object]:
    """Describe a training run on a number of photos, with its seconds by phase, for metrics.json.

    The seconds of `history` include those before an interruption.
    """
    training = round(history.drop_duplicates("epoch")["seconds"].sum(), 3)
    return {
        "made_with": made_with(accelerator, labelled.pixels.paths, labelled.table["group"]),
        "seconds": {**seconds, "training": training},
        "images_per_second": round(photos / training, 1),
    }


def made_with(accelerator: Accelerator, paths: Sequence[str], groups: pd.Series) -> MadeWith:
    """Describe a run's software, hardware and labelled photos after training; unknown values are None."""
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
    """Return the version of a package; None if it is not installed."""
    with suppress(PackageNotFoundError):
        return version(name)
    return None


def commit(file: Path) -> str | None:
    """Return the commit of the checkout a file belongs to, with -dirty if tracked files differ; None outside of one."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        git("ls-files", "--error-unmatch", file.name)  # the file may be in another project's checkout
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    return None


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor with its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def peak_memory(device: torch.device) -> Memory:
    """Return the peak memory of this process and its GPU in GiB."""
    peak = None
    with suppress(ImportError):
        import resource  # Windows has none

        unit = 1 if sys.platform == "darwin" else 1024
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 2)
    on_gpu = round(torch.cuda.max_memory_allocated(device) / GIB, 2) if device.type == "cuda" else None
    return Memory(peak, on_gpu)


def photo_sizes(paths: Sequence[str]) -> Sizes:
    """Return the sizes of readable photos, from their file headers."""
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
    """Return the number of groups of each size."""
    return {str(size): int(count) for size, count in groups.value_counts().value_counts().sort_index().items()}


def _size(path: str) -> tuple[int, int] | None:
    with suppress(Exception), Image.open(path) as image:  # decoders raise many types
        return image.size
    return None
