"""Reading and validation of the competition's tables. Ids and labels stay strings."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from trunkfold.csv_table import LINE, read_numbered_table
from trunkfold.errors import InputError, counted, first_few


class Competition:
    """The tables of a competition, each found and parsed at most once.

    Attributes:
        root: Folder with train.csv and test.csv, each with images/ beside it, or up to three folders above them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def train(self) -> pd.DataFrame:
        """One row per labelled photo in the file's order: image_id, filename and label as text, path, and `LINE`.

        Raises:
            InputError: There is no such file, or it is not a table with the required columns.
        """
        return _read_photos(self.root, "train.csv", ["image_id", "filename", "label"])

    @cached_property
    def test(self) -> pd.DataFrame:
        """One row per unlabelled photo, like `train` without label."""
        return _read_photos(self.root, "test.csv", ["image_id", "filename"])

    def has(self, name: str) -> bool:
        """Return whether a file `name` exists where `find_table` looks for it."""
        return bool(files_named(self.root, name))


def table_problems(table: pd.DataFrame, name: str) -> Iterator[str]:
    """Yield the problems of single rows of `Competition.train` or `test`, read from the file `name`."""
    for column in ("image_id", "filename", "label"):
        if column not in table:
            continue
        empty = table.loc[table[column] == "", LINE]
        if len(empty):
            yield f"{name}: no {column} in line {first_few(empty)}"
        repeated = table.loc[table[column].duplicated() & (table[column] != ""), column].unique()
        if len(repeated) and column != "label":
            yield f"{name}: {counted(len(repeated), f'duplicate {column}')}: {first_few(repeated)}"
    outside = table[[_leaves_folder(filename) for filename in table["filename"]]]
    if len(outside):
        named = first_few(outside["filename"] + " in line " + outside[LINE].astype(str))
        yield f"{name}: filename must be a path below images/ without '..': {named}"


def label_problems(table: pd.DataFrame, classes: Mapping[int | str, str] | None) -> Iterator[str]:
    """Yield problems with labels: unknown labels, classes without photos, and fewer than two classes.

    Args:
        table: `Competition.train`, possibly corrected.
        classes: Name of each label; None uses the labels as names.
    """
    yield from _spelling_problems(table["label"])
    labels = sorted(set(table["label"]) - {""})
    if classes is None:
        if len(labels) < 2:
            yield f"train.csv: all photos have the label {''.join(labels)}: at least two classes are needed"
        return
    known = {str(label) for label in classes}
    for label, rows in table[~table["label"].isin(known | {""})].groupby("label"):
        yield (
            f"train.csv: label {label!r} of {len(rows)} photos (first in line {rows[LINE].iloc[0]}) is not one of "
            f"data.classes ({first_few(_labels_with_names(classes))}): add it there, "
            "or pass --data.classes null to use the labels as names"
        )
    absent = {label: name for label, name in classes.items() if str(label) not in labels}
    if absent:  # the class would contribute an F1 of 0 to every macro F1
        yield (
            f"train.csv: no photo has the label {first_few(_labels_with_names(absent))} of data.classes: "
            "remove it there, or pass --data.classes null to use the labels as names"
        )


def find_table(root: Path, name: str) -> Path:
    """Find the file `name` with an images/ folder beside it, in `root` or up to three folders down.

    Raises:
        InputError: The root is missing, or there is no such file or more than one.
    """
    if not root.is_dir():
        raise InputError(f"data.root {root} is not a folder: pass --data.root DIR, see input/README.md")
    candidates = files_named(root, name)
    found = [path for path in candidates if (path.parent / "images").is_dir()]
    if not found and candidates:
        raise InputError(f"{candidates[0]} has no images/ folder beside it: put its photos there")
    if not found:
        raise InputError(f"no {name} under data.root {root} (searched three folders deep)")
    if len(found) > 1:
        raise InputError(f"several {name} under {root}: {first_few(found)}; set data.root to one competition")
    return found[0]


def class_names(labels: pd.Series, classes: Mapping[int | str, str] | None) -> dict[str, str]:
    """Return the name of each label, in the order of all tables and logits.

    If `classes` is None, labels are their own names, in numerical order if all are integers.
    """
    if classes is not None:
        return {str(label): str(name) for label, name in classes.items()}
    distinct = sorted(set(labels) - {""})
    if all(label.lstrip("-").isdecimal() for label in distinct):
        distinct.sort(key=int)
    return {label: label for label in distinct}


def files_named(root: Path, name: str) -> list[Path]:
    """Return the files of this name in `root` and up to three folders down, the highest first."""
    return [path for depth in range(4) for path in sorted(root.glob("*/" * depth + name)) if path.is_file()]


def _labels_with_names(classes: Mapping[int | str, str]) -> list[str]:
    """Format labels with their names for error messages: `1 crack`."""
    return [f"{label} {name}" if str(label) != name else str(label) for label, name in classes.items()]


def _read_photos(root: Path, name: str, columns: list[str]) -> pd.DataFrame:
    path = find_table(root, name)
    table = read_numbered_table(path, columns)
    return table.assign(path=[str(path.parent / "images" / filename) for filename in table["filename"]])


def _leaves_folder(filename: str) -> bool:
    """Return whether a path is absolute or contains `..`, on POSIX or Windows."""
    return any(kind(filename).anchor or ".." in kind(filename).parts for kind in (PurePosixPath, PureWindowsPath))


def _spelling_problems(labels: pd.Series) -> Iterator[str]:
    """Yield labels that spell one number in several ways, such as 1 and 1.0, and would become two classes."""
    distinct = pd.Series(sorted(set(labels) - {""}), dtype=object)
    for _, spellings in distinct.groupby(pd.to_numeric(distinct, errors="coerce")):
        if len(spellings) > 1:
            yield f"train.csv: the labels {' and '.join(spellings)} are the same number: use one spelling"
