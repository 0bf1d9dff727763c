"""Search for copies: groups labelled and unlabelled photos of one source.

Intermediate results are saved in blocks, so that an interrupted search resumes.
"""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm.contrib.concurrent import thread_map

from trunkfold.copies.candidates import find_candidates
from trunkfold.copies.cells import Statistics, measure_cells
from trunkfold.copies.comparison import compare_pairs, start_workers
from trunkfold.copies.descriptors import describe_photo
from trunkfold.copies.doubts import expected_errors, find_doubts
from trunkfold.copies.embedding import one_thread, project
from trunkfold.copies.evidence import IDENTICAL, Evidence, compare, compare_aligned
from trunkfold.copies.grouping import Group, join
from trunkfold.copies.links import Links, Pair, follow, keep_links, kept_links, read_links
from trunkfold.copies.page import PAIRS_SHOWN, write_page
from trunkfold.copies.record import RECORD, Records
from trunkfold.copies.summary import GROUPS, SUMMARY, certainty, facts, read_summary, summarise
from trunkfold.cores import usable_cores
from trunkfold.csv_table import read_text_table
from trunkfold.data.tables import Competition, table_problems
from trunkfold.errors import InputError, counted, raise_problems
from trunkfold.files import block_by_block, locked_folder, write_csv, write_json
from trunkfold.run_folder import SUBMISSIONS

PAGE, LINKS = "copies.html", "links.csv"
PHOTOS, PAIRS = 500, 5000  # per block: an interruption loses about ten seconds
VERSION = 6  # increase when the search changes, so that old groups are not read
WORKERS = usable_cores()


def copies_folder(root: Path) -> Path:
    """Return the folder of a competition's groups: submissions/copies/<name of its folder>."""
    return SUBMISSIONS / "copies" / root.resolve().name


def find_copies(competition: Competition, out: Path | None = None, links: Path | None = None) -> pd.DataFrame:
    """Find the photos of a competition that show the same source, or read the result of an earlier search.

    One process searches and prints a message, while the others wait.

    Args:
        competition: Its tables, one of which may be missing.
        out: Folder for groups.csv, copies.json and copies.html; None uses `copies_folder`.
        links: File of pairs that a person has compared, see `trunkfold.copies.links`. Those of earlier searches are
            kept in links.csv next to the groups, and still count unless the file answers them differently.

    Returns:
        One row per photo, labelled photos first: image_id, set ("train" or "test"), group. Unreadable photos and photos
        without copies are groups of one.

    Raises:
        InputError: The tables or links are invalid, or `out` is not writable.
    """
    photos = _all_photos(competition)
    option, out = "--out" if out else "working folder", out or copies_folder(competition.root)
    given, key = read_links(links, photos) if links else [], _key(photos)
    with locked_folder(out, option):
        kept, others = kept_links(out / LINKS, photos)
        answered = {pair for pair, _ in given}
        given += [link for link in kept if link[0] not in answered]
        earlier = read_summary(out)
        digest = hashlib.blake2b(repr(sorted(given)).encode(), digest_size=8).hexdigest()
        if (earlier.get("key"), earlier.get("links")) != (key, digest):
            follow(given, photos)  # fail before the search
            print(f"searching {counted(len(photos), 'photo')} for copies; the groups will be in {out / GROUPS}")
            _search(competition.root.resolve().name, photos, {"key": key, "links": digest}, given, out)
            keep_links(given, others, photos, out / LINKS)
        return read_text_table(out / GROUPS, ["image_id", "set", "group"])


def search_key(competition: Competition) -> str:
    """Return the key of a search, 16 hexadecimal digits: of the photos' ids, names and sizes, and of the algorithm.

    The same photos have the same key on every machine.
    """
    return _key(_all_photos(competition))


def describe_copies(out: Path) -> str:
    """Summarize a search in a few lines."""
    return "\n".join([*facts(read_summary(out)), f"review: {out / PAGE}"])


def _all_photos(competition: Competition) -> pd.DataFrame:
    """Return all photos of a competition: image_id, set, filename, label ("" in test.csv), path, and bytes (or -1)."""
    tables = {}
    if competition.has("train.csv") or not competition.has("test.csv"):
        tables["train"] = competition.train
    if competition.has("test.csv"):
        tables["test"] = competition.test
    raise_problems(problem for name, table in tables.items() for problem in table_problems(table, f"{name}.csv"))
    photos = pd.concat([table.assign(set=name) for name, table in tables.items()], ignore_index=True)
    photos = photos.reindex(columns=["image_id", "set", "filename", "label", "path"])
    sizes = [os.path.getsize(path) if os.path.exists(path) else -1 for path in photos["path"]]
    return photos.assign(label=photos["label"].astype(object).fillna(""), bytes=sizes)


def describe_certainty(competition: Competition) -> str:
    """Return the expected errors of the competition's groups and where to review them, or "", in one line."""
    out = copies_folder(competition.root)
    return f"{errors} Review: {out / PAGE}" if (errors := certainty(read_summary(out))) else ""


