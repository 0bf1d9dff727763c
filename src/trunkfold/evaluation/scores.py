"""Scores of predictions: accuracy, F1, confusion, and intervals that account for copies."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from trunkfold.assessment import ClassScores, Interval, Intervals, PartScores, Scores
from trunkfold.evaluation.calibration import mean_log_loss
from trunkfold.evaluation.predictions import class_indices

RESAMPLES = 1000
COVERAGE = 0.95


def validation_scores(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Compute val_loss, val_accuracy and val_macro_f1 of class indices (rows,) by probabilities (rows, classes)."""
    predicted = probabilities.argmax(1)
    classes = np.arange(probabilities.shape[1])
    return {
        "val_loss": mean_log_loss(targets, probabilities),
        "val_accuracy": float(accuracy_score(targets, predicted)),
        "val_macro_f1": float(f1_score(targets, predicted, labels=classes, average="macro", zero_division=0)),
    }


def score(predictions: pd.DataFrame, groups: pd.Series, classes: dict[str, str]) -> Scores:
    """Score a table with image_id, label and prediction; intervals resample whole groups, which image_id indexes."""
    labels, names = list(classes), list(classes.values())
    truth, predicted = predictions["label"], predictions["prediction"]
    columns = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    per_class = {
        name: ClassScores(*map(float, values[:3]), support=int(values[3]))
        for name, *values in zip(names, *columns, strict=True)
    }
    group_of_row = predictions["image_id"].map(groups)
    return Scores(
        **vars(part_scores(predictions, labels)),
        groups=int(group_of_row.nunique()),
        intervals=bootstrap_intervals(truth, predicted, group_of_row, labels),
        per_class=per_class,
        confusion_matrix=confusion_matrix(truth, predicted, labels=labels).tolist(),
    )


def part_scores(predictions: pd.DataFrame, labels: Iterable[str]) -> PartScores:
    """Score a subset of photos (label and prediction), without intervals.

    Macro F1 is the mean over `labels`; a label that is neither true nor predicted for any photo counts as 0.
    """
    truth, predicted = predictions["label"], predictions["prediction"]
    f1 = f1_score(truth, predicted, labels=list(labels), average="macro", zero_division=0)
    return PartScores(len(predictions), float(accuracy_score(truth, predicted)), float(f1))


def bootstrap_intervals(truth: pd.Series, predicted: pd.Series, groups: pd.Series, labels: list[str]) -> Intervals:
    """Compute 95 % intervals of accuracy and macro F1 with a percentile bootstrap over whole groups.

    The bootstrap is seeded: the same table gives the same intervals.
    """
    of_groups = counts_of_groups(truth, predicted, groups, labels)
    drawn = draw_groups(of_groups)
    hits, _, true = drawn.sum(2).T
    accuracy = hits / true
    f1 = macro_f1_of_draws(drawn, whole=of_groups.sum(0))
    return Intervals(interval(accuracy), interval(f1))


def paired_difference(
    truth: pd.Series, predicted_a: pd.Series, predicted_b: pd.Series, groups: pd.Series, labels: list[str]
) -> dict[str, float]:
    """Compare two predictions of the same photos, with the same index, by a paired bootstrap over whole groups.

    Returns:
        difference (macro F1 of a minus that of b), low and high (95 % interval). The bootstrap is seeded.
    """
    (of_a, drawn_a), (of_b, drawn_b) = (  # the same seed draws the same groups
        bootstrap_macro_f1(counts_of_groups(truth, predicted, groups, labels))
        for predicted in (predicted_a, predicted_b)
    )
    low, high = interval(drawn_a - drawn_b)
    return {"difference": of_a - of_b, "low": low, "high": high}


def bootstrap_macro_f1(of_groups: np.ndarray, seed: int = 0) -> tuple[float, np.ndarray]:
    """Compute the macro F1 of all groups, and of bootstrap samples of the groups.

    Args:
        of_groups: See `counts_of_groups`.
        seed: Determines the drawn groups, for any counts of as many groups.
    """
    whole = of_groups.sum(0)
    return float(macro_f1_of_draws(whole[None], whole)[0]), macro_f1_of_draws(draw_groups(of_groups, seed), whole)


def macro_f1_of_draws(drawn: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Compute the macro F1 of each bootstrap sample: shape (draws,).

    A class missing from both labels and predictions of a sample is excluded there; a class missing from the whole table
    counts as 0, as in `score`.

    Args:
        drawn: Counts of each sample, of shape (draws, 3, classes), see `counts_of_groups`.
        whole: Counts of all photos, of shape (3, classes).
    """
    hits = drawn[:, 0]
    sizes = drawn[:, 1:].sum(1)
    averaged = (sizes > 0) | (whole[1:].sum(0) == 0)
    f1 = np.divide(2 * hits, sizes, out=np.zeros(hits.shape), where=sizes > 0)
    return f1.sum(1) / averaged.sum(1)


def interval(values: np.ndarray) -> Interval:
    """Return the interval that contains the central 95 % of simulated values."""
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]).tolist()
    return low, high


def counts_of_groups(truth: pd.Series, predicted: pd.Series, groups: pd.Series, labels: list[str]) -> np.ndarray:
    """Count each group's hits, predictions and photos of each class: shape (groups, 3, classes).

    Scores need no more of a confusion matrix, whose size grows with the square of the classes.
    """
    true, chosen = class_indices(truth, labels), class_indices(predicted, labels)
    codes, kinds = pd.factorize(groups)
    counts = np.zeros((len(kinds), 3, len(labels)))
    for place, (class_of_row, weight) in enumerate([(true, true == chosen), (chosen, 1), (true, 1)]):
        np.add.at(counts, (codes, place, class_of_row), weight)
    return counts


def draw_groups(of_groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Sum over bootstrap samples of the groups: shape (draws, ...) for `of_groups` of shape (groups, ...)."""
    groups, rng = len(of_groups), np.random.default_rng(seed)
    flat, shares = of_groups.reshape(groups, -1), np.full(groups, 1 / groups)
    # Sampling n groups with replacement is sampling their multiplicities; done in parts to save memory.
    drawn = [rng.multinomial(groups, shares, RESAMPLES // 20) @ flat for _ in range(20)]
    return np.concatenate(drawn).reshape(RESAMPLES, *of_groups.shape[1:])
