"""Consensus of copies: one prediction for all photos of a group, or the label of a labelled copy."""

import numpy as np
import pandas as pd


def average_groups(probabilities: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Give each row the mean probabilities (rows, classes) of its group; "" is a photo without copies."""
    shared = pd.DataFrame(probabilities).groupby(groups).transform("mean").to_numpy()
    return np.where((groups == "")[:, None], probabilities, shared)


def average_in_folds(probabilities: np.ndarray, folds: pd.DataFrame) -> np.ndarray:
    """Give each labelled photo the mean probabilities of its group, if all of it is in one fold or all held out.

    If a split divides groups, some of their photos are predicted by tails trained on the others. Probabilities have the
    shape (rows, classes).
    """
    undivided = folds.groupby("group")["fold"].transform("nunique") == 1
    return average_groups(probabilities, folds["group"].where(undivided, "").to_numpy())


def labels_of_copies(groups: pd.Series, folds: pd.DataFrame) -> pd.Series:
    """Return the label of each photo's labelled copies.

    Args:
        groups: Group of each unlabelled photo, "" if unknown.
        folds: group and label of each labelled photo.

    Returns:
        Labels, indexed like `groups`; missing without labelled copies, or if their labels conflict.
    """
    of_group = folds.groupby("group")["label"]
    agreed = of_group.first()[of_group.nunique() == 1]
    return groups.map(agreed).astype(object).where(groups != "")
