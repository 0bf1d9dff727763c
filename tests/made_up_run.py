"""A synthetic finished run of any size, with all files and metrics of the report, without training."""

import json
import re
import tempfile
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from toys import argmax_table

from trunkfold.config.schema import Config
from trunkfold.evaluation.error_analysis import Gallery
from trunkfold.evaluation.evaluate import assess_run
from trunkfold.evaluation.predictions import read_folds, read_predictions
from trunkfold.files import write_csv, write_text
from trunkfold.metrics import Metrics, Parameters, Split, from_json
from trunkfold.output.blending import blend_runs, weigh_runs
from trunkfold.output.test_predictions import SubmissionRun, choose_output
from trunkfold.report.console import summary
from trunkfold.report.contents import read_findings
from trunkfold.report.page import write_report
from trunkfold.run_folder import RunFolder

CLASSES = {"1": "crack", "2": "<script>alert(1)</script>", "3": "$\\oops$ & up"}


def make_predictions(rows: int, first_id: int, fold: list[int], classes: dict[str, str] = CLASSES) -> pd.DataFrame:
    """Labels by turns; every fourth photo is taken for the first class, the later the surer."""
    number = np.arange(rows) % len(classes)
    predicted = np.where(np.arange(rows) % 4 == 1, 0, number)
    probabilities = np.full((rows, len(classes)), 0.5 / len(classes))
    sure = 0.4 + 0.5 * np.arange(rows) / rows
    probabilities *= ((1 - sure) / (0.5 - 0.5 / len(classes)))[:, None]
    probabilities[np.arange(rows), predicted] = sure
    ids = [str(first_id + row) for row in range(rows)]
    folds = pd.DataFrame({"image_id": ids, "fold": fold, "label": np.array(list(classes))[number]})
    return argmax_table(folds, probabilities, classes)


def make_run(
    folder: Path,
    choice: str = "groups.csv",
    copies: int = 3,
    divided: str = "",
    rows: tuple[int, int] = (60, 24),
    classes: dict[str, str] = CLASSES,
    name: str = "made <up>",
) -> Path:
    """A run of two folds and three epochs with its tables and a submission, and without pictures.

    Args:
        folder: Where it lies.
        choice: split.groups.
        copies: Photos of a group.
        divided: Sets whose first twelve photos are copies of photos in both folds.
        rows: Photos in the folds, and held out.
        classes: Name of each label.
        name: Of the run's folder.
    """
    run = folder / name
    (run / "figures").mkdir(parents=True)
    for file, content in _files(choice, copies, divided, rows, tuple(classes.items())).items():
        (run / file).write_bytes(content)
    return run


