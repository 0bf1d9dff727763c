"""Measure the memory of the commands by number of photos, from image files to submission.

    python tests/benchmarks/bench_memory.py                                  # 2,000 and 10,000 photos; minutes
    python tests/benchmarks/bench_memory.py --photos 100000 --work DIR

Draws a few hundred photos of 64 pixels, each stored in many files, trains a small model for one epoch with cached trunk
features, and predicts a tenth as many unlabelled photos, and the folder of labelled ones. Memory is the sum over all
processes of a command (Pss_Anon of /proc, which counts pages shared by forked processes once), without mapped files,
which the kernel can drop at any time. The increase is relative to the same commands with a few hundred photos. Prints a
table; --json FILE writes it. Linux only.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from machine import Table, device_name

from trunkfold.files import write_json

SOURCE = Path(__file__).parents[2] / "src"
FEW, DRAWN, COPIES, CLASSES = 300, 300, 3, 6
EVERY = 0.2  # seconds between measurements


def main() -> None:
    """Draw photos and run the commands for each number of photos, starting with the smallest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[2000, 10_000])
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--cached_views", type=int, default=0)
    parser.add_argument("--work", type=Path, help="Working folder, emptied at the end; by default temporary.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        for photos in [FEW, *options.photos]:
            folder = Path(work) / str(photos)
            draw(folder / "input", photos)
            results[photos] = {name: measure(command, folder) for name, command in commands(options, folder).items()}
            print(table(results), end="\n\n", flush=True)
            shutil.rmtree(folder)
    if options.json:
        settings = {name: str(value) for name, value in vars(options).items()}
        write_json({"device": device_name(torch.device("cpu")), "options": settings, "photos": results}, options.json)


def commands(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """Return the command lines of training, submission and prediction of a folder."""
    settings = {
        **{"data.root": "input", "data.classes": "null", "data.image_size": 64, "data.workers": options.workers},
        **{"split.groups": folder / "input/groups.csv", "model.name": "test_convnext", "model.pretrained": "false"},
        **{"train.epochs": 1, "train.batch_size": options.batch, "train.cached_views": options.cached_views},
        "run.name": "run",
    }
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    launch = [sys.executable]
    if options.processes > 1:
        launch += ["-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0"]
        launch += ["--num_processes", str(options.processes)]
    return {
        "training": [*launch, str(SOURCE / "train_folds.py"), *words],
        "submission": [sys.executable, str(SOURCE / "make_submission.py")],
        "folder": [sys.executable, str(SOURCE / "predict_photos.py"), "input/train", "--out", "predictions.csv"],
    }


def draw(root: Path, photos: int) -> None:
    """Write a competition with `photos` labelled photos and a tenth as many others, three per source."""
    rng = np.random.default_rng(0)
    pictures = [cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (64, 64)) for _ in range(DRAWN)]
    files = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
    groups = []
    for name, ids in (("train", range(photos)), ("test", range(photos, photos + photos // 10))):
        (root / name / "images").mkdir(parents=True)
        for number in ids:
            # Bytes after the end of the image make the file unique.
            path = root / name / "images" / f"{number}.jpg"
            path.write_bytes(files[number // COPIES % DRAWN] + str(number).encode())
        table = pd.DataFrame({"image_id": ids, "filename": [f"{number}.jpg" for number in ids]})
        if name == "train":
            table["label"] = table["image_id"] // COPIES % CLASSES
        table.to_csv(root / name / f"{name}.csv", index=False)
        groups.append(table[["image_id"]].assign(group=table["image_id"] // COPIES))
    pd.concat(groups).to_csv(root / "groups.csv", index=False)


def measure(command: list[str], folder: Path) -> dict[str, float]:
    """Run a command; return its seconds, the peak memory of all its processes in GiB, and the time of the peak.

    Raises:
        RuntimeError: The command failed.
    """
    log = folder / "log.txt"
    started, peak, when = time.perf_counter(), 0, 0.0
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            memory = sum(map(own_memory, descendants(process.pid)))
            if memory > peak:
                peak, when = memory, time.perf_counter() - started
            time.sleep(EVERY)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()}")
    return {"seconds": time.perf_counter() - started, "peak_gib": peak / 2**30, "peak_after_s": when}


def descendants(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            stat = _read(f"/proc/{entry}/stat")
            if stat:
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found, new = [], [pid]
    while new:
        found += new
        new = [child for child, parent in parents.items() if parent in new]
    return found


def own_memory(pid: int) -> int:
    """Return the bytes of anonymous memory of a process, with its proportional share of shared pages."""
    lines = [line for line in _read(f"/proc/{pid}/smaps_rollup").splitlines() if line.startswith("Pss_Anon")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # the process has ended
        return ""


def table(results: dict[int, dict[str, dict[str, float]]]) -> Table:
    """Return one row per number of photos and command."""
    rows = [
        [
            f"{photos:,} photos, {name}",
            f"{result['peak_gib']:.2f}",
            f"{result['peak_gib'] - results[FEW][name]['peak_gib']:+.2f}",
            f"{result['peak_after_s']:.0f}",
            f"{result['seconds']:.0f}",
        ]
        for photos, runs in results.items()
        for name, result in runs.items()
    ]
    return Table([device_name(torch.device("cpu")), "GiB", f"more than {FEW}", "peak after, s", "seconds"], rows)


if __name__ == "__main__":
    main()
