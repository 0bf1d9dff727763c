"""Precision and recall of the search for copies under augmentations that it was not calibrated on.

    python tests/benchmarks/bench_copies_families.py                  # development sources
    python tests/benchmarks/bench_copies_families.py --part final     # sources and families that decided nothing
    python tests/benchmarks/bench_copies_families.py --fit            # writes the coefficients of the search

Each family of augmentation (`copy_families.py`) makes a data set of three copies of each source. The coefficients, and
the directions in which augmentation moves embeddings, are fitted on the development sources of all families but one,
and judged on that one. Look-alikes (`look_alikes.py`) are pairs of different photos that share much; three copies of
each are another data set, and each kind is judged with coefficients fitted without it. No source photo is in two pairs
of look-alikes.
--photos is a competition beside a file photos_truth.csv with image_id, set and source; one photo per source is used.
Candidates are the share of pairs of copies that were candidates; precision and recall are of pairs of photos.
Missed links are pairs of groups that were wrongly kept apart: the number that the search expects, and the true one.
--work keeps the descriptions of the photos for later runs.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pandas as pd
from copy_families import FAMILIES, FINAL, MIXED, make_copy
from look_alikes import KINDS, make_look_alikes
from scipy.linalg import eigh
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from trunkfold.copies import embedding
from trunkfold.copies import evidence as scoring
from trunkfold.copies.candidates import are_similar, share_words, unique_pairs
from trunkfold.copies.cells import measure_cells
from trunkfold.copies.descriptors import describe_photo
from trunkfold.copies.doubts import expected_errors, find_doubts
from trunkfold.copies.embedding import one_thread, project
from trunkfold.copies.evidence import Evidence, Pair, compare
from trunkfold.copies.grouping import join
from trunkfold.copies.proposals import Proposals
from trunkfold.copies.record import EMBEDDING, RECORD
from trunkfold.copies.search import VERSION
from trunkfold.data.photos import read_photo

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"
COPIES = 3
HELD_BACK = 0.4  # share of the sources that are judged last
LOOK_ALIKES = "look-alikes"
DIRECTIONS = 128  # of EMBEDDING; with all of them, no more copies were candidates
PAIRS_PER_KIND = 24
OTHERS_WEIGHT = 10  # of aligned pairs that are no copies: nearly all are look-alikes, and joining them is worse

Directions = tuple[np.ndarray, np.ndarray]  # as `embedding.moved_by_augmentation`


def main() -> None:
    """Make, describe, compare, fit, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--part", choices=["development", "final"], default="development")
    parser.add_argument("--sources", type=int, default=120, help="at most, of each part and family")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--shipped", action="store_true", help="judge the search's own directions and coefficients")
    parser.add_argument("--uneven", action="store_true", help="judge one, two or three copies of each source")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "trunkfold-bench-families")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    with one_thread():
        parts = dict(zip(("development", "final"), _split(options.photos), strict=True))
        data = _load(options, "development", parts["development"], _developed())
        if options.fit:
            directions, variances = moved(data.values())
            np.savez(embedding.MOVED, directions=directions.astype(np.float16), variances=variances)
            text = json.dumps(fit(data.values(), (directions, variances)), indent=2)
            scoring.COEFFICIENTS.write_text(text + "\n", encoding="utf-8")
            return
        judged = data
        if options.part == "final":
            judged = _load(options, "final", parts["final"], (*FAMILIES, LOOK_ALIKES))
        if options.uneven:
            judged = {name: one.uneven() for name, one in judged.items()}
        columns = f"{'photos':>8}{'candidates':>12}{'precision':>11}{'recall':>9}{'false pairs':>13}{'missed':>10}"
        print(f"{'family':<32}{columns}")
        for name, one in judged.items():
            for kind in KINDS if name == LOOK_ALIKES else (None,):
                others = [other for family, other in data.items() if kind or family != name]
                directions = embedding.moved_by_augmentation() if options.shipped else moved(others)
                chosen = scoring.coefficients() if options.shipped else fit(others, directions, kind)
                print(judge(kind or name, one, directions, chosen, kind), flush=True)


def _developed() -> list[str]:
    return [*(family for family in FAMILIES if family not in FINAL), LOOK_ALIKES]


