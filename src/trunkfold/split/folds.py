"""Hold-out and folds: photos of one group are never separated, and nothing but the split's own options moves them."""

import math

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from trunkfold.config.schema import SplitConfig
from trunkfold.errors import InputError

HELD_OUT, ONLY_LEARNED = -1, -2
VALIDATED = 0.16  # share of the photos that validate where there is one fold
LEGACY_SHARE, LEGACY_SEED = 0.135, 42  # the arguments that student projects gave to train_test_split


def check_split(table: pd.DataFrame, split: SplitConfig, problems: list[str]) -> None:
    """Collect the classes that have too few groups to be in every fold and in the hold-out.

    Args:
        table: Labelled photos with image_id, label and group.
    """
    share = LEGACY_SHARE if split.holdout == "legacy" else split.holdout
    units = table.assign(unit=_units(table, split))
    for label, groups in units[units["label"] != ""].groupby("label")["unit"].nunique().items():
        if groups - math.ceil(groups * share) < max(split.folds, 2):
            problems.append(
                f"class {label!r} has {groups} groups of photos, too few for {split.folds} folds and a hold-out of "
                f"{share:.1%}: lower split.folds or split.holdout, or leave the class out"
            )


def assign_folds(table: pd.DataFrame, split: SplitConfig) -> pd.Series:
    """Fold of each labelled photo.

    Stratified by class; depends on the ids, labels and groups, on `split` and on nothing else, also not on the order
    of the rows or the names of the groups (but "legacy", which is defined by the order).

    Args:
        table: Labelled photos with image_id, label and group.

    Returns:
        0 .. folds - 1, or -1 for held-out photos, indexed as `table`. With one fold, 0 marks the 16 % that validate it
        and -2 the others, which are only learned from.
    """
    fold = pd.Series(HELD_OUT, index=table.index, name="fold")
    if split.holdout == "legacy":
        rest, _ = train_test_split(table.index, test_size=LEGACY_SHARE, random_state=LEGACY_SEED)
    else:
        rest = table.index.difference(_held_out(table, split))
    if split.folds == 1:
        fold[rest] = ONLY_LEARNED
        fold[_validating(table.loc[rest], split)] = 0
        return fold
    learning = table.loc[rest].sort_values("image_id")
    folder = StratifiedGroupKFold(split.folds, shuffle=True, random_state=split.seed)
    groups = pd.factorize(_units(learning, split))[0]
    for number, (_, validation) in enumerate(folder.split(learning, learning["label"], groups)):
        fold[learning.index[validation]] = number
    return fold


def learned_from(fold_of_row: np.ndarray) -> np.ndarray:
    """Which rows some tail learns from: of K folds all but the held-out ones, of one fold those that do not validate.

    Returns:
        bool of shape (rows,).
    """
    only_learned = fold_of_row == ONLY_LEARNED
    return only_learned if only_learned.any() else fold_of_row != HELD_OUT


def _units(table: pd.DataFrame, split: SplitConfig) -> pd.Series:
    """What is never divided: groups, or with split.groups none the single photos."""
    return table["image_id" if split.groups == "none" else "group"]


def _held_out(table: pd.DataFrame, split: SplitConfig) -> pd.Index:
    return _stratified_share(table, split, split.holdout) if split.holdout else table.index[:0]


def _validating(table: pd.DataFrame, split: SplitConfig) -> pd.Index:
    if split.holdout == "legacy":
        return train_test_split(table.index, test_size=VALIDATED, random_state=LEGACY_SEED)[1]
    return _stratified_share(table, split, VALIDATED)


def _stratified_share(table: pd.DataFrame, split: SplitConfig, share: float) -> pd.Index:
    """Rows of a stratified random share of the groups, each group counted for its most frequent label."""
    ordered = table.sort_values("image_id")
    codes = pd.factorize(_units(ordered, split))[0]
    majority = ordered.groupby(codes)["label"].agg(lambda labels: labels.mode()[0])
    chosen = _stratified_choice(majority, split, share)
    return ordered.index[np.isin(codes, chosen)]


def _stratified_choice(labels: pd.Series, split: SplitConfig, share: float) -> np.ndarray:
    try:
        _, chosen = train_test_split(labels.index, test_size=share, random_state=split.seed, stratify=labels)
    except ValueError as error:  # fewer groups held out than there are classes
        raise InputError(
            f"a hold-out or validation set of {share:.1%} of {len(labels)} groups cannot hold every class ({error}): "
            "raise split.holdout, or set it to 0 for no hold-out, and take more split.folds than one"
        ) from error
    return np.asarray(chosen)


def scoring_members(fold_of_row: np.ndarray, folds: int) -> np.ndarray:
    """Which tails score a labelled photo without having seen it, for `trunkfold.model.ensemble.predict`.

    Args:
        fold_of_row: Fold of each row, -1 for held-out ones, -2 for those that no tail scores.
        folds: Number of tails.

    Returns:
        bool of shape (rows, folds): the tail of its own fold, and of a held-out photo all.
    """
    return (fold_of_row[:, None] == np.arange(folds)) | (fold_of_row[:, None] == HELD_OUT)
