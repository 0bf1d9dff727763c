"""Ablation: scores without each part of the predictions, computed from existing predictions."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from trunkfold.evaluation.consensus import average_in_folds
from trunkfold.evaluation.decoding import Metric, decode_labelled
from trunkfold.evaluation.predictions import average
from trunkfold.evaluation.scores import macro_f1, paired_difference
from trunkfold.metrics import Ablation, Alone, Gain
from trunkfold.split.folds import HELD_OUT, scoring_members

CONSENSUS, EMA, DECODING = "consensus of copies", "weight averaging (EMA)", "decoding for macro F1"


def ablate(
    predicted: np.ndarray,
    folds: pd.DataFrame,
    classes: dict[str, str],
    views: Sequence[str],
    consensus: bool,
    metric: Metric,
    raw: np.ndarray | None = None,
) -> Ablation:
    """Score a run's predictions without each of their parts.

    Args:
        predicted: Predictions of the labelled photos, see `trunkfold.model.ensemble.predict`.
        folds: image_id, label, group and fold of each labelled photo.
        classes: Name of each label, in order.
        views: Names of the views.
        consensus: Whether copies share their mean prediction.
        metric: Metric that labels are decoded for.
        raw: Predictions with raw instead of averaged weights, of the same shape; None without averaging.

    Returns:
        Scores and gain without each part, see `trunkfold.evaluation.scores.paired_difference`, and of each single tail.
    """
    tails, fold_of_row = np.arange(predicted.shape[2]), folds["fold"].to_numpy()
    members, held_out = scoring_members(fold_of_row, len(tails)), fold_of_row == HELD_OUT
    labels = partial(label_photos, members=members, folds=folds, classes=classes, consensus=consensus, metric=metric)
    everything, without = labels(predicted), {}
    if "plain" in views and len(views) > 1:
        plain, others = list(views).index("plain"), ", ".join(view for view in views if view != "plain")
        without[f"test-time augmentation ({others})"] = labels(predicted[[plain]])
    if consensus:
        without[CONSENSUS] = labels(predicted, consensus=False)
    if raw is not None:
        without[EMA] = labels(raw)
    if metric != "accuracy":
        without[DECODING] = labels(predicted, metric="accuracy")
    oof = _gains(everything, without, folds, fold_of_row >= 0, classes)
    if not held_out.any():
        return Ablation(oof, None, None)
    others = {f"fold {tail}": members & ((tails != tail) | ~held_out[:, None]) for tail in tails if len(tails) > 1}
    without |= {part: labels(predicted, members=kept) for part, kept in others.items()}
    alone = label_by_single_tails(predicted, folds, classes, consensus, metric)
    return Ablation(
        oof,
        holdout=_gains(everything, without, folds, held_out, classes),
        folds_alone=[
            Alone(f"fold {tail} alone", **_scores(chosen, folds, held_out, classes))
            for tail, chosen in enumerate(alone)
        ],
    )


def label_photos(
    predicted: np.ndarray,
    members: np.ndarray,
    folds: pd.DataFrame,
    classes: dict[str, str],
    consensus: bool,
    metric: Metric,
) -> pd.Series:
    """Decode the mean of some tails' predictions; arguments as of `ablate` and `average`."""
    mean = average(predicted, members)  # NaN in rows without a tail, whose labels are not used
    mean = average_in_folds(mean, folds) if consensus else mean
    return decode_labelled(mean, folds, classes, metric)


def label_by_single_tails(
    predicted: np.ndarray, folds: pd.DataFrame, classes: dict[str, str], consensus: bool, metric: Metric
) -> list[pd.Series]:
    """Label all photos with only one tail predicting the hold-out, for each tail.

    Out-of-fold photos keep their predictions, because the hold-out's temperature is fitted on them.
    """
    tails, fold_of_row = np.arange(predicted.shape[2]), folds["fold"].to_numpy()
    held_out = (fold_of_row == HELD_OUT)[:, None]
    members = scoring_members(fold_of_row, len(tails))
    kept = (members & ((tails == tail) | ~held_out) for tail in tails)
    return [label_photos(predicted, part, folds, classes, consensus, metric) for part in kept]


def _gains(
    everything: pd.Series, without: dict[str, pd.Series], folds: pd.DataFrame, rows: np.ndarray, classes: dict[str, str]
) -> list[Gain]:
    """Return the loss in some rows' scores without each part."""
    table = []
    for part, rest in without.items():
        truth, groups = folds.loc[rows, "label"], folds.loc[rows, "group"]
        paired = paired_difference(truth, everything[rows], rest[rows], groups, list(classes))
        scores = _scores(rest, folds, rows, classes)
        table.append(Gain(part, **scores, gain=paired["difference"], interval=(paired["low"], paired["high"])))
    return table


def _scores(predicted: pd.Series, folds: pd.DataFrame, rows: np.ndarray, classes: dict[str, str]) -> dict[str, float]:
    table = folds[rows].assign(prediction=predicted[rows])
    right = float((table["label"] == table["prediction"]).mean())
    return {"macro_f1": macro_f1(table, classes), "accuracy": right}
