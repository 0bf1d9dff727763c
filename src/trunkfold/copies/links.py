"""Links that a person has checked: pairs of photos known to be copies, or known to differ."""

from collections.abc import Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from trunkfold.copies.evidence import Pair
from trunkfold.csv_table import read_text_table
from trunkfold.errors import first_few, raise_problems
from trunkfold.files import write_csv

COLUMNS = ["image_id_a", "image_id_b", "same"]
OPTIONAL = ["set_a", "set_b", "bytes_a", "bytes_b"]
PHOTO = ["image_id", "set", "bytes"]  # identify an unchanged photo; two folders may have the same ids
ANSWERS = {"true": True, "false": False}
Links = list[tuple[Pair, bool]]  # whether the photos are copies


def read_links(path: Path, photos: pd.DataFrame) -> Links:
    """Read a CSV file with image_id_a, image_id_b and same (true or false).

    The columns set_a and set_b (train or test) are needed only for ids that are both in train.csv and in test.csv.

    Args:
        path: File, as downloaded from copies.html.
        photos: image_id and set of each photo.

    Raises:
        InputError: The file is invalid, or names unknown photos.
    """
    return _resolve(_read(path), photos, path)


def kept_links(path: Path, photos: pd.DataFrame) -> tuple[Links, pd.DataFrame]:
    """Read the links that `keep_links` wrote.

    Args:
        path: CSV file, which may be missing; its bytes_a and bytes_b are the sizes of the photos' files.
        photos: image_id, set and bytes of each photo.

    Returns:
        The links, and the rows about photos that do not exist here or have changed.

    Raises:
        InputError: The file was edited, and is invalid.
    """
    table = _read(path, may_be_empty=True) if path.exists() else pd.DataFrame(columns=[*COLUMNS, *OPTIONAL])
    known = set(photos[PHOTO].astype(str).itertuples(index=False, name=None))
    known |= {(name, of, "") for name, of, _ in known}  # as in a file from copies.html
    sides = (table[[name + side for name in PHOTO]].itertuples(index=False, name=None) for side in ("_a", "_b"))
    found = np.array([one in known and other in known for one, other in zip(*sides, strict=True)], bool)
    return _resolve(table[found], photos, path), table[~found]


def keep_links(links: Links, others: pd.DataFrame, photos: pd.DataFrame, path: Path) -> None:
    """Write links for later searches.

    Args:
        links: See `read_links`.
        others: Further rows, see `kept_links`.
        photos: image_id, set and bytes of each photo.
        path: CSV file.
    """
    if not links and others.empty:
        return
    sides = [[pair[side] for pair, _ in links] for side in (0, 1)]
    one, other = (photos.loc[rows, PHOTO].reset_index(drop=True) for rows in sides)
    table = one.add_suffix("_a").join(other.add_suffix("_b")).assign(same=[str(same).lower() for _, same in links])
    write_csv(pd.concat([table, others[table.columns]]), path)


def follow(
    links: Links, photos: pd.DataFrame, duplicates: Mapping[int, int] = MappingProxyType({})
) -> dict[Pair, bool]:
    """Return the links and what follows from them: copies of copies are copies, and copies of others are others.

    Args:
        links: See `read_links`.
        photos: image_id of each photo.
        duplicates: The earlier row with the same pixels, which stands for both, by row.

    Raises:
        InputError: Photos are said to differ, but other links or equal pixels make them copies.
    """
    pairs = [tuple(duplicates.get(row, row) for row in pair) for pair, _ in links]
    same = np.array([alike for _, alike in links], bool)
    source = _sources(np.array(pairs, int).reshape(-1, 2)[same], len(photos))
    raise_problems(
        f"the links say that {' and '.join(photos['image_id'].iloc[list(pair)])} differ, but other links or equal "
        "pixels make them copies: correct the file of --links, or links.csv beside groups.csv"
        for (pair, alike), (one, other) in zip(links, pairs, strict=True)
        if not alike and source[one] == source[other]
    )
    return _closure(pairs, same, source)


def _read(path: Path, may_be_empty: bool = False) -> pd.DataFrame:
    table = read_text_table(path, COLUMNS, may_be_empty)
    return table.assign(**{name: "" for name in OPTIONAL if name not in table})


def _resolve(table: pd.DataFrame, photos: pd.DataFrame, path: Path) -> Links:
    """Find the rows of the photos that each line names."""
    rows, sets = photos.groupby("image_id").indices, photos["set"]
    raise_problems(f"{path}: {problem}" for problem in _problems(table, rows, sets))
    found = (
        [_find(rows[line[f"image_id_{side}"]], line[f"set_{side}"], sets)[0] for side in "ab"]
        for _, line in table.iterrows()
    )
    pairs = [(min(pair), max(pair)) for pair in found]
    return list(zip(pairs, table["same"].str.lower().map(ANSWERS).tolist(), strict=True))


def _problems(table: pd.DataFrame, rows: dict[str, np.ndarray], sets: pd.Series) -> Iterator[str]:
    """Yield what is wrong with single rows."""
    wrong = table.loc[~table["same"].str.lower().isin(ANSWERS), "same"].unique()
    if len(wrong):
        yield f"same must be true or false, not {first_few(wrong)}"
    found = {}
    for side in "ab":
        ids = table[f"image_id_{side}"]
        unknown = ids[~ids.isin(rows.keys())].unique()
        if len(unknown):
            yield f"image_id_{side} {first_few(unknown)} is neither in train.csv nor in test.csv"
        named = zip(ids, table[f"set_{side}"], strict=True)
        found[side] = [_find(rows[name], of, sets) if name in rows else None for name, of in named]
        if both := [name for name, own in zip(ids, found[side], strict=True) if own and len(own) > 1]:
            yield f"image_id_{side} {first_few(both)} is in train.csv and in test.csv: add set_{side}, train or test"
        if none := [name for name, own in zip(ids, found[side], strict=True) if own == []]:
            yield f"image_id_{side} {first_few(none)} is not in the set that set_{side} names: train or test"
    sides = zip(table["image_id_a"], found["a"], found["b"], strict=True)
    if itself := [name for name, one, other in sides if one and len(one) == 1 and one == other]:
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
