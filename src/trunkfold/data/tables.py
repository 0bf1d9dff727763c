"""The competition's tables, found, read as text and checked; ids and labels are never converted."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from trunkfold.csv_table import LINE, read_numbered_table
from trunkfold.errors import InputError, first_few


def read_labelled(root: Path, problems: list[str]) -> pd.DataFrame:
    """Read train.csv.

    Args:
        root: Folder with train.csv and images/ side by side, or up to three folders above them.
        problems: Receives the problems of single rows.

    Returns:
        One row per photo in the file's order: image_id, filename and label as text, path, and `LINE`.

    Raises:
        InputError: There is no such file, or it is not a table with the required columns.
    """
    table = _read_photos(root, "train.csv", ["image_id", "filename", "label"], problems)
    return table


def check_labels(table: pd.DataFrame, classes: Mapping[int | str, str] | None, problems: list[str]) -> None:
    """Collect labels that are no classes, classes that no photo has, and that there is nothing to tell apart.

    Args:
        table: As `read_labelled` gives it, perhaps corrected.
        classes: Name of each label; None takes the labels themselves.
    """
    _check_spelling(table["label"], problems)
    labels = sorted(set(table["label"]) - {""})
    if classes is None:
        if len(labels) < 2:
            problems.append(f"train.csv: all photos have the label {''.join(labels)}: two classes are needed at least")
        return
    known = {str(label) for label in classes}
    for label, rows in table[~table["label"].isin(known | {""})].groupby("label"):
        problems.append(
            f"train.csv: label {label!r} of {len(rows)} photos (first in line {rows[LINE].iloc[0]}) is not one of "
            f"data.classes ({first_few(_labels_with_names(classes))}): add it there, "
            "or pass --data.classes null to use the labels as names"
        )
    absent = {label: name for label, name in classes.items() if str(label) not in labels}
    if absent:  # its F1 would be 0 in every macro F1
        problems.append(
            f"train.csv: no photo has the label {first_few(_labels_with_names(absent))} of data.classes: "
            "remove it there, or pass --data.classes null to use the labels as names"
        )


def read_unlabelled(root: Path, problems: list[str]) -> pd.DataFrame:
    """Read test.csv: image_id, filename (texts), path, `LINE`; arguments and errors as in `read_labelled`."""
    return _read_photos(root, "test.csv", ["image_id", "filename"], problems)


def find_table(root: Path, name: str) -> Path:
    """Find the file `name` with an images/ folder beside it, in `root` or up to three folders down.

    Raises:
        InputError: The root is missing, or there is no such file or more than one.
    """
    if not root.is_dir():
        raise InputError(f"data.root {root} is not a folder: pass --data.root DIR, see input/README.md")
    candidates = _files_named(root, name)
    found = [path for path in candidates if (path.parent / "images").is_dir()]
    if not found and candidates:
        raise InputError(f"{candidates[0]} has no images/ folder with its photos beside it")
    if not found:
        raise InputError(f"no {name} under data.root {root} (searched three folders deep)")
    if len(found) > 1:
        raise InputError(f"several {name} under {root}: {first_few(found)}; point data.root at one competition")
    return found[0]


def has_table(root: Path, name: str) -> bool:
    """Return whether a file `name` exists where `find_table` looks for it."""
    return bool(_files_named(root, name))


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


def _files_named(root: Path, name: str) -> list[Path]:
    return sorted(path for depth in range(4) for path in root.glob("*/" * depth + name) if path.is_file())


def _labels_with_names(classes: Mapping[int | str, str]) -> list[str]:
    """Format labels with their names for error messages: `1 crack`."""
    return [f"{label} {name}" if str(label) != name else str(label) for label, name in classes.items()]


def _read_photos(root: Path, name: str, columns: list[str], problems: list[str]) -> pd.DataFrame:
    """The columns of a table that are needed, and `LINE` and path."""
    path = find_table(root, name)
    table = read_numbered_table(path, columns)
    for column in columns:
        empty = table.loc[table[column] == "", LINE]
        if len(empty):
            problems.append(f"{name}: no {column} in line {first_few(empty)}")
        if column == "label":
            continue
        repeated = table.loc[table[column].duplicated() & (table[column] != ""), column].unique()
        if len(repeated):
            problems.append(f"{name}: {len(repeated)} values of {column} occur twice or more: {first_few(repeated)}")
    outside = table[[_leaves_folder(filename) for filename in table["filename"]]]
    if len(outside):
        named = first_few(outside["filename"] + " in line " + outside[LINE].astype(str))
        problems.append(f"{name}: filename must be a path below images/ without '..': {named}")
    table["path"] = [str(path.parent / "images" / filename) for filename in table["filename"]]
    return table


def _leaves_folder(filename: str) -> bool:
    """Return whether a path is absolute or contains `..`, on POSIX or Windows."""
    return any(kind(filename).anchor or ".." in kind(filename).parts for kind in (PurePosixPath, PureWindowsPath))


def _check_spelling(labels: pd.Series, problems: list[str]) -> None:
    """Collect labels that are one number in several spellings, such as 1 and 1.0: they would be two classes."""
    distinct = pd.Series(sorted(set(labels) - {""}), dtype=object)
    numbers = pd.to_numeric(distinct, errors="coerce")
    for _, spellings in distinct.groupby(numbers):
        if len(spellings) > 1:
            problems.append(f"train.csv: the labels {' and '.join(spellings)} are the same number: use one spelling")
