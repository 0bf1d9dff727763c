"""Precision and recall of the search for copies under augmentations that it was not calibrated on.

    python tests/benchmarks/bench_copies_families.py                  # development sources
    python tests/benchmarks/bench_copies_families.py --part final     # sources and families that decided nothing
    python tests/benchmarks/bench_copies_families.py --fit            # writes the coefficients of the search

Each family of augmentation (`copy_families.py`) makes a data set of three copies of each source. The coefficients are
fitted on the development sources of all families but one, and judged on that one. Look-alikes (`look_alikes.py`) are
pairs of different photos that share a background, an object or a template; three copies of each are another data set.
--photos is a competition beside a file photos_truth.csv with image_id, set and source; one photo per source is used.
Candidates are the share of pairs of copies that were compared in detail; precision and recall are of pairs of photos.
"""

import argparse
import json
import pickle
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pandas as pd
from copy_families import FAMILIES, FINAL, MIXED, make_copy
from look_alikes import KINDS, make_look_alikes
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from trunkfold.copies import evidence as scoring
from trunkfold.copies.candidates import find_candidates
from trunkfold.copies.descriptors import RECORD, describe_photo
from trunkfold.copies.embedding import one_thread, whiten
from trunkfold.copies.evidence import Evidence, compare
from trunkfold.copies.grouping import join
from trunkfold.data.photos import read_photo

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"
COPIES = 3
HELD_BACK = 0.4  # share of the sources that are judged last
LOOK_ALIKES = "look-alikes"
PAIRS_PER_KIND = 40
OTHERS_WEIGHT = 3  # of aligned pairs that are no copies: nearly all are look-alikes, and joining them is worse


def main() -> None:
    """Make, describe, compare, fit, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--part", choices=["development", "final"], default="development")
    parser.add_argument("--sources", type=int, default=1000, help="at most, of each part (default: all)")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "trunkfold-bench-families")
    options = parser.parse_args()
    with one_thread():
        parts = dict(zip(("development", "final"), _split(options.photos), strict=True))
        parts = {name: paths[: options.sources] for name, paths in parts.items()}
        data = {name: DataSet.load(options.work, "development", name, parts["development"]) for name in _developed()}
        if options.fit:
            scoring.COEFFICIENTS.write_text(json.dumps(fit(list(data.values())), indent=2) + "\n", encoding="utf-8")
            return
        judged = data
        if options.part == "final":
            names = (*FAMILIES, LOOK_ALIKES)
            judged = {name: DataSet.load(options.work, "final", name, parts["final"]) for name in names}
        print(f"{'family':<16}{'photos':>8}{'candidates':>12}{'precision':>11}{'recall':>9}{'false pairs':>13}")
        for name, one in judged.items():
            print(
                judge(
                    name, one, fit([other for family, other in data.items() if family != name or name == LOOK_ALIKES])
                ),
                flush=True,
            )


def _developed() -> list[str]:
    return [*(family for family in FAMILIES if family not in FINAL), LOOK_ALIKES]


class DataSet:
    """Copies of some sources, described, and the evidence of candidate pairs and of all pairs of copies.

    Attributes:
        source: Source of each photo.
        records: Description of each photo.
        embeddings: Whitened embeddings.
        candidates: Pairs that the search compares.
        evidence: Of the candidates and of all true pairs.
        negatives: Pairs of look-alikes, for fitting.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        rng = np.random.default_rng([*name.encode()])
        photos = _make(name, [read_photo(path) for path in paths], rng)
        self.source = np.repeat(np.arange(len(photos)), COPIES)
        with tempfile.TemporaryDirectory() as folder:
            copies = [copy for own in photos for copy in own]
            self.records = np.array([_describe(copy, Path(folder)) for copy in tqdm(copies, name)], RECORD)
        self.embeddings = whiten(self.records["embedding"])
        self.candidates = set(map(tuple, find_candidates(self.records, self.embeddings, 1).tolist()))
        alike = self.source // 2 if name == LOOK_ALIKES else self.source
        self.negatives = _pairs(alike) - _pairs(self.source)
        wanted = self.candidates | _pairs(self.source) | self.negatives
        self.evidence = {pair: self.look(*pair) for pair in tqdm(sorted(wanted), name)}

    def look(self, one: int, other: int) -> Evidence:
        """Compare two photos."""
        return compare(self.records[one], self.records[other], float(self.embeddings[one] @ self.embeddings[other]))

    @property
    def true_pairs(self) -> set[tuple[int, int]]:
        """Pairs of copies."""
        return _pairs(self.source)

    @classmethod
    def load(cls, work: Path, part: str, name: str, paths: Sequence[Path]) -> "DataSet":
        """Read an earlier run's data set, or make it."""
        work.mkdir(parents=True, exist_ok=True)
        file = work / f"{part}-{name.replace(' ', '-')}-{len(paths)}.pickle"
        if not file.exists():
            file.write_bytes(pickle.dumps(cls(name, paths)))
        return pickle.loads(file.read_bytes())


