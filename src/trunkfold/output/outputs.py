"""Files written by training: inputs, tuned weights, predictions for labelled photos, metrics."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from accelerate import Accelerator
from torch import nn

from trunkfold.config.parsing import dump_config
from trunkfold.config.schema import Config
from trunkfold.evaluation.ablation import CONSENSUS, ablate
from trunkfold.evaluation.consensus import average_in_folds
from trunkfold.evaluation.decoding import Metric, decode_labelled
from trunkfold.evaluation.evaluate import assess_run
from trunkfold.evaluation.label_issues import find_label_issues
from trunkfold.evaluation.predictions import average, scored_table
from trunkfold.images.augmentation import Augmentation
from trunkfold.images.contact_sheet import draw_sheet
from trunkfold.metrics import Consensus, Metrics, Split
from trunkfold.model.backbone import Backbone
from trunkfold.model.ensemble import predict, save_fold, save_shared
from trunkfold.model.features import FeatureBatches, FeatureSource
from trunkfold.model.parts import Tail
from trunkfold.run_folder import RunFolder
from trunkfold.split.dataset import Labelled
from trunkfold.split.folds import HELD_OUT, scoring_members


def save_inputs(run: RunFolder, config: Config, labelled: Labelled, backbone: Backbone, augment: Augmentation) -> None:
    """Write the run's inputs: configuration with classes, folds, groups, shared weights, and augmented samples."""
    # Without run.restart: training again with this configuration would delete the run.
    own = replace(config.run, restart=False)
    resolved = replace(config, data=replace(config.data, classes=labelled.classes), run=own)
    run.save(dump_config(resolved), run.config)
    run.save(labelled.table, run.folds)
    run.save(labelled.groups, run.groups)
    save_shared(run, backbone)
    rows = [int(np.flatnonzero(labelled.targets == place)[0]) for place in range(len(labelled.classes))]
    run.save(draw_sheet(labelled.pixels, rows, list(labelled.classes.values()), augment), run.augmented)


def save_tails(run: RunFolder, history: pd.DataFrame, tails: Sequence[Tail]) -> None:
    """Write the trained tails of all folds and the history."""
    run.save(history, run.history)
    for fold, tail in enumerate(tails):
        save_fold(run, fold, tail)


def predict_labelled(
    accelerator: Accelerator,
    tails: Sequence[nn.Module],
    raw: Sequence[nn.Module],
    source: FeatureSource,
    clean: FeatureBatches,
    labelled: Labelled,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Predict every labelled photo with the tails not trained on it, in all configured views.

    Args:
        tails: Merged tails of all folds.
        raw: Merged tails with raw instead of averaged weights; empty without averaging.
        source: Features of the labelled photos.
        clean: Cached features of the plain view.

    Returns:
        Predictions of `tails`, and of `raw` or None, see `trunkfold.model.ensemble.predict`.
    """
    views = [
        clean if view == "plain" else source.batches(labelled.rows_by_fold, view, f"predicting, {view}")
        for view in source.config.predict.views
    ]
    members = scoring_members(labelled.fold_of_row, len(tails))
    predicted = predict(accelerator, [*tails, *raw], np.hstack([members, members] if raw else [members]), views)
    return predicted[:, :, : len(tails)], predicted[:, :, len(tails) :] if raw else None


def save_scored(
    run: RunFolder, folds: pd.DataFrame, probabilities: np.ndarray, classes: dict[str, str], metric: Metric
) -> dict[str, pd.DataFrame]:
    """Decode the probabilities of all rows of `folds`, and write and return the table of each set that has photos."""
    labels, fold_of_row, tables = decode_labelled(probabilities, folds, classes, metric), folds["fold"].to_numpy(), {}
    for name, rows in {"oof": fold_of_row >= 0, "holdout": fold_of_row == HELD_OUT}.items():
        if rows.any():
            tables[name] = scored_table(folds[rows], probabilities[rows], classes, labels[rows])
            run.save(tables[name], run.predictions(name))
    return tables


def save_results(
    run: RunFolder,
    config: Config,
    labelled: Labelled,
    predicted: np.ndarray,
    raw: np.ndarray | None = None,
    **facts: object,
) -> Metrics:
    """Write oof.csv, holdout.csv, label_issues.csv and metrics.json.

    Args:
        predicted: Predictions of the tails, see `predict_labelled`.
        raw: Predictions with raw weights; None without averaging.
        facts: Further fields of the metrics: parameters, weights, made_with, seconds, images_per_second.
    """
    folds, classes = labelled.table, labelled.classes
    probabilities = average(predicted, scoring_members(labelled.fold_of_row, predicted.shape[2]))
    if config.predict.consensus:
        probabilities = average_in_folds(probabilities, folds)
    tables = save_scored(run, folds, probabilities, classes, config.decode.metric)
    run.save(find_label_issues(tables["oof"], folds, classes), run.label_issues)
    how = config.predict.views, config.predict.consensus, config.decode.metric
    ablation, alone = ablate(predicted, folds, classes, *how, raw)
    by_set = {"oof": ablation.oof, "holdout": ablation.holdout or []}
    gains = {name: row.gain for name, rows in by_set.items() for row in rows if row.part == CONSENSUS}
    assessment = assess_run(tables["oof"], tables.get("holdout"), folds, classes, labelled.test_photos, alone)
    metrics = Metrics(
        **vars(assessment),
        classes=classes,
        split=Split(**asdict(config.split)),
        ablation=ablation,
        consensus=Consensus(gains) if config.predict.consensus else None,
        search_key=labelled.search_key,
        **facts,
    )
    run.save(metrics, run.metrics)
    return metrics
