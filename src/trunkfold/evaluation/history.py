"""The training history of a run, checked when read."""

import pandas as pd

from trunkfold.csv_table import read_text_table
from trunkfold.errors import InputError, first_few
from trunkfold.run_folder import RunFolder

KEYS = ["epoch", "fold"]
VALUES = ["train_loss", "val_loss", "val_accuracy", "val_macro_f1", "lr_tail", "lr_head", "seconds"]


def read_history(run: RunFolder) -> pd.DataFrame | None:
    """Read history.csv, one row per epoch and fold: epoch and fold as integers, all values as float; None if missing.

    Raises:
        InputError: The file was edited or is damaged.
    """
    if not run.history.exists():
        return None
    history = read_text_table(run.history, [*KEYS, *VALUES])[[*KEYS, *VALUES]]
    for column in KEYS:
        _refuse(run, history.loc[~history[column].str.fullmatch(r"\d{1,6}"), column], "an integer")
    values = history[VALUES].apply(pd.to_numeric, errors="coerce")
    for column in VALUES:
        _refuse(run, history.loc[values[column].isna() & (history[column] != ""), column], "a number")
    return history[KEYS].astype(int).join(values.astype(float))


def _refuse(run: RunFolder, wrong: pd.Series, kind: str) -> None:
    if len(wrong):
        raise InputError(f"{run.history}: {wrong.name} must be {kind}, not {first_few(wrong.unique())}")
