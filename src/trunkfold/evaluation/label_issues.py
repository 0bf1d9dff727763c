"""Possible label errors: photos whose out-of-fold prediction or whose copies contradict the label.

Confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068) as cleanlab implements it.
"""

import numpy as np
import pandas as pd
from cleanlab import filter as confident_learning

from trunkfold.evaluation.predictions import class_indices, probabilities_of

MODEL, COPIES, BOTH = "the model disagrees", "its copies disagree", "the model and its copies disagree"


def find_label_issues(oof: pd.DataFrame, folds: pd.DataFrame, classes: dict[str, str]) -> pd.DataFrame:
    """Find photos whose label may be wrong.

    Args:
        oof: Out-of-fold predictions: image_id, label, p_<class name> ...
        folds: image_id, filename and group of all labelled photos.

    Returns:
        One row per suspected photo, the least likely label first: image_id, filename, label (as given), suggestion (the
        majority label of its copies if only they disagree, otherwise the most probable class), p_label and
        p_suggestion (out-of-fold probabilities), group and reason.
    """
    rows, labels = np.arange(len(oof)), np.array(list(classes))
    known = folds.set_index("image_id").loc[oof["image_id"]]
    probabilities = probabilities_of(oof, classes)
    given = class_indices(oof["label"], classes)
    group = known["group"].to_numpy()
    doubted, shared = _doubted(given, probabilities), _labels_of_groups(given, probabilities, group)
    apart = given != shared
    suggested = np.where(doubted, probabilities.argmax(1), shared)
    issues = pd.DataFrame(
        {
            "image_id": oof["image_id"].to_numpy(),
            "filename": known["filename"].to_numpy(),
            "label": oof["label"].to_numpy(),
            "suggestion": labels[suggested],
            "p_label": probabilities[rows, given].round(4),
            "p_suggestion": probabilities[rows, suggested].round(4),
            "group": group,
            "reason": np.select([doubted & apart, doubted], [BOTH, MODEL], COPIES),
        }
    )[doubted | apart]
    margin = issues["p_label"] - issues["p_suggestion"]
    return issues.loc[margin.sort_values(kind="stable").index].reset_index(drop=True)


def _doubted(given: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return whether confident learning suspects each label: bool of shape (rows,)."""
    if len(np.unique(given)) < 2:  # cleanlab requires two classes
        return np.zeros(len(given), bool)
    # The most precise of cleanlab's filters: the photos of each class with the lowest margins.
    return confident_learning.find_label_issues(given, probabilities, filter_by="low_normalized_margin", n_jobs=1)


def _labels_of_groups(given: np.ndarray, probabilities: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the majority class of each row's group; ties are broken by mean probability."""
    votes = pd.DataFrame(np.eye(probabilities.shape[1])[given]).groupby(group).transform("sum")
    means = pd.DataFrame(probabilities).groupby(group).transform("mean")
    return (2 * votes + means).to_numpy().argmax(1)  # means only break ties of votes
