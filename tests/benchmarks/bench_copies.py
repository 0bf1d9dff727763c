"""Measure time, memory, precision and recall of the copy search by number of photos.

    python tests/benchmarks/bench_copies.py                   # 1,500 to 12,000 photos of 1,000 x 750 pixels
    python tests/benchmarks/bench_copies.py --photos 300 600
    python tests/benchmarks/bench_copies.py --photos 100000 --enlarged 1    # of 250 x 188 pixels

Draws demo competitions (once, in --work), searches each in a separate process, and prints a table; --json FILE writes
it. "Again" is a second search with the descriptions and comparisons of the first, as after a change of labels. The
exponent is the slope of log(seconds) over log(photos): 1 is linear. Then random pairs of photos of the first
competition, or of --data, are compared by one thread, by threads and by processes in turn.
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from trunkfold.copies.cells import measure_cells
from trunkfold.copies.comparison import PART, compare_pairs, start_workers
from trunkfold.copies.descriptors import describe_photo
from trunkfold.copies.embedding import one_thread
from trunkfold.copies.record import RECORD, Records
from trunkfold.cores import usable_cores
from trunkfold.demo.competition import DemoOptions, make_demo

DRAWN = 250  # pixels of the long side
DESCRIBED, COMPARED, ROUNDS = 300, 1000, 5  # photos, pairs, and rounds of `compare_by`
COMMAND = Path(__file__).parents[2] / "src" / "find_copies.py"


def main() -> None:
    """Draw the competitions, search them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[1500, 3000, 6000, 12000])
    parser.add_argument("--enlarged", type=int, default=4, help="factor, because decoding large photos takes time")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "trunkfold-bench-copies")
    parser.add_argument("--data", type=Path, help="Folder of the photos that threads and processes compare.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    roots = [options.work / f"{photos}-{options.enlarged}" for photos in options.photos]
    for photos, root in zip(options.photos, roots, strict=True):
        draw(root, photos, options.enlarged)
        rows.append({"photos": photos, **measure(root, options.work / "found")})
    exponent = None
    if len(rows) > 1:
        logs = np.log([[row["photos"], row["seconds"]] for row in rows])
        exponent = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
    device = f"{platform.machine()} CPU, {os.cpu_count()} cores"
    print(f"photos of {DRAWN * options.enlarged} pixels; {device}")
    print(f"{'photos':>8}{'seconds':>10}{'again':>8}{'photos/s':>10}{'peak GiB':>10}{'precision':>11}{'recall':>9}")
    for row in rows:
        print(
            f"{row['photos']:>8}{row['seconds']:>10.0f}{row['again']:>8.0f}{row['photos'] / row['seconds']:>10.0f}"
            f"{row['peak_gib']:>10.2f}{row['precision']:>11.4f}{row['recall']:>9.4f}"
        )
    if exponent is not None:
        print(f"seconds grow with photos to the power of {exponent:.2f}")
    rates = compare_by(options.data or roots[0])
    alone, *_ = rates.values()
    for workers, rate in rates.items():
        print(f"{workers}: {rate:.0f} pairs per second, {rate / alone:.2f} times as many as one thread")
    if options.json:
        found = {"device": device, "rows": rows, "exponent": exponent, "pairs_per_second": rates}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def draw(root: Path, photos: int, enlarged: int = 4) -> None:
    """Draw a demo competition and enlarge its photos, unless they exist."""
    if root.exists():
        return
    partial = root.with_name(f".{root.name}")
    shutil.rmtree(partial, ignore_errors=True)
    make_demo(partial, DemoOptions(photos, DRAWN))
    for path in tqdm(sorted(partial.rglob("*.jpg")) if enlarged > 1 else [], "enlarging", leave=False):
        large = cv2.resize(cv2.imread(str(path)), None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), large)
    partial.rename(root)


def measure(root: Path, out: Path) -> dict[str, float]:
    """Search twice, in separate processes; return seconds, peak memory, and precision and recall of pairs."""
    shutil.rmtree(out, ignore_errors=True)
    first, second = (search(root, out / name, out / "cache") for name in ("first", "second"))
    truth, found = (pd.read_csv(path) for path in (root / "answer_key.csv", out / "first" / "groups.csv"))
    true_pairs, found_pairs = pairs(truth, "source"), pairs(found, "group")
    right = len(true_pairs & found_pairs)
    return {
        "seconds": first[0],
        "again": second[0],
        "peak_gib": max(first[1], second[1]),
        "precision": right / max(len(found_pairs), 1),
        "recall": right / len(true_pairs),
    }


def search(root: Path, out: Path, cache: Path) -> tuple[float, float]:
    """Search in a separate process; return its seconds and peak memory in GiB."""
    started = time.perf_counter()
    command = [sys.executable, str(COMMAND), "--data.root", str(root), "--out", str(out), "--cache.dir", str(cache)]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the search in {root} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 2**20


def compare_by(root: Path) -> dict[str, float]:
    """Return the pairs per second that one thread, all threads and all processes compare: medians over rounds."""
    cores = usable_cores()
    ways = {"one thread": (1, False), f"{cores} threads": (cores, False), f"{cores} processes": (cores, True)}
    rates = {name: [] for name in ways}
    paths = sorted(path for path in root.rglob("*.*") if path.suffix in (".jpg", ".png"))[:DESCRIBED]
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1), one_thread():
        np.save(f"{folder}/records.npy", np.array([describe_photo(path) for path in paths], RECORD))
        records = Records([f"{folder}/records.npy"])
        statistics = measure_cells(records)
        chosen = np.random.default_rng(0).integers(0, len(records), (COMPARED, 2)).tolist()
        for _ in range(ROUNDS):
            for name, (count, processes) in ways.items():
                with start_workers(count, processes) as workers:
                    compare_pairs(workers, records, chosen[: 2 * count * PART], statistics)  # processes have started
                    started = time.perf_counter()
                    compare_pairs(workers, records, chosen, statistics)
                    rates[name].append(len(chosen) / (time.perf_counter() - started))
    return {name: float(np.median(found)) for name, found in rates.items()}


def pairs(table: pd.DataFrame, column: str) -> set[tuple[int, int]]:
    """Return the pairs of ids with the same value."""
    return {pair for _, ids in table.groupby(column)["image_id"] for pair in itertools.combinations(sorted(ids), 2)}


if __name__ == "__main__":
    main()
