"""Label corrections after a review: photos to exclude and photos to relabel."""

from pathlib import Path

import pandas as pd

from trunkfold.config.schema import Config, DataConfig
from trunkfold.csv_table import read_text_table
from trunkfold.data.tables import class_names
from trunkfold.errors import InputError, counted, first_few
from trunkfold.run_folder import SUBMISSIONS


def correct_labels(table: pd.DataFrame, data: DataConfig, problems: list[str]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Leave out the photos of `data.drop`, and give those of `data.relabel` the label that is suggested there.

    Args:
        table: train.csv as `read_labelled` reads it.
        data: What names the two files.
        problems: Collects what is wrong with their rows.

    Returns:
        The table, its other rows in their order and with their index; and how many photos were "dropped" and
        "relabelled".

    Raises:
        InputError: A file is missing or lacks a column, or no photo is left.
    """
    drop = _read_listed("data.drop", data.drop, ["image_id"], table, problems)
    relabel = _read_listed("data.relabel", data.relabel, ["image_id", "suggestion"], table, problems)
    both = drop.loc[drop["image_id"].isin(relabel["image_id"]), "image_id"]
    if len(both):
        problems.append(f"data.drop and data.relabel both list image_id {first_few(both)}: remove it from one of them")
    classes = class_names(table["label"], data.classes)
    unknown = relabel[~relabel["suggestion"].isin(classes)]
    for suggestion, rows in unknown.groupby("suggestion"):
        problems.append(
            f"data.relabel {data.relabel}: suggestion {suggestion!r} of image_id {first_few(rows['image_id'])} "
            f"is not one of the labels ({first_few(classes)})"
        )
    suggested = relabel.drop(unknown.index).drop_duplicates("image_id").set_index("image_id")["suggestion"]
    label = table["image_id"].map(suggested).astype(object).fillna(table["label"])
    kept = table.assign(label=label)[~table["image_id"].isin(drop["image_id"])]
    if kept.empty:
        raise InputError(f"data.drop {data.drop} names every photo of train.csv: no photo is left to train on")
    return kept, {"dropped": len(table) - len(kept), "relabelled": int((label != table["label"]).sum())}


def check_corrections_stay(config: Config) -> None:
    """Raise an `InputError` if a file of corrections is in the folder of the earlier run that this run replaces."""
    if not config.run.restart:
        return
    folder = SUBMISSIONS / config.run.name
    for option, path in {"data.drop": config.data.drop, "data.relabel": config.data.relabel}.items():
        if path is not None and path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{option} {path} would be deleted with the earlier run in {folder}: copy it elsewhere, for example "
                "to configs/, or choose another --run.name"
            )


def _read_listed(
    option: str, path: Path | None, columns: list[str], table: pd.DataFrame, problems: list[str]
) -> pd.DataFrame:
    """The rows of one file; none where there is no file."""
    if path is None:
        return pd.DataFrame(columns=columns, dtype=str)
    listed = read_text_table(path, columns)
    ids = listed["image_id"]
    repeated = ids[ids.duplicated()].unique()
    if len(repeated):
        problems.append(
            f"{option} {path}: {len(repeated)} values of image_id occur twice or more: {first_few(repeated)}"
        )
    known = ids.isin(table["image_id"])
    if not known.all():
        problems.append(
            f"{option} {path}: {counted(int((~known).sum()), 'image_id')} not in train.csv: {first_few(ids[~known])}"
        )
    if "label" in listed:
        given = ids.map(table.drop_duplicates("image_id").set_index("image_id")["label"])
        other = ids[known & (listed["label"] != given)]
        if len(other):
            problems.append(
                f"{option} {path}: label differs from train.csv for image_id {first_few(other)}: the file was made for "
                "other labels; review these photos again, and correct the column label or remove it"
            )
    return listed