@cache
def _files(
    choice: str, copies: int, divided: str, rows: tuple[int, int], named: tuple[tuple[str, str], ...]
) -> dict[str, bytes]:
    """Contents of the files of such a run by name; scoring it takes most of the time of many a test."""
    with tempfile.TemporaryDirectory() as folder:
        _score(Path(folder), choice, copies, divided, rows, dict(named))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def _score(run: Path, choice: str, copies: int, divided: str, rows: tuple[int, int], classes: dict[str, str]) -> None:
    oof = make_predictions(rows[0], 0, [0, 1] * (rows[0] // 2), classes)
    holdout = make_predictions(rows[1], rows[0], [-1] * rows[1], classes)
    folds = pd.concat([oof, holdout], ignore_index=True)[["image_id", "label", "fold"]]
    folds.insert(1, "filename", [f"{image_id}.jpg" for image_id in folds["image_id"]])
    folds["group"] = [f"{row // (copies * 2)} of {fold}" for row, fold in enumerate(folds["fold"])]
    for table, title in ((oof, "oof"), (holdout, "holdout")):
        if title in divided:
            folds.loc[folds["image_id"].isin(table["image_id"][:12]), "group"] = "divided"
        write_csv(table, run / f"{title}.csv")
    write_csv(folds, run / "folds.csv")
    metrics = Metrics(
        **vars(assess_run(oof, holdout, folds, classes, test_photos=50, alone=[holdout["prediction"]] * 2)),
        classes=classes,
        split=Split(choice, folds=2, holdout=0.135, seed=42),
        parameters=Parameters(trainable=14399238, total=27920000),
        seconds={"reading photos": 1.25, "training": 61.7},
        images_per_second=123.4,
    )
    RunFolder(run, write=True).save(metrics, run / "metrics.json")
    history = pd.DataFrame({"epoch": [1, 1, 2, 2, 3, 3], "fold": [0, 1] * 3})
    for column in ("train_loss", "val_loss", "val_accuracy", "val_macro_f1", "lr_tail", "lr_head", "seconds"):
        history[column] = (
            np.linspace(0.1, 0.9, 6) if column in ("val_accuracy", "val_macro_f1") else np.linspace(0.9, 0.1, 6)
        )
    write_csv(history, run / "history.csv")
    first, *_, last = classes
    (run / "submission.csv").write_text(f"image_id,label\n101,{first}\n102,{last}\n103,{last}\n")


def extra_metrics() -> dict:
    """What metrics.json also holds in newer runs: made-up numbers, each of them another one."""
    edges = np.linspace(0.4, 0.9, 26)
    bell = np.exp(-(((edges[:-1] - 0.65) / 0.07) ** 2))
    bins = [{"confidence": 0.05 + 0.1 * n, "accuracy": 0.1 + 0.07 * n, "photos": 5 * n} for n in range(10)]
    part = {"ece": 0.1234, "nll": 0.9876, "ece_scaled": 0.0432, "nll_scaled": 0.8765, "bins": bins, "bins_scaled": bins}
    row = {"part": "mirrored view (TTA)", "macro_f1": 0.6543, "accuracy": 0.7654, "gain": 0.0123}
    worse = {"part": "consensus", "macro_f1": 0.6789, "accuracy": 0.7777, "gain": -0.0111, "interval": [-0.02, -0.003]}
    return {
        "calibration": {"temperature": 1.357, "oof": part, "holdout": {**part, "ece": 0.2345}},
        "luck": {
            "photos": 4800,
            "public_share": 0.3,
            "simulations": 10000,
            "public": {"mean": 0.651, "low": 0.512, "high": 0.787},
            "private": {"mean": 0.652, "low": 0.561, "high": 0.743},
            "difference": {"low": -0.131, "high": 0.129},
            "histogram": {"edges": edges.tolist(), "public": (900 * bell).tolist(), "private": (999 * bell).tolist()},
            "told_apart": [{"agreement": 0.8, "difference": 0.037}, {"agreement": 0.9, "difference": 0.026}],
        },
        "ablation": {
            "oof": [{**row, "interval": [0.001, 0.024]}],
            "holdout": [{**row, "gain": 0.0321, "interval": [-0.01, 0.05]}, worse],
            "folds_alone": [{"part": "fold 0", "macro_f1": 0.6111, "accuracy": 0.7111}],
        },
        "made_with": {
            "versions": {"python": "3.11.7", "torch": "2.9.1", "peft": None},
            "commit": "0123456789ab-dirty",
            "device": "a GPU <fast>",
            "processes": 2,
            "precision": "bf16",
            "memory_gib": {"process": 3.21, "gpu": 12.34},
            "data": {
                "sizes": {
                    "photos": 84,
                    "width": [48, 640, 999],
                    "height": [36, 480, 888],
                    "frequent": {"640 x 480": 70, "48 x 36": 14},
                },
                "group_sizes": {"1": 5, "3": 26},
            },
        },
    }


def report_on(run: Path) -> None:
    """Write the report of a run's folder."""
    write_report(read_findings(RunFolder(run, write=True)))


def summary_of(run: Path) -> str:
    """The summary of a run's folder."""
    return summary(RunFolder(run), RunFolder(run).read_metrics())


def blend(paths: list[Path], weights: list[float] | None = None, name: str | None = None) -> Path:
    """Average runs as src/make_submission.py does, of what they predicted before."""
    runs = []
    for path in paths:
        run = RunFolder(path)
        metrics = run.read_metrics()
        folds = read_folds(run.folds, metrics.classes)
        runs.append(SubmissionRun(run, Config(), metrics, folds, competition=None))
    shares, out = weigh_runs(runs, weights), choose_output(runs, name)
    tables = [read_predictions(run.folder.test_probabilities, run.metrics.classes) for run in runs]
    table, metrics = blend_runs(runs, tables, shares, out)
    out.save(table, out.test_probabilities)
    out.save(metrics, out.metrics)
    return out.path


def metrics_of(run: Path) -> dict:
    """A run's metrics.json."""
    return json.loads((run / "metrics.json").read_text())


def typed(**changed: object) -> Metrics:
    """Metrics with some keys given as JSON has them."""
    values = {"format": 1, "classes": CLASSES, "split": {"groups": "none", "folds": 2, "holdout": 0, "seed": 42}}
    return from_json(json.dumps({**values, **changed}).encode())


def mistaken_rows(gallery: Gallery) -> list[int]:
    return [row for table in gallery.mistakes.values() for row in table["row"].tolist()]


def add_pictures(run: Path) -> None:
    """Thumbnails of all photos that the report shows, as large as real ones."""
    rng = np.random.default_rng(0)
    gallery = read_findings(RunFolder(run)).gallery
    (run / "figures/photos").mkdir(parents=True)
    names = [str(row) for row in gallery.rows] + [f"{row}-cam" for row in mistaken_rows(gallery)]
    for name in names:
        clouds = sum(cv2.resize(rng.normal(0, 40, (side, side, 3)), (208, 156)) for side in (4, 16, 64))
        cv2.imwrite(str(run / f"figures/photos/{name}.jpg"), (128 + clouds).clip(0, 255).astype(np.uint8))


def change_metrics(run: Path, **changed: object) -> dict:
    """Replace some keys of a run's metrics.json, and give all of it."""
    metrics = {**json.loads((run / "metrics.json").read_text()), **changed}
    write_text(json.dumps(metrics), run / "metrics.json")
    return metrics


def read_page(run: Path) -> tuple[str, dict]:
    """The page without its pictures and styles, and the run's metrics."""
    page = (run / "report.html").read_text(encoding="utf-8")
    page = re.sub(r'src="data:[^"]*"|<style>.*?</style>', "", page, flags=re.S)
    return page, json.loads((run / "metrics.json").read_text())
