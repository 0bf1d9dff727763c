"""Labels from probabilities: the most probable class, or the labels with the highest expected macro F1."""

from typing import Literal

import numpy as np
import pandas as pd

from trunkfold.evaluation.calibration import fit_temperature, scale
from trunkfold.evaluation.predictions import class_indices
from trunkfold.split.folds import HELD_OUT

Metric = Literal["macro_f1", "accuracy"]
STARTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # powers of the class shares that divide the initial probabilities
ROUNDS = 100


def decode(probabilities: np.ndarray, metric: Metric, temperature: float = 1.0) -> np.ndarray:
    """Choose a class for each photo of a set: class indices, of shape (rows,).

    `accuracy` selects the most probable class. `macro_f1` maximises the expected macro F1 of the set: with n_k photos
    labelled k, D_k = n_k + sum of p_k, and F_k = 2 (sum of p_k over photos labelled k) / D_k, moving a photo to class k
    gains (2 p_k - F_k) / D_k, so that labels are the fixed point of its argmax (Lipton et al. 2014, arXiv 1402.1892).
    Starting from the argmax of the probabilities ends in a poor fixed point if a rare class is never the most probable
    one, so the best result of several starts is kept.

    Args:
        probabilities: Of shape (rows, classes).
        temperature: See `trunkfold.evaluation.calibration.scale`; only `macro_f1` depends on it.
    """
    if metric == "accuracy" or not len(probabilities):
        return probabilities.argmax(1)
    scaled = scale(probabilities, temperature)
    shares = scaled.mean(0)
    found = [_improve(scaled, (scaled / shares**power).argmax(1)) for power in STARTS]
    return max(found, key=lambda labels: _expected_f1(scaled, labels)[0].mean())


def decode_labelled(
    probabilities: np.ndarray, folds: pd.DataFrame, classes: dict[str, str], metric: Metric
) -> pd.Series:
    """Decode out-of-fold and held-out photos as separate sets, without using their own labels.

    The temperature for a fold is fitted on the other folds, that for the hold-out on all folds.

    Args:
        probabilities: Of shape (rows, classes); rows of fold -2 may be NaN.
        folds: label and fold of each row, -1 for held-out photos, -2 for photos that are only trained on.

    Returns:
        Labels, indexed like `folds`; meaningless for fold -2.
    """
    truth, fold_of_row = class_indices(folds["label"], classes), folds["fold"].to_numpy()
    scored, held_out = fold_of_row >= 0, fold_of_row == HELD_OUT
    found = np.zeros(len(folds), int)
    if metric == "accuracy":
        found[scored | held_out] = probabilities[scored | held_out].argmax(1)
    else:
        calibrated = probabilities.astype(float, copy=True)
        for fold in np.unique(fold_of_row[scored]):
            own, others = fold_of_row == fold, scored & (fold_of_row != fold)
            rows = others if others.any() else own  # with a single fold there are no others
            calibrated[own] = scale(probabilities[own], fit_temperature(truth[rows], probabilities[rows]))
        found[scored] = decode(calibrated[scored], metric)
        if held_out.any():
            temperature = fit_temperature(truth[scored], probabilities[scored])
            found[held_out] = decode(probabilities[held_out], metric, temperature)
    return pd.Series(np.array(list(classes))[found], folds.index)


def _improve(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Iterate from initial labels to a fixed point, and return those with the highest expected macro F1 on the way."""
    best, best_score = labels, -np.inf
    for _ in range(ROUNDS):
        f1, sizes = _expected_f1(probabilities, labels)
        if f1.mean() > best_score:
            best, best_score = labels, f1.mean()
        moved = ((2 * probabilities - f1) / sizes).argmax(1)
        if (moved == labels).all():
            break
        labels = moved
    return best


def _expected_f1(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F_k and D_k of each class."""
    classes = probabilities.shape[1]
    hits = np.bincount(labels, probabilities[np.arange(len(labels)), labels], classes)
    sizes = np.bincount(labels, minlength=classes) + probabilities.sum(0)
    return 2 * hits / sizes.clip(1e-12), sizes.clip(1e-12)