def _make(name: str, photos: list[np.ndarray], rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Return the copies of each source."""
    if name != LOOK_ALIKES:
        return [[make_copy(photo, name, rng) for _ in range(COPIES)] for photo in photos]
    pairs = [
        make_look_alikes(kind, [photos[place] for place in rng.permutation(len(photos))[:3]], rng)
        for kind in KINDS
        for _ in range(PAIRS_PER_KIND)
    ]
    families = [MIXED[rng.integers(len(MIXED))] for _ in range(COPIES * 2 * len(pairs))]
    return [[make_copy(photo, families.pop(), rng) for _ in range(COPIES)] for pair in pairs for photo in pair]


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


def fit(data: Sequence[DataSet]) -> dict:
    """Fit the logistic models of aligned photos and of the others."""
    rows = [
        (found, pair in one.true_pairs)
        for one in data
        for pair, found in one.evidence.items()
        if not one.negatives or pair in one.negatives
    ]
    models = {}
    for kind, aligned in (("aligned", True), ("not aligned", False)):
        chosen = [(found, true) for found, true in rows if bool(found.inliers) == aligned]
        terms = pd.DataFrame([found.terms() for found, _ in chosen])
        truth = np.array([true for _, true in chosen])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=3000))
        weights = np.where(truth, 1, OTHERS_WEIGHT * truth.sum() / (~truth).sum()) if aligned else None
        scaler, logistic = (
            step for _, step in model.fit(terms, truth, logisticregression__sample_weight=weights).steps
        )
        slopes = logistic.coef_[0] / scaler.scale_
        intercept = logistic.intercept_[0] - slopes @ scaler.mean_
        models[kind] = {"intercept": round(float(intercept), 4)}
        models[kind] |= {name: round(float(slope), 4) for name, slope in zip(terms, slopes, strict=True)}
    return models


def judge(name: str, data: DataSet, coefficients: dict) -> str:
    """Group the photos of a data set with these coefficients, and describe the result in one line."""
    links = {pair: Evidence(**_fields(data.evidence[pair])) for pair in data.candidates}
    with patch.object(scoring, "coefficients", lambda: coefficients):
        groups = join(range(len(data.source)), links, data.look)
    found = {pair for group in groups for pair in combinations(group.members, 2)}
    true = data.true_pairs
    right = len(found & true)
    reached = len(true & data.candidates) / len(true)
    return (
        f"{name:<16}{len(data.source):>8}{reached:>12.3f}{right / max(len(found), 1):>11.4f}"
        f"{right / len(true):>9.3f}{len(found) - right:>13}"
    )


def _fields(evidence: Evidence) -> dict:
    return {name: getattr(evidence, name) for name in Evidence.__dataclass_fields__}


def _pairs(names: np.ndarray) -> set[tuple[int, int]]:
    rows = pd.Series(names).groupby(names).indices.values()
    return {(int(one), int(other)) for own in rows for one, other in combinations(sorted(own), 2)}


if __name__ == "__main__":
    main()
