"""Evidence for and against two photos being copies of one source, as calibrated log-odds.

The coefficients are data (evidence.json), fitted by tests/benchmarks/bench_copies_families.py. A fit on the pairs that
are candidates today joins more look-alikes, so those of an earlier fit were kept, see the architecture page.
"""

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from trunkfold.copies.alignment import FEWEST_INLIERS, Alignment, align
from trunkfold.copies.cell_alignment import align_cells
from trunkfold.copies.cells import Statistics, least_alike
from trunkfold.copies.likeness import compare_pixels
from trunkfold.copies.record import FEATURES

COEFFICIENTS = Path(__file__).with_name("evidence.json")
LIMITS = -6.0, 8.0  # of the log-odds: one deviating pair of three copies must not outweigh the others
NOT_ALIGNED = -1.0  # log-odds of photos that could not be aligned, as one in 10 heavily augmented copies cannot
RELIABLE = 12  # inliers of an alignment that hardly any two photos of different scenes reach
DECIDED = 1000.0  # log-odds of a verdict
Pair = tuple[int, int]  # rows of two photos, the smaller first


@dataclass(frozen=True)
class Evidence:
    """Findings of a comparison of two photos.

    Inliers and overlap do not enter the log-odds: photos of one background have as many as copies. Nor does the
    similarity of embeddings: among thousands of photos, some of different sources are as similar as strong crops.

    Attributes:
        inliers: Features that fit one map; 0 if the photos could not be aligned.
        overlap: Share of a photo that the other one also shows; the smaller of the two shares.
        agreement: Share of the overlap that looks alike, weighted by contrast, where both photos have contrast.
        least_alike: Similarity of a network's local features in the region that differs most, -1 to 1.
        verdict: 1 if the photos are known to be copies (equal pixels, or a person said so), -1 if known to differ.
    """

    inliers: int = 0
    overlap: float = 0.0
    agreement: float = 0.0
    least_alike: float = 0.0
    verdict: int = 0

    @functools.cached_property
    def strength(self) -> float:
        """Log-odds without limits, which order links."""
        if self.verdict:
            return self.verdict * DECIDED
        if not self.inliers:
            return NOT_ALIGNED
        return coefficients()["intercept"] + sum(coefficients()[name] * value for name, value in self.terms().items())

    @property
    def log_odds(self) -> float:
        """Logarithm of the odds that the photos are copies, within limits."""
        if self.verdict:
            return self.strength
        return min(max(self.strength, LIMITS[0]), LIMITS[1])

    @property
    def probability(self) -> float:
        """Probability that the photos are copies."""
        return float(expit(self.log_odds))

    def terms(self) -> dict[str, float]:
        """Return the terms of the logistic model of aligned photos."""
        return {"log disagreement": math.log(1.02 - self.agreement), "least alike": self.least_alike}


IDENTICAL = Evidence(FEATURES, 1.0, 1.0, 1.0, verdict=1)


def compare(one: np.ndarray, other: np.ndarray, statistics: Statistics) -> Evidence:
    """Compare two photos, unchanged and mirrored.

    Args:
        one: A scalar of `trunkfold.copies.record.RECORD`.
        other: A scalar of another photo.
        statistics: Of the cells of all photos.
    """
    return compare_aligned(one, other, statistics)[0]


def compare_aligned(one: np.ndarray, other: np.ndarray, statistics: Statistics) -> tuple[Evidence, Alignment | None]:
    """Compare two photos, see `compare`; also return the alignment by which they agree best."""
    if min(one["count"], other["count"]) < FEWEST_INLIERS:  # without details, different photos look alike
        return Evidence(), None
    alignment = align(one, other)
    found = [(_agreement(one, other, alignment, statistics), alignment)] if alignment else []
    if not found or (alignment.inliers < RELIABLE and found[0][0].strength < 0):
        alignment = align_cells(one, other, statistics)
        found += [(_agreement(one, other, alignment, statistics), alignment)] if alignment else []
    return max(found, key=lambda pair: pair[0].strength, default=(Evidence(), None))


def _agreement(one: np.ndarray, other: np.ndarray, alignment: Alignment, statistics: Statistics) -> Evidence:
    pixels, cells = compare_pixels(one, other, alignment), least_alike(one, other, alignment, statistics)
    return Evidence(alignment.inliers, *pixels, cells)


@functools.cache
def coefficients() -> dict[str, float]:
    """Read the coefficients of the logistic model."""
    return json.loads(COEFFICIENTS.read_text(encoding="utf-8"))
