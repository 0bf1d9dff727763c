"""Several runs as one: their probabilities averaged by image_id, and scored where they share a split."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from trunkfold.config.rules import check_run_name
from trunkfold.errors import InputError
from trunkfold.evaluation.decoding import Metric, decode_labelled
from trunkfold.evaluation.evaluate import assess_run
from trunkfold.evaluation.predictions import (
    probabilities_of,
    probability_table,
    read_folds,
    read_predictions,
    scored_table,
)
from trunkfold.files import write_csv, write_json
from trunkfold.runs import SUBMISSIONS, read_metrics

logger = logging.getLogger(__name__)
SPLIT_COLUMNS = ["image_id", "label", "group", "fold"]


def blend_runs(
    runs: Sequence[Path],
    weights: Sequence[float] | None = None,
    name: str | None = None,
    metric: Metric = "macro_f1",
) -> Path:
    """Average the predictions of finished runs into a folder of its own.

    Args:
        runs: Folders with metrics.json, folds.csv, oof.csv and test_probabilities.csv.
        weights: One a run; None weighs them equally.
        name: Of the folder under submissions/; None joins the runs' names with "+".
        metric: What labels are decoded for.

    Returns:
        The folder, with test_probabilities.csv and metrics.json, and with oof.csv and holdout.csv where all runs have
        the same split (else no honest score of the blend exists, and a warning says so).

    Raises:
        InputError: Runs of different classes or test photos, weights that do not fit, or a name that is taken.
    """
    folder, shares, metrics = check_blend(runs, weights, name)
    classes = metrics[0]["classes"]
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("oof.csv", "holdout.csv"):
        (folder / file).unlink(missing_ok=True)  # of an earlier blend, which perhaps had one split
    ids, probabilities = _average(runs, "test_probabilities.csv", shares, classes)
    write_csv(probability_table(ids, probabilities, classes), folder / "test_probabilities.csv")
    write_json(
        {
            **_scores(runs, shares, classes, folder, len(ids), metric),
            "classes": classes,
            "split": metrics[0]["split"],
            "runs": {str(run): share for run, share in zip(runs, shares.tolist(), strict=True)},
        },
        folder / "metrics.json",
    )
    return folder


def check_blend(
    runs: Sequence[Path], weights: Sequence[float] | None = None, name: str | None = None
) -> tuple[Path, np.ndarray, list[dict]]:
    """The folder that `blend_runs` would make, the share of each run, and their metrics.

    Raises:
        InputError: Runs of different classes, weights that do not fit, or a name that is taken.
    """
    name = name or "+".join(run.name for run in runs)
    check_run_name("--name", name)
    folder = SUBMISSIONS / name
    if (folder / "config.yaml").exists():
        raise InputError(f"{folder} is a training run: give the blend another --name")
    shares = _shares(runs, weights)
    metrics = [read_metrics(run) for run in runs]
    for run, other in zip(runs, metrics, strict=True):
        if other["classes"] != metrics[0]["classes"]:
            raise InputError(f"{run} and {runs[0]} have different classes: they are not of one competition")
    return folder, shares, metrics


def _shares(runs: Sequence[Path], weights: Sequence[float] | None) -> np.ndarray:
    weights = [1.0] * len(runs) if weights is None else list(weights)
    if len(weights) != len(runs):
        raise InputError(f"--weights has {len(weights)} numbers for {len(runs)} runs: give one a run")
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or sum(weights) == 0:
        raise InputError(f"--weights {weights}: they must not be negative, and not all zero")
    return np.array(weights) / sum(weights)


def _average(
    runs: Sequence[Path], file: str, shares: np.ndarray, classes: dict[str, str]
) -> tuple[pd.Series, np.ndarray]:
    """Ids in the first run's order, and the weighted mean of all runs' probabilities for them."""
    tables = [read_predictions(run / file, classes).set_index("image_id", drop=False) for run in runs]
    ids = tables[0]["image_id"]
    for run, table in zip(runs, tables, strict=True):
        if set(table["image_id"]) != set(ids):
            raise InputError(f"{run / file} and {runs[0] / file} are about different photos")
    total = sum(share * probabilities_of(table.loc[ids], classes) for share, table in zip(shares, tables, strict=True))
    return ids.reset_index(drop=True), total


def _scores(
    runs: Sequence[Path], shares: np.ndarray, classes: dict[str, str], folder: Path, test_photos: int, metric: Metric
) -> dict:
    folds = [read_folds(run / "folds.csv")[SPLIT_COLUMNS] for run in runs]
    folds = [table.sort_values("image_id", ignore_index=True) for table in folds]
    if not all(table[["image_id", "label", "fold"]].equals(folds[0][["image_id", "label", "fold"]]) for table in folds):
        logger.warning("the runs have different splits: no honest score of their blend exists, none is given")
        return {"oof": None, "holdout": None, "folds": [], "leak": None, "calibration": None, "luck": None}
    truth = folds[0].set_index("image_id", drop=False)
    tables, parts = {}, []
    for name in ("oof", "holdout"):
        if (runs[0] / f"{name}.csv").exists():
            ids, probabilities = _average(runs, f"{name}.csv", shares, classes)
            parts.append((name, truth.loc[ids], probabilities))
    labels = decode_labelled(
        np.concatenate([probabilities for *_, probabilities in parts]),
        pd.concat([rows for _, rows, _ in parts]),
        classes,
        metric,
    )
    for name, rows, probabilities in parts:
        tables[name] = scored_table(rows, probabilities, classes, labels[rows.index])
        write_csv(tables[name], folder / f"{name}.csv")
    return assess_run(tables["oof"], tables.get("holdout"), folds[0], classes, test_photos)
