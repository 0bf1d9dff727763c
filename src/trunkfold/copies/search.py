"""Search for copies: groups labelled and unlabelled photos of one source.

Descriptions and comparisons are kept in the cache, so that an interrupted search resumes, and one with further links or
other labels takes seconds.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from trunkfold.copies.comparison import start_workers
from trunkfold.copies.descriptors import describe_photo
from trunkfold.copies.doubts import expected_errors, find_doubts
from trunkfold.copies.embedding import one_thread
from trunkfold.copies.evidence import IDENTICAL, Evidence, Pair, compare_aligned
from trunkfold.copies.evidence_cache import EvidenceCache
from trunkfold.copies.grouping import Group, join
from trunkfold.copies.links import Links, follow, keep_links, kept_links, read_links
from trunkfold.copies.page import PAIRS_SHOWN, Shown, write_page
from trunkfold.copies.proposals import Proposals
from trunkfold.copies.record import RECORD, Records
from trunkfold.copies.summary import GROUPS, SUMMARY, certainty, facts, read_summary, summarise
from trunkfold.cores import usable_cores
from trunkfold.csv_table import read_text_table
from trunkfold.data.photos import content_key
from trunkfold.data.tables import Competition, table_problems
from trunkfold.errors import InputError, counted, raise_problems
from trunkfold.files import block_by_block, locked_folder, write_csv, write_json
from trunkfold.run_folder import SUBMISSIONS

PAGE, LINKS = "copies.html", "links.csv"
PHOTOS = 500  # per file: an interruption loses about ten seconds
CHUNK = 10  # photos that a process describes at once
MANY = 2000  # photos; to start processes takes as long as they save on so many
VERSION = 7  # increase when the search changes, so that old groups are not read
WORKERS = usable_cores()


def copies_folder(root: Path) -> Path:
    """Return the folder of a competition's groups: submissions/copies/<name of its folder>."""
    return SUBMISSIONS / "copies" / root.resolve().name


def find_copies(
    competition: Competition, cache: Path, out: Path | None = None, links: Path | None = None
) -> pd.DataFrame:
    """Find the photos of a competition that show the same source, or read the result of an earlier search.

    One process searches and prints a message, while the others wait.

    Args:
        competition: Its tables, one of which may be missing.
        cache: Folder of all caches; descriptions and comparisons take 150 kB per photo.
        out: Folder for groups.csv, copies.json and copies.html; None uses `copies_folder`.
        links: File of pairs that a person has compared, see `trunkfold.copies.links`. Those of earlier searches are
            kept in links.csv next to the groups, and still count unless the file answers them differently.

    Returns:
        One row per photo, labelled photos first: image_id, set ("train" or "test"), group. Unreadable photos and photos
        without copies are groups of one.

    Raises:
        InputError: The tables or links are invalid, or a folder is not writable.
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
            with locked_folder(cache / f"copies-{content_key(photos['path'], VERSION)}", "--cache.dir") as work:
                found = _search(photos, given, work)
            _write(competition.root.resolve().name, photos, {"key": key, "links": digest}, found, out)
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


class Found(NamedTuple):
    """Result of a search: groups, exact duplicates, unreadable rows, expected errors, and doubts to review."""

    groups: list[Group]
    duplicates: int
    unreadable: list[int]
    expected_errors: dict[str, float]
    doubts: list[Shown]


def _search(photos: pd.DataFrame, links: Links, work: Path) -> Found:
    """Describe all photos, compare candidates, and group copies."""
    with threadpool_limits(1):  # our own threads each process a photo or a pair
        records = _describe(photos["path"], work)
        duplicates, unreadable = _exact_duplicates(records)
        verdicts = _verdicts(follow(links, photos, duplicates), unreadable, photos)
        rows = sorted(set(range(len(photos))) - set(duplicates) - set(unreadable))
        compared = EvidenceCache(records, rows, work, WORKERS)
        proposals = Proposals(rows, compared.find_candidates, verdicts)

        def search_again(photos: list[int]) -> dict[Pair, Evidence]:
            return compared.compare(proposals.further(photos))

        evidence = compared.compare(proposals.closest()) | verdicts
        groups = join(rows, evidence, compared.look, search_again, Counter(duplicates.values()))
        compared.save()
        doubts = find_doubts(groups, compared.evidence | verdicts)
        shown = [
            (doubt, compare_aligned(*(records[row] for row in doubt.pair), compared.statistics)[1])
            for doubt in doubts[:PAIRS_SHOWN]
        ]
    groups = _complete(groups, duplicates, unreadable)
    return Found(groups, len(duplicates), unreadable, expected_errors(doubts), shown)


def _write(name: str, photos: pd.DataFrame, about: dict[str, str], found: Found, out: Path) -> None:
    photos = photos.assign(group=_names(found.groups, len(photos)))
    summary = {**about, **summarise(photos, found.groups, found.duplicates, found.unreadable)}
    summary["expected_errors"] = found.expected_errors
    (out / SUMMARY).unlink(missing_ok=True)  # it identifies groups.csv by its key
    write_csv(photos[["image_id", "set", "group"]], out / GROUPS)
    write_page(out / PAGE, name, photos, found.groups, found.doubts, summary)
    write_json(summary, out / SUMMARY)  # last, because it marks the search as finished


def _describe(paths: Sequence[str], work: Path) -> Records:
    with start_workers(WORKERS, len(paths) >= MANY) as workers:

        def block(rows: slice) -> np.ndarray:
            with one_thread():
                return np.array(list(workers.map(describe_photo, paths[rows], chunksize=CHUNK)), RECORD)

        blocks = block_by_block(work / "photos", len(paths), PHOTOS, block, "describing photos")
    return Records([block.filename for block in blocks])


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
