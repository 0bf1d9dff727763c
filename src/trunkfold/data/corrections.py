"""Label corrections after a review: photos to exclude and photos to relabel."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trunkfold.config.schema import Config, DataConfig
from trunkfold.csv_table import read_text_table
from trunkfold.data.tables import class_names
from trunkfold.errors import InputError, counted, first_few
from trunkfold.run_folder import SUBMISSIONS


@dataclass(frozen=True)
class Corrections:
    """Rows of the files `data.drop` and `data.relabel`; empty tables if no file is configured.

    Attributes:
        data: Options with the paths and the classes.
        drop: image_id of the photos to exclude, and optionally label.
        relabel: image_id and suggestion (the new label), and optionally label.
    """

    data: DataConfig
    drop: pd.DataFrame
    relabel: pd.DataFrame

    def problems(self, table: pd.DataFrame) -> Iterator[str]:
        """Yield the problems of the rows.

        Args:
            table: `Competition.train`.
        """
        for option, path, rows in (
            ("data.drop", self.data.drop, self.drop),
            ("data.relabel", self.data.relabel, self.relabel),
        ):
            yield from _row_problems(f"{option} {path}", rows, table)
        both = self.drop.loc[self.drop["image_id"].isin(self.relabel["image_id"]), "image_id"]
        if len(both):
            yield f"data.drop and data.relabel both list image_id {first_few(both)}: remove it from one of them"
        classes = class_names(table["label"], self.data.classes)
        unknown = self.relabel[~self.relabel["suggestion"].isin(classes)]
        for suggestion, rows in unknown.groupby("suggestion"):
            yield (
                f"data.relabel {self.data.relabel}: suggestion {suggestion!r} of image_id "
                f"{first_few(rows['image_id'])} is not one of the labels ({first_few(classes)})"
            )

    def apply(self, table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
        """Exclude and relabel photos. Invalid rows are ignored; `problems` reports them.

        Args:
            table: `Competition.train`.

        Returns:
            The remaining rows in the same order with the same index, and the number of photos "dropped" and
            "relabelled".

        Raises:
            InputError: No photo is left.
        """
        known = self.relabel[self.relabel["suggestion"].isin(class_names(table["label"], self.data.classes))]
        suggested = known.drop_duplicates("image_id").set_index("image_id")["suggestion"]
        label = table["image_id"].map(suggested).astype(object).fillna(table["label"])
        kept = table.assign(label=label)[~table["image_id"].isin(self.drop["image_id"])]
        if kept.empty:
            raise InputError(f"data.drop {self.data.drop} lists every photo of train.csv: no photo is left to train on")
        return kept, {"dropped": len(table) - len(kept), "relabelled": int((label != table["label"]).sum())}


def read_corrections(data: DataConfig) -> Corrections:
    """Read the files of `data.drop` and `data.relabel`.

    Raises:
        InputError: A file is missing or lacks a column.
    """
    return Corrections(
        data, _read_listed(data.drop, ["image_id"]), _read_listed(data.relabel, ["image_id", "suggestion"])
    )


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
