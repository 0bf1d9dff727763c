"""What `train.cached_views` costs in score and saves in time: 1, 4 and 8 kept views against fresh ones, equal epochs.

    python tests/benchmarks/bench_cached_views.py
    python tests/benchmarks/bench_cached_views.py --pretrain DIR --data DIR --size 96 --seeds 0 1

Pretrained weights would need a network, so a small trunk learns on one competition first (--pretrain; drawn by
default), and its last stage is then tuned on photos that it never saw (--data; drawn with another seed). Prints a table
of out-of-fold macro F1 (split by groups.csv) and seconds; --json FILE writes it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from machine import Table, device_name
from safetensors.torch import save_file

from trunkfold.config.parsing import load_config
from trunkfold.demo.competition import DemoOptions, make_demo
from trunkfold.model.ensemble import load_ensemble

SOURCE = Path(__file__).parents[2] / "src"
CONFIG = SOURCE.parent / "configs" / "demo.yaml"
VIEWS = (0, 1, 4, 8)


def main() -> None:
    """Pretrain, tune with each number of views and each seed, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrain", type=Path, help="Competition that the trunk learns on.")
    parser.add_argument("--data", type=Path, help="Competition that the tails are tuned on, with a groups.csv.")
    parser.add_argument("--size", type=int, default=48, help="Side of the photos that the model sees.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--pretrain-epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "trunkfold-bench-views")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pretrain = (options.pretrain or draw(options.work / "pretrain", seed=1)).resolve()
    data = (options.data or draw(options.work / "data", seed=0)).resolve()

    weights = options.work.resolve() / f"trunk-{pretrain.name}-{options.size}-{options.pretrain_epochs}.safetensors"
    if not weights.exists():
        run = train(options.work, pretrain, "pretrained", options.size, options.pretrain_epochs)
        export(run, weights)
    rows = []
    for views in VIEWS:
        results = []
        for seed in options.seeds:
            tuned = ["--model.weights", weights, "--model.tune", "block", "--model.tune_stages", 1]
            tuned += ["--augment", "standard", "--train.cached_views", views, "--train.seed", seed]
            run = train(options.work, data, f"views-{views}-seed-{seed}", options.size, options.epochs, *tuned)
            metrics = json.loads((run / "metrics.json").read_text())
            seconds = metrics["seconds"]
            results.append((metrics["oof"]["macro_f1"], seconds["features"], seconds["training"]))
        columns = np.array(results).T.tolist()
        rows.append({"views": views, **dict(zip(("macro_f1", "features", "training"), columns, strict=True))})
    report(rows, options)


def report(rows: list[dict], options: argparse.Namespace) -> None:
    """Print the table, and write it."""
    fresh = np.mean(rows[0]["training"])
    cells = [
        [
            f"{row['views']} kept" if row["views"] else "fresh",
            f"{np.mean(row['macro_f1']):.3f} ± {np.std(row['macro_f1']):.3f}",
            f"{np.mean(row['features']):.1f}",
            f"{np.mean(row['training']):.1f}",
            f"{fresh / np.mean(row['training']):.1f}",
        ]
        for row in rows
    ]
    device = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(f"\n{options.epochs} epochs at {options.size} px, seeds {options.seeds}; {device}")
    print(Table(["views", "out-of-fold macro F1", "features, s", "training, s", "times as fast"], cells))
    if options.json:
        settings = {name: str(value) for name, value in vars(options).items()}
        options.json.write_text(json.dumps({"device": device, "options": settings, "rows": rows}, indent=2) + "\n")


def draw(root: Path, seed: int) -> Path:
    """A demo competition, drawn once."""
    make_demo(root, DemoOptions(seed=seed))
    return root


def train(work: Path, root: Path, name: str, size: int, epochs: int, *options: object) -> Path:
    """Run train_folds.py, with the demo's configuration and true groups, in a process of its own."""
    words = ["--config", CONFIG, "--data.root", root, "--split.groups", root / "groups.csv", "--data.classes", "null"]
    words += ["--data.image_size", size, "--train.epochs", epochs, "--run.name", name, "--run.restart", "true"]
    with tempfile.TemporaryDirectory() as cache:  # empty, so that every run computes what it needs
        command = [sys.executable, SOURCE / "train_folds.py", *words, "--cache.dir", cache, *options]
        subprocess.run(list(map(str, command)), cwd=work, check=True, stdout=subprocess.DEVNULL)
    return work / "submissions" / name


def export(run: Path, path: Path) -> None:
    """Write the first fold's whole model as a file of timm's names."""
    config = load_config(run / "config.yaml")
    backbone, tails = load_ensemble(run, config, len(config.data.classes))
    state = {**backbone.trunk.state_dict(), **tails[0].state_dict()}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


if __name__ == "__main__":
    main()
