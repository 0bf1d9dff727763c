"""What a split leaks: how well photos are predicted whose copies were learned from, against those without."""

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score

from trunkfold.split.folds import learned_from


def has_learned_copy(folds: pd.DataFrame) -> np.ndarray:
    """Whether what predicts a photo has learned from a copy of it.

    An out-of-fold photo is predicted by the tail of its fold, which learned from all other folds (or from the photos of
    no fold, where there is one); a held-out one (fold -1) by the tails of all folds.

    Args:
        folds: group and fold of each labelled photo.

    Returns:
        bool of shape (photos,).
    """
    learning = folds[learned_from(folds["fold"].to_numpy())]
    copies = folds["group"].map(learning["group"].value_counts()).fillna(0).to_numpy()
    in_fold = learning.groupby(["group", "fold"]).size()
    not_learned = in_fold.reindex(pd.MultiIndex.from_frame(folds[["group", "fold"]])).fillna(0).to_numpy()
    return copies > not_learned


def score_leak(predictions: pd.DataFrame, leaked: np.ndarray) -> dict[str, dict[str, float] | None]:
    """Scores of photos with and without a copy that was learned from.

    Args:
        predictions: label and prediction.
        leaked: bool by row, see `has_learned_copy`.

    Returns:
        with_copies and without_copies: photos, accuracy and macro_f1 (over the classes that are there); null where
        there are no such photos.
    """
    return {
        "with_copies": _scores(predictions[leaked]),
        "without_copies": _scores(predictions[~leaked]),
    }


def _scores(predictions: pd.DataFrame) -> dict[str, float] | None:
    if predictions.empty:
        return None
    truth, predicted = predictions["label"], predictions["prediction"]
    return {
        "photos": len(predictions),
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_f1": float(f1_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0)),
    }
