"""Label corrections after a review: photos to exclude and photos to relabel."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from trunkfold.config.schema import Config, DataConfig
from trunkfold.csv_table import read_text_table
from trunkfold.data.tables import class_names
from trunkfold.errors import InputError, counted, first_few
from trunkfold.run_folder import SUBMISSIONS


def correct_labels(table: pd.DataFrame, data: DataConfig) -> tuple[pd.DataFrame, dict[str, int], list[str]]:
    """Exclude the photos of `Competition.train` that `data.drop` lists, and relabel those of `data.relabel`.

    Returns:
        The remaining rows in the same order, the number of photos "dropped" and "relabelled", and the problems of the
        files' rows; invalid rows are ignored.

    Raises:
        InputError: A file is missing or lacks a column, or no photo is left.
    """
    drop, relabel = _read_listed(data.drop, ["image_id"]), _read_listed(data.relabel, ["image_id", "suggestion"])
    problems = [*_row_problems(f"data.drop {data.drop}", drop, table)]
    problems += _row_problems(f"data.relabel {data.relabel}", relabel, table)
    both = drop.loc[drop["image_id"].isin(relabel["image_id"]), "image_id"]
    if len(both):
        problems.append(f"data.drop and data.relabel both list image_id {first_few(both)}: remove it from one of them")
    classes = class_names(table["label"], data.classes)
    known = relabel["suggestion"].isin(classes)
    for suggestion, rows in relabel[~known].groupby("suggestion"):
        problems.append(
            f"data.relabel {data.relabel}: suggestion {suggestion!r} of image_id "
            f"{first_few(rows['image_id'])} is not one of the labels ({first_few(classes)})"
        )
    suggested = relabel[known].drop_duplicates("image_id").set_index("image_id")["suggestion"]
    label = table["image_id"].map(suggested).astype(object).fillna(table["label"])
    kept = table.assign(label=label)[~table["image_id"].isin(drop["image_id"])]
    if kept.empty:
        raise InputError(f"data.drop {data.drop} lists every photo of train.csv: no photo is left to train on")
    counts = {"dropped": len(table) - len(kept), "relabelled": int((label != table["label"]).sum())}
    return kept.reset_index(drop=True), counts, problems


def check_corrections_stay(config: Config) -> None:
    """Raise an `InputError` if a file of corrections is in the folder of the run that this run replaces."""
    if not config.run.restart:
        return
    folder = SUBMISSIONS / config.run.name
    for option, path in {"data.drop": config.data.drop, "data.relabel": config.data.relabel}.items():
        if path is not None and path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{option} {path} would be deleted with the earlier run in {folder}: move it, for example to "
                "configs/, or choose another --run.name"
            )


def _read_listed(path: Path | None, columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns=columns, dtype=str) if path is None else read_text_table(path, columns)


def _row_problems(file: str, listed: pd.DataFrame, table: pd.DataFrame) -> Iterator[str]:
    ids = listed["image_id"]
    repeated = ids[ids.duplicated()].unique()
    if len(repeated):
        yield f"{file}: {counted(len(repeated), 'duplicate image_id')}: {first_few(repeated)}"
    known = ids.isin(table["image_id"])
    if not known.all():
        yield f"{file}: {counted(int((~known).sum()), 'image_id')} not in train.csv: {first_few(ids[~known])}"
    if "label" in listed:
        given = ids.map(table.drop_duplicates("image_id").set_index("image_id")["label"])
        other = ids[known & (listed["label"] != given)]
        if len(other):
            yield (
                f"{file}: label differs from train.csv for image_id {first_few(other)}: the file was written for "
                "different labels; review these photos again, then correct or remove the column label"
            )
