"""Links that a person has checked: pairs of photos known to be copies, or known to differ."""

from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from trunkfold.csv_table import read_text_table
from trunkfold.errors import first_few, raise_problems

COLUMNS = ["image_id_a", "image_id_b", "same"]
ANSWERS = {"true": True, "false": False}
Pair = tuple[int, int]  # rows of two photos, the smaller first


def read_links(path: Path, photos: pd.DataFrame) -> dict[Pair, bool]:
    """Read a CSV file with image_id_a, image_id_b and same (true or false).

    The columns set_a and set_b (train or test) are needed only for ids that are both in train.csv and in test.csv.

    Args:
        path: File, as downloaded from copies.html.
        photos: image_id and set of each photo.

    Returns:
        Whether two photos are copies, by their rows; what follows from the given pairs included: copies of copies are
        copies, and photos that differ have no copies in common.

    Raises:
        InputError: The file is invalid, names unknown photos, or contradicts itself.
    """
    table = read_text_table(path, COLUMNS)
    for name in ("set_a", "set_b"):
        if name not in table:
            table[name] = ""
    rows = photos.groupby("image_id").indices
    raise_problems(f"{path}: {problem}" for problem in _problems(table, rows, photos["set"]))
    pairs = [
        tuple(_find(rows[line[f"image_id_{side}"]], line[f"set_{side}"], photos["set"])[0] for side in "ab")
        for _, line in table.iterrows()
    ]
    same = table["same"].str.lower().map(ANSWERS).to_numpy(bool)
    source = _sources(np.array(pairs)[same], len(photos))
    raise_problems(
        f"{path}: {' and '.join(photos['image_id'].iloc[list(pair)])} are said to differ, but other rows make them "
        "copies: correct one of the rows"
        for pair, alike in zip(pairs, same, strict=True)
        if not alike and source[pair[0]] == source[pair[1]]
    )
    return _closure(pairs, same, source)


def _problems(table: pd.DataFrame, rows: dict[str, np.ndarray], sets: pd.Series) -> Iterator[str]:
    """Yield what is wrong with single rows."""
    wrong = table.loc[~table["same"].str.lower().isin(ANSWERS), "same"].unique()
    if len(wrong):
        yield f"same must be true or false, not {first_few(wrong)}"
    for side in "ab":
        ids, given = table[f"image_id_{side}"], table[f"set_{side}"]
        unknown = ids[~ids.isin(rows.keys())].unique()
        if len(unknown):
            yield f"image_id_{side} {first_few(unknown)} is neither in train.csv nor in test.csv"
        found = {name: len(_find(rows[name], of, sets)) for name, of in zip(ids, given, strict=True) if name in rows}
        if both := [name for name, number in found.items() if number > 1]:
            yield f"image_id_{side} {first_few(both)} is in train.csv and in test.csv: add set_{side}, train or test"
        if none := [name for name, number in found.items() if number == 0]:
            yield f"image_id_{side} {first_few(none)} is not in the set that set_{side} names: train or test"
    itself = table.loc[(table["image_id_a"] == table["image_id_b"]) & (table["set_a"] == table["set_b"]), "image_id_a"]
    if len(itself):
        yield f"{first_few(itself)} is paired with itself"


def _find(rows: np.ndarray, name: str, sets: pd.Series) -> list[int]:
    """Return the rows of a set, or of any set without a name."""
    return [int(row) for row in rows if name in ("", sets.iloc[row])]


def _sources(pairs: np.ndarray, photos: int) -> np.ndarray:
    """Number the sources of all photos, which copies share."""
    one, other = pairs.reshape(-1, 2).T
    return connected_components(coo_array((np.ones(len(one)), (one, other)), (photos, photos)), directed=False)[1]


def _closure(pairs: list[Pair], same: np.ndarray, source: np.ndarray) -> dict[Pair, bool]:
    """Return the given pairs and those that follow from them."""
    named = {row for pair in pairs for row in pair}
    members: dict[int, list[int]] = {}
    for row in sorted(named):
        members.setdefault(source[row], []).append(row)
    found = {pair: True for rows in members.values() for pair in combinations(rows, 2)}
    for pair, alike in zip(pairs, same, strict=True):
        if not alike:
            between = product(*(members[source[row]] for row in pair))
            found |= {(min(other), max(other)): False for other in between}
    return found
