"""Tables of predictions with image ids, checked when created and when read."""

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from trunkfold.csv_table import read_text_table
from trunkfold.errors import InputError, first_few
from trunkfold.run_folder import RunFolder
from trunkfold.split.folds import HELD_OUT

PREFIX = "p_"
FOLDS_COLUMNS = ["image_id", "filename", "label", "group", "fold"]


def probability_table(image_ids: pd.Series, probabilities: np.ndarray, classes: dict[str, str]) -> pd.DataFrame:
    """Build a table with image_id and p_<class name> of each class.

    Args:
        image_ids: Distinct ids, one per row.
        probabilities: Of shape (rows, classes).

    Raises:
        RuntimeError: Ids repeat, or probabilities are not finite or do not sum to 1 (a bug).
    """
    sums = probabilities.sum(1)
    if image_ids.duplicated().any() or not np.allclose(sums, 1, atol=1e-3):  # also detects NaN
        raise RuntimeError("predictions are invalid: duplicate ids, or probabilities that do not sum to 1")
    columns = {PREFIX + name: probabilities[:, place] for place, name in enumerate(classes.values())}
    return pd.DataFrame({"image_id": image_ids.to_numpy(), **columns})


def scored_table(
    folds: pd.DataFrame, probabilities: np.ndarray, classes: dict[str, str], labels: pd.Series
) -> pd.DataFrame:
    """Build a table of predictions and true labels: image_id, fold, label, prediction, p_<class name> ...

    Args:
        folds: image_id, fold and label.
        probabilities: Of shape (rows, classes), in the same order.
        labels: The decoded labels, in the same order, see `trunkfold.evaluation.decoding`.
    """
    table = probability_table(folds["image_id"], probabilities, classes)
    table.insert(1, "fold", folds["fold"].to_numpy())
    table.insert(2, "label", folds["label"].to_numpy())
    table.insert(3, "prediction", labels.to_numpy())
    return table


def read_predictions(path: Path, classes: dict[str, str]) -> pd.DataFrame:
    """Read a table of predictions: numbers in the p_ columns, strings in all others.

    Raises:
        InputError: The file is missing or damaged, or has different classes.
    """
    columns = [PREFIX + name for name in classes.values()]
    table = read_text_table(path, ["image_id", *columns])
    try:
        table[columns] = table[columns].astype(float)
    except ValueError as error:
        raise InputError(f"{path}: {error} in the columns of probabilities ({first_few(columns)})") from error
    repeated = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(repeated):
        raise InputError(f"{path}: duplicate image_id: {first_few(repeated)}")
    shares = probabilities_of(table, classes)  # an array, because pandas ignores NaN in sums
    bad = table.loc[~(np.isclose(shares.sum(1), 1, atol=1e-3) & (shares >= 0).all(1)), "image_id"]
    if len(bad):
        raise InputError(f"{path}: probabilities are negative or do not sum to 1 for image_id {first_few(bad)}")
    return table


def read_scored(run: RunFolder, name: str, folds: pd.DataFrame, classes: dict[str, str]) -> pd.DataFrame | None:
    """Read a run's predictions of one of `SETS`, with label and prediction; None if `folds` has no photo of this set.

    Raises:
        InputError: The file is missing or damaged, or lists other photos than `folds`.
    """
    scored = folds.loc[folds["fold"] == HELD_OUT if name == "holdout" else folds["fold"] >= 0, "image_id"]
    if scored.empty:
        return None
    path = run.predictions(name)
    table = read_predictions(path, classes)
    for column in ("label", "prediction"):
        if column not in table or not table[column].isin(list(classes)).all():
            raise InputError(f"{path} is damaged: the column {column} is missing or contains unknown labels")
    if len(scored) != len(table) or not table["image_id"].isin(scored).all():
        others = run.folds if run.folds.exists() else f"{run.folds.name} of the averaged runs"
        raise InputError(f"{path} and {others} list different photos: restore the files that training wrote")
    return table


def read_folds(path: Path, classes: Collection[str] | None = None) -> pd.DataFrame:
    """Read a run's folds.csv: image_id, filename, label and group as text, fold as an integer.

    Raises:
        InputError: The file is missing or damaged, or contains a label that is not among `classes`, if they are given.
    """
    folds = read_text_table(path, FOLDS_COLUMNS)
    wrong = folds.loc[~folds["fold"].str.fullmatch(r"-?\d{1,3}"), "fold"]
    if len(wrong):
        raise InputError(f"{path}: fold must be an integer, not {first_few(wrong.unique())}")
    repeated = folds.loc[folds["image_id"].duplicated(), "image_id"]
    if len(repeated):
        raise InputError(f"{path}: duplicate image_id: {first_few(repeated)}")
    unknown = folds[:0] if classes is None else folds[~folds["label"].isin(list(classes))]
    if len(unknown):
        named = first_few(f"{row.label!r} of image_id {row.image_id}" for row in unknown.itertuples())
        raise InputError(f"{path}: unknown label {named}: restore the file that training wrote")
    return folds.astype({"fold": int})


def probabilities_of(table: pd.DataFrame, classes: dict[str, str]) -> np.ndarray:
    """Return the p_ columns as an array of shape (rows, classes)."""
    return table[[PREFIX + name for name in classes.values()]].to_numpy(float)


def class_indices(labels: pd.Series, classes: Iterable[str]) -> np.ndarray:
    """Return the class index of each label, of shape (rows,).

    Raises:
        RuntimeError: A label is of no class (a bug).
    """
    found = pd.Index(list(classes)).get_indexer(labels)
    if (found < 0).any():  # as an index, -1 would be the last class
        raise RuntimeError(f"labels of no class: {first_few(labels[found < 0].unique())}")
    return found


def average(predicted: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Average the probabilities of each row over views and tails.

    Args:
        predicted: Result of `trunkfold.model.ensemble.predict`, of shape (views, rows, K, classes).
        members: bool of shape (rows, K): the tails to average, among those that predicted.

    Returns:
        float64 of shape (rows, classes); NaN in rows without a tail.
    """
    sums = predicted.sum((0, 2), dtype=np.float64, where=members[None, :, :, None])
    with np.errstate(invalid="ignore"):
        return sums / (len(predicted) * members.sum(1))[:, None]
