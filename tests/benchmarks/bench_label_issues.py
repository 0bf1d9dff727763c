"""Measure precision and recall of suspected labels on the demo competition with corrupted labels.

    python tests/benchmarks/bench_label_issues.py

Some groups receive a wrong label as a whole, and of some others a single copy. Prints the precision and recall of
label_issues.csv, and how often its suggestion is the true label.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from machine import Table

from trunkfold.csv_table import read_text_table
from trunkfold.data.tables import Competition
from trunkfold.demo.competition import DemoOptions, make_demo
from trunkfold.evaluation.label_issues import find_label_issues
from trunkfold.evaluation.predictions import read_folds, read_predictions
from trunkfold.files import write_csv
from trunkfold.run_folder import RunFolder

SOURCE = Path(__file__).parents[2] / "src"
CONFIG = SOURCE.parent / "configs" / "demo.yaml"


def main() -> None:
    """Draw the competition, corrupt labels, train, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.05, help="Share of groups that receive a wrong label.")
    parser.add_argument("--copies", type=int, default=15, help="Number of other groups with one wrong copy.")
    parser.add_argument("--photos", type=int, default=DemoOptions.photos)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "trunkfold-bench-labels")
    options = parser.parse_args()
    root = options.work.resolve() / f"demo-{options.photos}"
    make_demo(root, DemoOptions(photos=options.photos))
    spoilt = spoil(root, options.share, options.copies)
    write_csv(spoilt, options.work / "spoilt.csv")
    report(train(options.work, root, options.epochs), spoilt)


def spoil(root: Path, share: float, copies: int) -> pd.DataFrame:
    """Choose photos and wrong labels: image_id, label (the true one), suggestion (the wrong one)."""
    rng, table = np.random.default_rng(0), Competition(root).train
    group_of = read_text_table(root / "groups.csv", ["image_id", "group"]).set_index("image_id")["group"]
    table["group"] = table["image_id"].map(group_of)
    names, labels = np.unique(table["group"]), np.unique(table["label"])

    def spoilt(photos: pd.DataFrame) -> pd.DataFrame:
        return photos.assign(suggestion=rng.choice(labels[labels != photos["label"].iloc[0]]))

    whole = rng.choice(names, round(share * len(names)), replace=False)
    parts = [spoilt(table[table["group"] == name]) for name in whole]
    single = rng.choice(np.setdiff1d(names, whole), copies, replace=False)
    parts += [spoilt(table[table["group"] == name][1:2]) for name in single]
    return pd.concat(parts)[["image_id", "label", "suggestion"]]


def train(work: Path, root: Path, epochs: int) -> Path:
    """Run train_folds.py with the wrong labels and the true groups, in a separate process."""
    words = ["--config", CONFIG, "--data.root", root, "--split.groups", root / "groups.csv", "--train.epochs", epochs]
    words += ["--data.relabel", "spoilt.csv", "--run.name", "spoilt", "--run.restart", "true"]
    subprocess.run(list(map(str, [sys.executable, SOURCE / "train_folds.py", *words])), cwd=work, check=True)
    return work / "submissions" / "spoilt"


def report(run: Path, spoilt: pd.DataFrame) -> None:
    """Print the table."""
    metrics = RunFolder(run).read_metrics()
    folds = read_folds(RunFolder(run).folds, metrics.classes)
    oof = read_predictions(RunFolder(run).predictions("oof"), metrics.classes)
    truth = spoilt.set_index("image_id")["label"]
    suspected = find_label_issues(oof, folds, metrics.classes)
    hits = suspected[suspected["image_id"].isin(spoilt["image_id"])]
    wrong = int(oof["image_id"].isin(spoilt["image_id"]).sum())
    restored = (hits["suggestion"] == hits["image_id"].map(truth)).mean()
    header = ["photos", "corrupted", "suspected", "precision", "recall", "suggestion is the true label", "macro F1"]
    shares = [len(hits) / max(len(suspected), 1), len(hits) / wrong, restored, metrics.oof.macro_f1]
    print(Table(header, [[str(n) for n in (len(oof), wrong, len(suspected))] + [f"{share:.2f}" for share in shares]]))


if __name__ == "__main__":
    main()
