"""Evidence of compared pairs, kept in files: an interrupted search resumes, and a later one compares only new pairs."""

import hashlib
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from trunkfold.copies.candidates import find_candidates
from trunkfold.copies.cells import measure_cells
from trunkfold.copies.comparison import compare_pairs, start_workers
from trunkfold.copies.embedding import project
from trunkfold.copies.evidence import Evidence, Pair, compare
from trunkfold.copies.record import Records
from trunkfold.files import block_by_block

PAIRS = 5000  # per file: an interruption loses about ten seconds
MANY = 1000  # pairs; to start processes takes as long as to compare a few hundred


class EvidenceCache:
    """Evidence of the pairs of some photos.

    Attributes:
        evidence: Of each pair that was compared, here or in an earlier search, smaller row first.
        statistics: See `trunkfold.copies.cells.measure_cells`.
    """

    def __init__(self, records: Records, photos: Sequence[int], folder: Path, workers: int) -> None:
        """Read the evidence of earlier searches.

        Args:
            records: Of all photos.
            photos: Rows that may be compared.
            folder: Of the files; each set of photos has its own.
            workers: Number of threads or processes.
        """
        self._records, self._folder, self._workers = records, folder, workers
        self.statistics = measure_cells(records.of(photos))
        self.evidence: dict[Pair, Evidence] = {}
        self._looked_up: list[Pair] = []
        for file in sorted(folder.glob("evidence-*.npy")):
            self._add(np.load(file))

    def find_candidates(self, photos: Sequence[int]) -> np.ndarray:
        """Find candidates among some photos; see `trunkfold.copies.candidates.find_candidates`."""

        def find(_: slice) -> np.ndarray:
            records = self._records.of(photos)
            found = find_candidates(records, project(records.embeddings()), self._workers)
            found[:, :2] = np.array(photos, int)[found[:, :2]]
            return found

        return block_by_block(self._file("candidates", photos), 1, 1, find)[0]

    def compare(self, pairs: Sequence[Pair]) -> dict[Pair, Evidence]:
        """Compare pairs on all cores, unless their evidence is known."""
        new = [pair for pair in pairs if pair not in self.evidence]
        with start_workers(self._workers, len(new) >= MANY) as workers:

            def block(part: slice) -> np.ndarray:
                return _table(new[part], compare_pairs(workers, self._records, new[part], self.statistics))

            for table in block_by_block(self._file("evidence", new), len(new), PAIRS, block, "comparing pairs"):
                self._add(table)
        return {pair: self.evidence[pair] for pair in pairs}

    def look(self, one: int, other: int) -> Evidence:
        """Compare one pair, unless its evidence is known; `save` keeps it for later searches."""
        if (one, other) not in self.evidence:
            self.evidence[one, other] = compare(self._records[one], self._records[other], self.statistics)
            self._looked_up.append((one, other))
        return self.evidence[one, other]

    def save(self) -> None:
        """Save the evidence of the pairs that were looked up."""
        pairs = self._looked_up
        table = _table(pairs, [self.evidence[pair] for pair in pairs])
        block_by_block(self._file("evidence", pairs), len(pairs), max(len(pairs), 1), lambda _: table)

    def _file(self, kind: str, about: Sequence[int] | Sequence[Pair]) -> Path:
        """Return the prefix of the files about some photos or pairs."""
        digest = hashlib.blake2b(np.array(about, int).tobytes(), digest_size=8).hexdigest()
        return self._folder / f"{kind}-{digest}"

    def _add(self, table: np.ndarray) -> None:
        for one, other, *values in table.tolist():
            self.evidence[int(one), int(other)] = Evidence(*values)


def _table(pairs: Sequence[Pair], found: Sequence[Evidence]) -> np.ndarray:
    """Return one row per pair: the rows of both photos, and the fields of the evidence."""
    return np.array([(*pair, *astuple(evidence)) for pair, evidence in zip(pairs, found, strict=True)])
