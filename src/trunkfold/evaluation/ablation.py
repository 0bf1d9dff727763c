"""Ablation: scores without each part of the predictions, computed from existing predictions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from trunkfold.evaluation.consensus import average_in_folds
from trunkfold.evaluation.decoding import Metric, decode_labelled
from trunkfold.evaluation.predictions import average
from trunkfold.evaluation.scores import paired_difference, part_scores
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
) -> tuple[Ablation, list[pd.Series]]:
    """Score a run's predictions without each of their parts.

    Args:
        predicted: Predictions of the labelled photos, see `trunkfold.model.ensemble.predict`.
        folds: image_id, label, group and fold of each labelled photo.
        consensus: Whether copies share their mean prediction.
        raw: Predictions with raw instead of averaged weights, of the same shape; None without averaging.

    Returns:
        Scores and gain without each part, see `trunkfold.evaluation.scores.paired_difference`, and of each single tail;
        and the labels of the held-out photos by each single tail, none without a hold-out.
    """
    tails, fold_of_row = np.arange(predicted.shape[2]), folds["fold"].to_numpy()
    scoring, held_out = scoring_members(fold_of_row, len(tails)), fold_of_row == HELD_OUT

    def labels(predicted=predicted, members=scoring, consensus=consensus, metric=metric) -> pd.Series:
        mean = average(predicted, members)  # NaN in rows without a tail, whose labels are not used
        return decode_labelled(average_in_folds(mean, folds) if consensus else mean, folds, classes, metric)

    everything, without = labels(), {}
    if "plain" in views and len(views) > 1:
        plain, others = list(views).index("plain"), ", ".join(view for view in views if view != "plain")
        without[f"test-time augmentation ({others})"] = labels(predicted[[plain]])
    if consensus:
        without[CONSENSUS] = labels(consensus=False)
    if raw is not None:
        without[EMA] = labels(raw)
    if metric != "accuracy":
        without[DECODING] = labels(metric="accuracy")
    oof = _gains(everything, without, folds, fold_of_row >= 0, classes)
    if not held_out.any():
        return Ablation(oof, None, None), []
    # Out-of-fold photos keep their predictions, because the hold-out's temperature is fitted on them.
    in_folds = ~held_out[:, None]
    for tail in tails if len(tails) > 1 else ():
        without[f"fold {tail}"] = labels(members=scoring & ((tails != tail) | in_folds))
    alone = [labels(members=scoring & ((tails == tail) | in_folds))[held_out] for tail in tails]
    scores = [part_scores(folds[held_out].assign(prediction=chosen), classes) for chosen in alone]
    singles = [Alone(f"fold {tail} alone", found.macro_f1, found.accuracy) for tail, found in enumerate(scores)]
    return Ablation(oof, _gains(everything, without, folds, held_out, classes), singles), alone


def _gains(
    everything: pd.Series, without: dict[str, pd.Series], folds: pd.DataFrame, rows: np.ndarray, classes: dict[str, str]
) -> list[Gain]:
    """Return the loss in some rows' scores without each part."""
    table, shown = [], folds[rows]
    for part, rest in without.items():
        paired = paired_difference(shown["label"], everything[rows], rest[rows], shown["group"], list(classes))
        scores, interval = part_scores(shown.assign(prediction=rest[rows]), classes), (paired["low"], paired["high"])
        table.append(Gain(part, scores.macro_f1, scores.accuracy, paired["difference"], interval))
    return table