def _search(name: str, photos: pd.DataFrame, about: dict[str, str], links: Links, out: Path) -> None:
    """Describe all photos, compare candidates, group copies, and write the results."""
    work = out / f".search-{about['key']}"
    for earlier in set(out.glob(".search-*")) - {work}:
        shutil.rmtree(earlier)
    work.mkdir(exist_ok=True)
    with threadpool_limits(1), one_thread():  # our own threads each process a photo or a pair
        records = _describe(photos["path"], work)
        duplicates, unreadable = _exact_duplicates(records)
        verdicts = _verdicts(follow(links, photos, duplicates), unreadable, photos)
        looked_at = sorted(set(range(len(photos))) - set(duplicates) - set(unreadable))
        statistics = measure_cells([records[row] for row in looked_at])
        evidence = _compare(records, looked_at, statistics, work / "first")
        evidence |= verdicts

        def look(one: int, other: int) -> Evidence:
            evidence[one, other] = found = compare(records[one], records[other], statistics)
            return found  # kept, because doubts are about all pairs that were compared

        def search_again(rows: list[int]) -> dict[Pair, Evidence]:
            further = _compare(records, rows, statistics, work / f"again-{about['links']}-{len(evidence)}", evidence)
            evidence.update(further)
            return further

        groups = join(looked_at, evidence, look, search_again, Counter(duplicates.values()))
        doubts = find_doubts(groups, evidence)
        shown = [
            (doubt, compare_aligned(*(records[row] for row in doubt.pair), statistics)[1])
            for doubt in doubts[:PAIRS_SHOWN]
        ]
    groups = _complete(groups, duplicates, unreadable)
    photos = photos.assign(group=_names(groups, len(photos)))
    summary = {**about, **summarise(photos, groups, len(duplicates), unreadable)}
    summary["expected_errors"] = expected_errors(doubts)
    (out / SUMMARY).unlink(missing_ok=True)  # it identifies groups.csv by its key
    write_csv(photos[["image_id", "set", "group"]], out / GROUPS)
    write_page(out / PAGE, name, photos, groups, shown, summary)
    write_json(summary, out / SUMMARY)  # last, because it marks the search as finished
    shutil.rmtree(work)


def _describe(paths: Sequence[str], work: Path) -> Records:
    def block(rows: slice) -> np.ndarray:
        described = thread_map(describe_photo, paths[rows], max_workers=WORKERS, disable=True)
        return np.array(described, RECORD)

    return Records(block_by_block(work / "photos", len(paths), PHOTOS, block, "describing photos"))


def _exact_duplicates(records: Sequence[np.ndarray]) -> tuple[dict[int, int], list[int]]:
    """Return the earlier row with the same pixels for each duplicate, and the unreadable rows."""
    first: dict[bytes, int] = {}
    duplicates, unreadable = {}, []
    for row, record in enumerate(records):
        digest = record["digest"].tobytes()
        if not any(digest):
            unreadable.append(row)
        elif first.setdefault(digest, row) != row:
            duplicates[row] = first[digest]
    return duplicates, unreadable


def _compare(
    records: Records, rows: Sequence[int], statistics: Statistics, work: Path, known: Container[Pair] = ()
) -> dict[Pair, Evidence]:
    """Return the evidence of each candidate pair of these rows, except for those that are known."""

    def find(_: slice) -> np.ndarray:
        chosen = [records[row] for row in rows]
        places = find_candidates(chosen, project([record["embedding"] for record in chosen]), WORKERS)
        unknown = [pair for pair in np.array(rows, int)[places].tolist() if tuple(pair) not in known]
        return np.array(unknown, int).reshape(-1, 2)

    def block(part: slice) -> np.ndarray:
        return np.array([astuple(found) for found in compare_pairs(workers, records, pairs[part], statistics)])

    (pairs,) = block_by_block(work.with_name(f"{work.name}-pairs"), 1, 1, find)
    with start_workers(WORKERS, len(pairs)) as workers:
        evidence = block_by_block(work.with_name(f"{work.name}-evidence"), len(pairs), PAIRS, block, "comparing pairs")
    found = (Evidence(*row.tolist()) for block in evidence for row in block)
    return dict(zip(map(tuple, pairs.tolist()), found, strict=True))


def _verdicts(checked: dict[Pair, bool], unreadable: list[int], photos: pd.DataFrame) -> dict[Pair, Evidence]:
    """Return the evidence of pairs that a person has compared."""
    for pair in checked:
        if set(pair) & set(unreadable):
            names = " and ".join(photos["image_id"].iloc[list(pair)])
            raise InputError(f"the links name {names}, of which one cannot be read: remove the pair or the photo")
    return {pair: Evidence(verdict=1 if same else -1) for pair, same in checked.items()}


def _complete(groups: list[Group], duplicates: dict[int, int], unreadable: list[int]) -> list[Group]:
    """Add exact duplicates and unreadable rows to the groups, ordered by first member."""
    group_of = {member: group for group in groups for member in group.members}
    for row, original in duplicates.items():
        group_of[original].members.append(row)
        group_of[original].links.append((original, row, IDENTICAL))
    for group in groups:
        group.members.sort()
    return sorted([*groups, *(Group([row]) for row in unreadable)], key=lambda group: group.members[0])


def _names(groups: list[Group], photos: int) -> np.ndarray:
    digits = len(str(len(groups)))
    names = np.empty(photos, object)
    for number, group in enumerate(groups, start=1):
        names[group.members] = f"g{number:0{digits}}"
    return names


def _key(photos: pd.DataFrame) -> str:
    key = hashlib.blake2b(str(VERSION).encode(), digest_size=8)
    for row in photos.itertuples():
        key.update(repr((row.set, row.image_id, row.label, row.filename, row.bytes)).encode())
    return key.hexdigest()