def _load(options: argparse.Namespace, part: str, paths: list[Path], names: Sequence[str]) -> dict[str, "DataSet"]:
    """Make the data sets of one part; look-alikes use all of its sources."""
    data = {}
    for name in names:
        own = paths if name == LOOK_ALIKES else paths[: options.sources]
        file = options.work / f"{VERSION}-{part}-{name.replace(' ', '-')}-{len(own)}.npy"
        if not file.exists():
            rng = np.random.default_rng([*(name if part == "development" else f"{name} {part}").encode()])
            np.save(file, _describe_all(name, own, rng))
        data[name] = DataSet(name, np.load(file), len(own))
    return data


class DataSet:
    """Copies of some sources, described, and the evidence of pairs.

    Attributes:
        source: Source of each photo.
        kind: Kind of look-alikes of each photo; "" if it has none.
        records: Description of each photo.
        negatives: Pairs of look-alikes, for fitting.
    """

    def __init__(self, name: str, records: np.ndarray, sources: int, copies: Sequence[int] | None = None) -> None:
        self.name, self.records, self.sources = name, records, sources
        if copies is None:
            copies = [COPIES] * (len(records) // COPIES)
        self.source = np.repeat(np.arange(len(copies)), copies)
        kinds = _kinds_of_pairs(sources) if name == LOOK_ALIKES else [""] * len(self.records)
        self.kind = np.array([kinds[source // 2] for source in self.source])
        self.negatives = _pairs(self.source // 2) - self.true_pairs if name == LOOK_ALIKES else set()
        self._statistics, self._common_words = measure_cells(self.records), share_words(self.records, 1)
        self._evidence: dict[tuple[int, int], Evidence] = {}

    def candidates(self, directions: Directions, photos: Sequence[int] | None = None) -> np.ndarray:
        """Return the candidates among some photos, by default all, and their ranks: (pairs, 3).

        Depends on the directions that augmentation moves embeddings in.
        """
        rows = np.arange(len(self.records)) if photos is None else np.array(photos)
        with patch.object(embedding, "moved_by_augmentation", lambda: directions):
            similar = are_similar(self.records[rows], project(self.records["embedding"][rows]), 1)
        everything = len(rows) == len(self.records)
        found = unique_pairs(self._common_words if everything else share_words(self.records[rows], 1), similar)
        found[:, :2] = rows[found[:, :2]]
        return found

    def look(self, one: int, other: int) -> Evidence:
        """Compare two photos."""
        if (one, other) not in self._evidence:
            self._evidence[one, other] = compare(self.records[one], self.records[other], self._statistics)
        return replace(self._evidence[one, other])  # without the strength that other coefficients gave it

    def uneven(self) -> "DataSet":
        """Return one, two or three copies of each source, by turns."""
        copies = [1 + source % COPIES for source in range(len(self.records) // COPIES)]
        kept = [COPIES * source + copy for source, own in enumerate(copies) for copy in range(own)]
        return DataSet(self.name, self.records[kept], self.sources, copies)

    @property
    def true_pairs(self) -> set[tuple[int, int]]:
        """Pairs of copies."""
        return _pairs(self.source)


def _describe_all(name: str, paths: Sequence[Path], rng: np.random.Generator) -> np.ndarray:
    photos = _make(name, [read_photo(path) for path in paths], rng)
    with tempfile.TemporaryDirectory() as folder:
        copies = [copy for own in photos for copy in own]
        return np.array([_describe(copy, Path(folder)) for copy in tqdm(copies, name, leave=False)], RECORD)


def _make(name: str, photos: list[np.ndarray], rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Return the copies of each source."""
    if name != LOOK_ALIKES:
        return [[make_copy(photo, name, rng) for _ in range(COPIES)] for photo in photos]
    pairs = []
    for kind in _kinds_of_pairs(len(photos)):
        pairs.append(make_look_alikes(kind, photos[: KINDS[kind]], rng))
        photos = photos[KINDS[kind] :]  # a photo of two pairs would have copies in both
    families = [MIXED[rng.integers(len(MIXED))] for _ in range(COPIES * 2 * len(pairs))]
    return [[make_copy(photo, families.pop(), rng) for _ in range(COPIES)] for pair in pairs for photo in pair]


def _kinds_of_pairs(photos: int) -> list[str]:
    """Return the kind of each pair of look-alikes that so many photos suffice for."""
    return list(KINDS) * min(PAIRS_PER_KIND, photos // sum(KINDS.values()))


def _describe(pixels: np.ndarray, folder: Path) -> np.ndarray:
    cv2.imwrite(str(folder / "copy.png"), pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return describe_photo(folder / "copy.png")


def _split(photos: Path) -> tuple[list[Path], list[Path]]:
    """Return one photo of each source, for development and for judging."""
    truth = pd.read_csv(photos.with_name("photos_truth.csv"), dtype=str).drop_duplicates("source").sort_values("source")
    paths = [next(photos.glob(f"{row.set}/**/images/{row.image_id}.*")) for row in truth.itertuples()]
    order = np.random.default_rng(17).permutation(len(paths))
    held_back = round(HELD_BACK * len(paths))
    return [paths[place] for place in order[held_back:]], [paths[place] for place in order[:held_back]]


def moved(data: Iterable[DataSet]) -> Directions:
    """Fit the directions in which augmentation moves the embeddings of a source."""
    families = [one.records["embedding"].astype(np.float32) for one in data if one.name != LOOK_ALIKES]
    copies = np.concatenate([family.reshape(-1, COPIES, EMBEDDING) for family in families], axis=1)
    deviations = (copies - copies.mean(1, keepdims=True)).reshape(-1, EMBEDDING)
    covariance = deviations.T @ deviations / (len(copies) * (copies.shape[1] - 1))
    variances, directions = eigh(covariance, subset_by_index=[EMBEDDING - DIRECTIONS, EMBEDDING - 1])
    return directions, variances


def fit(data: Iterable[DataSet], directions: Directions, without: str | None = None) -> dict[str, float]:
    """Fit the logistic model of aligned photos, without a kind of look-alikes."""
    rows = []
    for one in data:
        if one.negatives:
            pairs = {pair for pair in one.negatives if one.kind[pair[0]] != without}
        else:
            pairs = {*map(tuple, one.candidates(directions)[:, :2].tolist()), *one.true_pairs}
        looked = ((one.look(*pair), pair in one.true_pairs) for pair in tqdm(sorted(pairs), one.name, leave=False))
        rows += [(found, true) for found, true in looked if found.inliers]
    terms = pd.DataFrame([found.terms() for found, _ in rows])
    truth = np.array([true for _, true in rows])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=3000))
    weights = np.where(truth, 1, OTHERS_WEIGHT * truth.sum() / (~truth).sum())
    scaler, logistic = (step for _, step in model.fit(terms, truth, logisticregression__sample_weight=weights).steps)
    slopes = logistic.coef_[0] / scaler.scale_
    intercept = logistic.intercept_[0] - slopes @ scaler.mean_
    named = dict(zip(("intercept", *terms), (intercept, *slopes), strict=True))
    return {name: round(float(value), 4) for name, value in named.items()}


def judge(name: str, data: DataSet, directions: Directions, coefficients: dict, kind: str | None = None) -> str:
    """Group the photos of a data set with these coefficients, and describe the result, of one kind, in one line."""
    proposals, known = Proposals(range(len(data.source)), partial(data.candidates, directions)), {}

    def look(one: int, other: int) -> Evidence:
        return known.setdefault((one, other), data.look(one, other))

    def compare_all(pairs: list[Pair]) -> dict[Pair, Evidence]:
        return {pair: look(*pair) for pair in pairs}

    with patch.object(scoring, "coefficients", lambda: coefficients):
        links = compare_all(proposals.closest())
        groups = join(range(len(data.source)), links, look, lambda photos: compare_all(proposals.further(photos)))
        expected = expected_errors(find_doubts(groups, known))
    wanted = set(np.flatnonzero((data.kind == kind) | (kind is None)).tolist())
    found = {pair for group in groups for pair in combinations(group.members, 2) if wanted.intersection(pair)}
    true = {pair for pair in data.true_pairs if wanted.intersection(pair)}
    right = len(found & true)
    reached = len(true & (proposals.proposed | set(map(tuple, data.candidates(directions)[:, :2].tolist())))) / len(
        true
    )
    line = (
        f"{name:<32}{len(wanted):>8}{reached:>12.3f}{right / max(len(found), 1):>11.4f}"
        f"{right / len(true):>9.3f}{len(found) - right:>13}"
    )
    if kind:
        return line  # decisions are about groups of all kinds
    parts = pd.Series([data.source[group.members[0]] for group in groups]).value_counts()
    missed = int((parts * (parts - 1) // 2).sum())  # pairs of groups of one source, which are what doubts are about
    return f"{line}{expected['missed']:>10.1f} of {missed}"


def _pairs(names: np.ndarray) -> set[tuple[int, int]]:
    rows = pd.Series(names).groupby(names).indices.values()
    return {(int(one), int(other)) for own in rows for one, other in combinations(sorted(own), 2)}


if __name__ == "__main__":
    main()
