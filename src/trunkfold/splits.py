"""Hold-out and folds: photos of one group are never separated, and nothing but the split's own options moves them."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from trunkfold.config import SplitConfig
from trunkfold.errors import InputError, first_few
from trunkfold.table import read_text_table

HELD_OUT = -1
LEGACY_SHARE, LEGACY_SEED = 0.135, 42  # the arguments that student projects gave to train_test_split


def read_groups(groups: str, table: pd.DataFrame, problems: list[str]) -> pd.Series:
    """Group of each labelled photo.

    Args:
        groups: "none", where each photo is a group of its own, or a CSV file with image_id and group, and perhaps set
            (train or test) where ids of both sets overlap.
        table: Labelled photos; image_id is read.
        problems: Collects the photos that the file lacks.

    Returns:
        Texts, indexed as `table`.

    Raises:
        InputError: The file is missing or cannot be read.
    """
    if groups == "none":
        return table["image_id"].rename("group")
    file = read_text_table(Path(groups), ["image_id", "group"])
    if "set" in file:
        file = file[file["set"] == "train"]
    repeated = file.loc[file["image_id"].duplicated(), "image_id"]
    if len(repeated):
        raise InputError(f"{groups}: {len(repeated)} values of image_id occur twice or more: {first_few(repeated)}")
    found = table["image_id"].map(file.set_index("image_id")["group"])
    missing = table.loc[found.isna() | (found == ""), "image_id"]
    if len(missing):
        problems.append(f"{groups} has no group for {len(missing)} labelled photos: {first_few(missing)}")
    return found.fillna("").rename("group")


def check_split(table: pd.DataFrame, split: SplitConfig, problems: list[str]) -> None:
    """Collect the classes that have too few groups to be in every fold and in the hold-out.

    Args:
        table: Labelled photos with label and group.
    """
    share = LEGACY_SHARE if split.holdout == "legacy" else split.holdout
    for label, groups in table[table["label"] != ""].groupby("label")["group"].nunique().items():
        if groups - math.ceil(groups * share) < split.folds:
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
        0 .. folds - 1, or -1 for held-out photos, indexed as `table`.
    """
    fold = pd.Series(HELD_OUT, index=table.index, name="fold")
    if split.holdout == "legacy":
        rest, _ = train_test_split(table.index, test_size=LEGACY_SHARE, random_state=LEGACY_SEED)
    else:
        rest = table.index.difference(_held_out(table, split))
    learning = table.loc[rest].sort_values("image_id")
    folder = StratifiedGroupKFold(split.folds, shuffle=True, random_state=split.seed)
    groups = pd.factorize(learning["group"])[0]
    for number, (_, validation) in enumerate(folder.split(learning, learning["label"], groups)):
        fold[learning.index[validation]] = number
    return fold


def _held_out(table: pd.DataFrame, split: SplitConfig) -> pd.Index:
    """Rows of a stratified random share of the groups, each group counted for its most frequent label."""
    if split.holdout == 0:
        return table.index[:0]
    ordered = table.sort_values("image_id")
    codes = pd.factorize(ordered["group"])[0]
    majority = ordered.groupby(codes)["label"].agg(lambda labels: labels.mode()[0])
    chosen = _stratified_choice(majority, split)
    return ordered.index[np.isin(codes, chosen)]


def _stratified_choice(labels: pd.Series, split: SplitConfig) -> np.ndarray:
    try:
        _, chosen = train_test_split(labels.index, test_size=split.holdout, random_state=split.seed, stratify=labels)
    except ValueError as error:  # fewer groups held out than there are classes
        raise InputError(
            f"split.holdout {split.holdout} of {len(labels)} groups cannot hold every class ({error}): "
            "raise it, or set it to 0 for no hold-out"
        ) from error
    return np.asarray(chosen)
