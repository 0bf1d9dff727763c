"""Hold-out and folds that keep groups together, determined by the split options alone."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from trunkfold.config.schema import SplitConfig
from trunkfold.errors import InputError

HELD_OUT, ONLY_LEARNED = -1, -2
VALIDATED = 0.16  # share of validation photos with a single fold
LEGACY_SHARE, LEGACY_SEED = 0.135, 42  # arguments of train_test_split in student projects


def split_problems(table: pd.DataFrame, split: SplitConfig) -> Iterator[str]:
    """Yield the classes with too few groups for every fold and the hold-out.

    Args:
        table: Labelled photos with image_id, label and group.
    """
    share = LEGACY_SHARE if split.holdout == "legacy" else split.holdout
    units = table.assign(unit=_units(table, split))
    for label, groups in units[units["label"] != ""].groupby("label")["unit"].nunique().items():
        if groups - math.ceil(groups * share) < max(split.folds, 2):
            yield (
                f"class {label!r} has {groups} groups of photos, too few for {split.folds} folds and a hold-out of "
                f"{share:.1%}: lower split.folds or split.holdout, or remove the class"
            )


def assign_folds(table: pd.DataFrame, split: SplitConfig) -> pd.Series:
    """Assign a fold to each labelled photo, stratified by class.

    Folds depend only on ids, labels, groups and `split`, not on the order of rows or the names of groups (except
    "legacy", which is defined by the order).

    Args:
        table: Labelled photos with image_id, label and group.

    Returns:
        0 .. folds - 1, or -1 for held-out photos, indexed like `table`. With a single fold, 0 marks the 16 % for
        validation and -2 the photos that are only trained on.
    """
    fold, legacy = pd.Series(HELD_OUT, index=table.index, name="fold"), split.holdout == "legacy"
    if legacy:
        rest, _ = train_test_split(table.index, test_size=LEGACY_SHARE, random_state=LEGACY_SEED)
    else:
        rest = table.index.difference(_stratified_share(table, split, split.holdout) if split.holdout else [])
    if split.folds == 1:
        fold[rest] = ONLY_LEARNED
        if legacy:
            _, validating = train_test_split(rest, test_size=VALIDATED, random_state=LEGACY_SEED)
        else:
            validating = _stratified_share(table.loc[rest], split, VALIDATED)
        fold[validating] = 0
        return fold
    learning = table.loc[rest].sort_values("image_id")
    folder = StratifiedGroupKFold(split.folds, shuffle=True, random_state=split.seed)
    groups = pd.factorize(_units(learning, split))[0]
    for number, (_, validation) in enumerate(folder.split(learning, learning["label"], groups)):
        fold[learning.index[validation]] = number
    return fold


def learned_from(fold_of_row: np.ndarray) -> np.ndarray:
    """Return the mask (rows,) of training rows: all but held-out, or with a single fold all but validation rows."""
    only_learned = fold_of_row == ONLY_LEARNED
    return only_learned if only_learned.any() else fold_of_row != HELD_OUT


def _units(table: pd.DataFrame, split: SplitConfig) -> pd.Series:
    """Return the units of the split: groups, or single photos with split.groups none."""
    return table["image_id" if split.groups == "none" else "group"]


def _stratified_share(table: pd.DataFrame, split: SplitConfig, share: float) -> pd.Index:
    """Return the rows of a random share of the groups, stratified by each group's most frequent label."""
    ordered = table.sort_values("image_id")
    codes = pd.factorize(_units(ordered, split))[0]
    labels = ordered.groupby(codes)["label"].agg(lambda labels: labels.mode()[0])
    try:
        _, chosen = train_test_split(labels.index, test_size=share, random_state=split.seed, stratify=labels)
    except ValueError as error:  # fewer groups held out than there are classes
        raise InputError(
            f"a hold-out or validation set of {share:.1%} of {len(labels)} groups cannot contain every class "
            f"({error}): raise split.holdout, or set it to 0 and use at least two split.folds"
        ) from error
    return ordered.index[np.isin(codes, chosen)]


def scoring_members(fold_of_row: np.ndarray, folds: int) -> np.ndarray:
    """Return the mask of tails that were not trained on a photo, for `trunkfold.model.ensemble.predict`.

    Args:
        fold_of_row: Fold of each row, -1 for held-out rows, -2 for rows that no tail scores.
        folds: Number of tails.

    Returns:
        bool of shape (rows, folds): the tail of the photo's own fold, or all tails for a held-out photo.
    """
    return (fold_of_row[:, None] == np.arange(folds)) | (fold_of_row[:, None] == HELD_OUT)
