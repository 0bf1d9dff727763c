"""Blending of runs: probabilities are averaged by image_id, and scored if the runs share a split."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from trunkfold.assessment import Assessment
from trunkfold.errors import InputError
from trunkfold.evaluation.evaluate import assess_run
from trunkfold.evaluation.predictions import probabilities_of, probability_table, read_scored
from trunkfold.metrics import Metrics
from trunkfold.output.outputs import save_scored
from trunkfold.output.test_predictions import Predictions, SubmissionRun, save_submission
from trunkfold.run_folder import SETS, RunFolder

logger = logging.getLogger(__name__)
SPLIT_COLUMNS = ["image_id", "label", "fold"]


def weigh_runs(runs: Sequence[SubmissionRun], weights: Sequence[float] | None = None) -> list[float]:
    """Return the share of each run in an average.

    Args:
        weights: One weight per run; None weights all runs equally.

    Raises:
        InputError: A run is listed twice, the runs have different classes, or the weights are invalid.
    """
    first: dict[Path, RunFolder] = {}
    for run in runs:
        if (same := first.setdefault(run.folder.path.resolve(), run.folder)) is not run.folder:
            names = " and ".join(dict.fromkeys([str(same), str(run.folder)]))
            raise InputError(
                f"--run lists the same run twice, {names}: pass it once, with a higher --weights if intended"
            )
        if run.metrics.classes != runs[0].metrics.classes:
            raise InputError(
                f"{run.folder} and {runs[0].folder} have different classes: average runs of one competition only"
            )
    if weights is not None and len(runs) == 1:
        raise InputError("--weights requires several runs: pass their folders after --run")
    weights = [1.0] * len(runs) if weights is None else list(weights)
    if len(weights) != len(runs):
        raise InputError(f"--weights has {len(weights)} numbers for {len(runs)} runs: pass one per run")
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or sum(weights) == 0:
        raise InputError(f"--weights {weights} must not be negative, and not all zero")
    return [weight / sum(weights) for weight in weights]


def save_submissions(
    runs: Sequence[SubmissionRun],
    predictions: Sequence[Predictions],
    shares: Sequence[float],
    out: RunFolder,
    copy_labels: bool | None,
) -> None:
    """Write the submission of a run, or of the average of several runs, with its tables.

    See `weigh_runs` for `shares`, `choose_output` for `out`, and `save_submission` for `copy_labels`.
    """
    found = predictions[0]
    if len(runs) > 1:
        for run, own in zip(runs, predictions, strict=True):
            if run.folder.write:
                run.folder.save(own.table, run.folder.test_probabilities)
                run.folder.save(own.metrics, run.folder.metrics)
        table, metrics = blend_runs(runs, [own.table for own in predictions], shares, out)
        found = replace(found, table=table, metrics=metrics)  # in the same order
    elif out is not runs[0].folder:
        out.copy_tables(runs[0].folder)
        found = replace(found, metrics=replace(found.metrics, runs={str(runs[0].folder): 1.0}))
    save_submission(runs[0], found, out, copy_labels)


def blend_runs(
    runs: Sequence[SubmissionRun], tables: Sequence[pd.DataFrame], shares: Sequence[float], out: RunFolder
) -> tuple[pd.DataFrame, Metrics]:
    """Average the predictions of finished runs.

    Args:
        runs: Runs with oof.csv, and possibly holdout.csv.
        tables: Probabilities of the test photos for each run.
        shares: See `weigh_runs`.
        out: Output folder; receives oof.csv and holdout.csv if all runs have the same split. Otherwise, the blend has
            no unbiased score, and a warning is logged.

    Returns:
        The mean probabilities of the test photos, and the metrics of the blend.

    Raises:
        InputError: The runs predicted different test photos.
    """
    classes = runs[0].metrics.classes
    names = [str(run.folder.test_probabilities) for run in runs]
    ids, probabilities = _average(tables, names, shares, classes)
    out.remove_tables()  # of other runs that were written to this folder before
    metrics = Metrics(
        **vars(_assess(runs, shares, out, len(ids))),
        classes=classes,
        split=runs[0].metrics.split,
        runs={str(run.folder): share for run, share in zip(runs, shares, strict=True)},
    )
    return probability_table(ids, probabilities, classes), metrics


def _average(
    tables: Sequence[pd.DataFrame], names: Sequence[str], shares: Sequence[float], classes: dict[str, str]
) -> tuple[pd.Series, np.ndarray]:
    """Return the ids in the first table's order, and the weighted mean of all tables' probabilities."""
    ids, total = tables[0]["image_id"], 0.0
    for table, name, share in zip(tables, names, shares, strict=True):
        if set(table["image_id"]) != set(ids):
            raise InputError(f"{name} and {names[0]} list different photos")
        total = total + share * probabilities_of(table.set_index("image_id").loc[ids], classes)
    return ids.reset_index(drop=True), total


def _assess(runs: Sequence[SubmissionRun], shares: Sequence[float], out: RunFolder, test_photos: int) -> Assessment:
    splits = [run.folds[SPLIT_COLUMNS].sort_values("image_id", ignore_index=True) for run in runs]
    if not all(split.equals(splits[0]) for split in splits):
        logger.warning("the runs have different splits, so the blend has no unbiased score and is not scored")
        return Assessment()
    folds, classes = runs[0].folds, runs[0].metrics.classes
    probabilities = np.full((len(folds), len(classes)), np.nan)  # of photos that are only trained on
    for name in SETS:
        read = [read_scored(run.folder, name, run.folds, classes) for run in runs]
        if read[0] is not None:
            paths = [str(run.folder.predictions(name)) for run in runs]
            ids, averaged = _average(read, paths, shares, classes)
            probabilities[pd.Index(folds["image_id"]).get_indexer(ids)] = averaged
    tables = save_scored(out, folds, probabilities, classes, runs[0].config.decode.metric)
    return assess_run(tables["oof"], tables.get("holdout"), folds, classes, test_photos)
