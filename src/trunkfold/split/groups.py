"""Groups of copies of one source photo, found by a search or read from a file."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from trunkfold.copies.search import find_copies, search_key
from trunkfold.csv_table import read_text_table
from trunkfold.data.tables import Competition
from trunkfold.errors import InputError, counted, first_few

SEARCHED = ("copies", "none")  # values of split.groups that require a search; "none" to measure leakage


def load_groups(choice: str, competition: Competition, cache: Path) -> pd.DataFrame:
    """Load the groups of a competition's photos.

    Args:
        choice: `split.groups`: "copies" or "none" searches for copies (or reads the result of an earlier search);
            otherwise the path of a CSV file with image_id and group, and optionally set ("train" or "test").
        competition: Tables of the competition.
        cache: Folder of all caches.

    Returns:
        image_id, set ("" if the file has no such column) and group, as text.

    Raises:
        InputError: The file is missing or cannot be read, or the competition's tables are invalid.
    """
    if choice in SEARCHED:
        return find_copies(competition, cache)
    groups = read_groups(Path(choice))
    if (groups["set"] == "").any() and competition.has("test.csv"):
        _refuse_shared_ids(groups, choice, competition.train["image_id"], competition.test["image_id"])
    return groups


def read_run_groups(
    path: Path, key: str | None, choice: str, labelled: pd.Series, competition: Competition
) -> pd.DataFrame | None:
    """Read the groups of photos to be predicted by a run; None if a new search is needed, as the photos differ.

    Args:
        path: The run's groups.csv.
        key: Key of the search that found them, see `trunkfold.copies.search.search_key`.
        choice: The run's `split.groups`, see `load_groups`.
        labelled: image_id of the run's labelled photos.

    Raises:
        InputError: The file cannot be read, or is ambiguous, as its ids are of labelled and of test photos.
    """
    if choice in SEARCHED and key != search_key(competition):
        return None
    groups = read_groups(path)
    if (groups["set"] == "").any():
        _refuse_shared_ids(groups, path, labelled, competition.test["image_id"])
    return groups


def _refuse_shared_ids(groups: pd.DataFrame, origin: str | Path, train: pd.Series, test: pd.Series) -> None:
    """Refuse groups without a set for ids of both sets, which are different photos with one id."""
    both = groups.loc[
        (groups["set"] == "") & groups["image_id"].isin(train) & groups["image_id"].isin(test), "image_id"
    ]
    if len(both):
        raise InputError(
            f"{origin}: image_id {first_few(both)} is in both train.csv and test.csv: add a column set (train or test)"
        )


def read_groups(path: Path) -> pd.DataFrame:
    """Read a CSV file of groups; see `load_groups`."""
    groups = read_text_table(path, ["image_id", "group"])
    if "set" not in groups:
        groups["set"] = ""
    unknown = groups.loc[~groups["set"].isin(["train", "test", ""]), "set"].unique()
    if len(unknown):
        raise InputError(f"{path}: set must be train or test, not {first_few(unknown)}")
    of_both = groups.loc[groups["set"] == "", "image_id"]
    repeated = groups["image_id"].isin(of_both) & groups["image_id"].duplicated(keep=False)
    repeated = groups.loc[repeated | groups.duplicated(["image_id", "set"]), "image_id"].unique()
    if len(repeated):
        raise InputError(f"{path}: {counted(len(repeated), 'duplicate image_id')}: {first_few(repeated)}")
    return groups[["image_id", "set", "group"]]


def groups_of(image_ids: pd.Series, name: str, groups: pd.DataFrame) -> pd.Series:
    """Return the group of each photo of the set `name` (train or test), "" if unknown, indexed like `image_ids`."""
    own = groups[groups["set"].isin([name, ""])]
    return image_ids.map(own.set_index("image_id")["group"]).astype(object).fillna("").rename("group")


def group_problems(table: pd.DataFrame, choice: str) -> Iterator[str]:
    """Yield the labelled photos (image_id and group) without a group; `choice` is the origin of the groups."""
    missing = table.loc[(table["group"] == "") & (table["image_id"] != ""), "image_id"]
    if len(missing):
        yield f"{choice} has no group for {counted(len(missing), 'labelled photo')}: {first_few(missing)}"
