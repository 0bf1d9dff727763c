"""Measure the gain in true macro F1 from each part of the recipe, as paired differences.

    python tests/benchmarks/bench_recipe.py --data DIR --truth FILE --rare 3 --sources 20 --seeds 0 1 2

DIR is a competition, FILE a table with image_id, set, source and label of all its photos. Each seed defines a dataset:
all sources of the frequent classes and --sources sources of the class --rare, 60 % of each class labelled and the rest
unlabelled; with more --sources than there are, a random division of all photos; without --rare, the competition's own
division. Every row trains EfficientNet-Lite0 from its package's ImageNet weights, with the options of `ROWS` added to
the defaults. Prints macro F1 out-of-fold and on the unlabelled photos, both with argmax and decoded for macro F1, and
the difference of the decoded score to argmax of the row `block`, with a 95 % interval over seeds. --json FILE is
written after each run and read at the start, so that an interrupted benchmark resumes.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from bench_backbones import ANOTHER, FLOOR, RATES, SEEDS_WAY, floor, train
from machine import Table
from scipy import stats
from sklearn.metrics import f1_score

ROWS = {
    "block": {},
    "seed's way": SEEDS_WAY,
    **{f"tail_lr {rate}": {"train.tail_lr": rate} for rate in RATES},
    "float32": {"train.mixed_precision": "no"},
    "bf16": {"train.mixed_precision": "bf16"},
    "another model": ANOTHER,
    "20 epochs": {"train.epochs": 20},
    "no hold-out": {"split.holdout": 0},
    "ten folds": {"split.folds": 10},
    "adapters": {"model.tune": "adapters"},
    "rank 16": {"model.rank": 16},
    "rank 64": {"model.rank": 64},
    "all": {"model.tune": "all"},
    "all, EMA": {"model.tune": "all", "train.ema_decay": 0.99},
    "all, balanced weights": {"model.tune": "all", "train.class_weights": "balanced"},
    "all, no smoothing": {"model.tune": "all", "train.label_smoothing": 0},
    "all, four views": {"model.tune": "all", "predict.views": "[plain,hflip,larger,larger_hflip]"},
    "all, strong augmentation": {"model.tune": "all", "augment": "strong"},
    "all, 20 epochs": {"model.tune": "all", "train.epochs": 20},
}
PLAIN = "block"  # the reference row, with argmax
KEPT = 4  # cached views: the number of visits of a photo in 10 epochs with one copy each


def main() -> None:
    """Train each row with each seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--rare", help="Label of the rare class; by default none.")
    parser.add_argument("--sources", type=int, default=20, help="Number of sources of the rare class.")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=[FLOOR, *ROWS], default=[FLOOR, *ROWS])  # PLAIN is always run
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    for name in ("data", "truth", "work", "json"):
        setattr(options, name, getattr(options, name).resolve())
    options.rows = [PLAIN, *(row for row in options.rows if row != PLAIN)]
    results = json.loads(options.json.read_text()) if options.json.exists() else {}
    for seed in options.seeds:
        testbed, truth = make_testbed(options, seed)
        for row in options.rows:
            key = key_of(options, row, seed)
            if key not in results:
                results[key] = run(options, testbed, truth, row, seed)
                options.json.write_text(json.dumps(results, indent=1) + "\n")
                print(key, results[key], flush=True)
    print(table(options, results))


def make_testbed(options: argparse.Namespace, seed: int) -> tuple[Path, pd.DataFrame]:
    """Write the dataset of a seed to the working folder; return its folder, and the true label by image_id."""
    truth = pd.read_csv(options.truth, dtype=str)
    if options.rare:
        rng = np.random.default_rng(seed)
        chosen = []
        for label, sources in truth.groupby("label")["source"].unique().items():
            sources = rng.permutation(np.sort(sources))[: options.sources if label == options.rare else None]
            labelled = round(0.6 * len(sources))
            chosen += [(source, "train" if place < labelled else "test") for place, source in enumerate(sources)]
        truth["set"] = truth["source"].map(dict(chosen))
        truth = truth.dropna(subset="set")
    folder = options.work / f"{options.rare}-{options.sources}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    files = {path.stem: path for path in options.data.rglob("images/*")}
    for name, part in truth.groupby("set"):
        images = folder / "data" / name / "images"
        images.mkdir(parents=True)
        paths = part["image_id"].map(files)
        for path in paths:
            (images / path.name).symlink_to(path)
        columns = ["image_id", "filename", *(["label"] if name == "train" else [])]
        part.assign(filename=[path.name for path in paths])[columns].to_csv(images.parent / f"{name}.csv", index=False)
    groups = truth[["image_id", "source"]].rename(columns={"source": "group"})
    groups.to_csv(folder / "groups.csv", index=False)
    return folder, truth.set_index("image_id")


def run(options: argparse.Namespace, testbed: Path, truth: pd.DataFrame, row: str, seed: int) -> dict[str, float]:
    """Train one row, and write its submission."""
    task = argparse.Namespace(
        data=testbed / "data", work=testbed, size=options.size, epochs=options.epochs, rows=options.rows
    )
    os.chdir(testbed)
    (options.work / "cache").mkdir(exist_ok=True)
    if not (testbed / "cache").exists():
        (testbed / "cache").symlink_to(options.work / "cache")
    if row == FLOOR:
        return {"argmax": floor(task, truth)}
    kept = {} if row == "seed's way" else {"train.cached_views": KEPT}
    found = train(task, truth, testbed / "groups.csv", row, seed, {**kept, **ROWS[row]})
    folder = Path(found["run"])
    tables = {"claimed argmax": pd.read_csv(folder / "oof.csv", dtype={"image_id": str})}
    tables["argmax"] = pd.read_csv(folder / "test_probabilities.csv", dtype={"image_id": str})
    for name, scored in tables.items():
        probabilities = scored.filter(regex="^p_")
        labels = probabilities.idxmax(axis=1).str.removeprefix("p_")
        found[name] = f1_score(truth["label"][scored["image_id"]], labels, average="macro")
    return found


def table(options: argparse.Namespace, results: dict) -> Table:
    """Return means over the seeds, and paired differences to `block` with argmax."""
    headings = ["row", "out-of-fold: argmax", "decoded", "truth: argmax", "decoded", "claimed - truth"]
    headings += ["gain on plain", "seconds"]

    def of(row: str, field: str) -> np.ndarray:
        found = [results[key_of(options, row, seed)] for seed in options.seeds]
        return np.array([result.get(field, np.nan) for result in found])

    cells = []
    for row in options.rows:
        truth = of(row, "truth") if row != FLOOR else of(row, "argmax")
        gain = truth - of(PLAIN, "argmax")
        reach = stats.t.ppf(0.975, max(len(gain) - 1, 1)) * gain.std(ddof=1) / len(gain) ** 0.5
        cells.append(
            [
                row,
                f"{of(row, 'claimed argmax').mean():.3f}",
                f"{of(row, 'claimed').mean():.3f}",
                f"{of(row, 'argmax').mean():.3f}",
                f"{truth.mean():.3f} ± {truth.std():.3f}",
                f"{(of(row, 'claimed') - truth).mean():+.3f}",
                f"{gain.mean():+.3f} ± {reach:.3f}",
                f"{of(row, 'seconds').mean():.0f}",
            ]
        )
    return Table(headings, cells)


def key_of(options: argparse.Namespace, row: str, seed: int) -> str:
    """Return the key of a run in the JSON file."""
    return f"{options.rare}/{options.sources}/{options.size}/{options.epochs}/{row}/{seed}"


if __name__ == "__main__":
    main()
