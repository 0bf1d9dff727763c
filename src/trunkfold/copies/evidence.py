"""Evidence for and against two photos being copies of one source, as calibrated log-odds.

The coefficients are data (evidence.json): tests/benchmarks/bench_copies_families.py fits them.
"""

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from trunkfold.copies.alignment import align
from trunkfold.copies.confirmation import confirm
from trunkfold.copies.descriptors import FEATURES
from trunkfold.copies.likeness import compare_pixels

COEFFICIENTS = Path(__file__).with_name("evidence.json")
LIMITS = -6.0, 8.0  # of the log-odds: its fit has too few photos to show more
NOT_ALIGNED = -2.5  # lowest log-odds of photos that could not be aligned, as one in 20 copies cannot
DECIDED = 1000.0  # log-odds of a verdict


@dataclass(frozen=True)
class Evidence:
    """Findings of a comparison of two photos.

    Attributes:
        similarity: Of their whitened embeddings, -1 to 1.
        inliers: Features that fit one map; 0 if the photos could not be aligned.
        overlap: Share of a photo that the other one also shows; the smaller of the two shares.
        agreement: Share of the overlap that looks alike, weighted by contrast.
        difference: Share that looks different in the most different region; regions are a fifth of a photo long.
        shared_agreement: Agreement where both photos have contrast.
        shared_difference: Difference where both have contrast.
        confirmed: Share of the features in the overlap that the other photo confirms.
        missing: Evidence that a region lacks them beyond chance, see `trunkfold.copies.confirmation`.
        verdict: 1 if the photos are known to be copies (equal pixels, or a person said so), -1 if known to differ.
    """

    similarity: float = 0.0
    inliers: int = 0
    overlap: float = 0.0
    agreement: float = 0.0
    difference: float = 1.0
    shared_agreement: float = 0.0
    shared_difference: float = 1.0
    confirmed: float = 0.0
    missing: float = 0.0
    verdict: int = 0

    @functools.cached_property
    def strength(self) -> float:
        """Log-odds without limits, which order links."""
        if self.verdict:
            return self.verdict * DECIDED
        model = coefficients()["aligned" if self.inliers else "not aligned"]
        return model["intercept"] + sum(model[name] * value for name, value in self.terms().items())

    @property
    def log_odds(self) -> float:
        """Logarithm of the odds that the photos are copies, within limits."""
        if self.verdict:
            return self.strength
        return min(max(self.strength, LIMITS[0] if self.inliers else NOT_ALIGNED), LIMITS[1])

    @property
    def probability(self) -> float:
        """Probability that the photos are copies."""
        return float(expit(self.log_odds))

    def terms(self) -> dict[str, float]:
        """Return the terms of the logistic model."""
        if not self.inliers:
            return {"similarity": self.similarity}
        return {
            "similarity": self.similarity,
            "log overlap": math.log(self.overlap + 0.05),
            "log disagreement": math.log(1.02 - self.agreement),
            "log shared disagreement": math.log(1.02 - self.shared_agreement),
            "log difference": math.log(self.difference + 0.05),
            "log shared difference": math.log(self.shared_difference + 0.05),
            "confirmed": self.confirmed,
            "log missing": math.log1p(self.missing),
        }


IDENTICAL = Evidence(1.0, FEATURES, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, verdict=1)


def compare(one: np.ndarray, other: np.ndarray, similarity: float) -> Evidence:
    """Compare two photos, unchanged and mirrored.

    Args:
        one: A scalar of `trunkfold.copies.descriptors.RECORD`.
        other: A scalar of another photo.
        similarity: Of their whitened embeddings.
    """
    alignment = align(one, other)
    if alignment is None:
        return Evidence(similarity)
    likeness, confirmation = compare_pixels(one, other, alignment), confirm(one, other, alignment)
    return Evidence(similarity, alignment.inliers, *likeness, *confirmation)


@functools.cache
def coefficients() -> dict[str, dict[str, float]]:
    """Read the coefficients of both models: of aligned photos and of the others."""
    return json.loads(COEFFICIENTS.read_text(encoding="utf-8"))
