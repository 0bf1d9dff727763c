"""Class shares of each set of photos, and tests whether two sets differ by more than chance."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from trunkfold.split.folds import HELD_OUT, ONLY_LEARNED, learned_from

DRAWS, COVERAGE = 2000, 0.95


@dataclass(frozen=True)
class Shift:
    """Difference between two class distributions.

    Attributes:
        distance: Total variation distance: the share of photos whose class would have to change.
        chance: 95 % quantile of the distance under sampling from the same distribution.
        classes: Classes that differ significantly, largest difference first: name and share in each set; empty if the
            distance is compatible with chance.
    """

    distance: float
    chance: float
    classes: list[tuple[str, float, float]]


def class_shares(folds: pd.DataFrame, predicted: Mapping[str, int], classes: Mapping[str, str]) -> pd.DataFrame:
    """Compute the share of each class (rows) in each non-empty set of photos (columns).

    Args:
        folds: label and fold of each labelled photo.
        predicted: Number of test photos predicted as each class; empty without a submission.
    """
    fold = folds["fold"].astype(int)
    sets = {
        "trained on" if (fold == ONLY_LEARNED).any() else "in the folds": learned_from(fold.to_numpy()),
        "validation": (fold >= 0).to_numpy() & ~learned_from(fold.to_numpy()),
        "hold-out": (fold == HELD_OUT).to_numpy(),
    }
    counts = {title: folds["label"][rows].map(classes).value_counts() for title, rows in sets.items() if rows.any()}
    if predicted:
        counts["predicted for the test photos"] = pd.Series(predicted)
    table = pd.DataFrame(counts).reindex(list(classes.values())).fillna(0)
    return table / table.sum()


def compare_shares(one: pd.Series, other: pd.Series, sources: tuple[int, int]) -> Shift:
    """Test whether two sets of photos have the same class distribution.

    Args:
        one: Number of photos of each class, by name.
        other: The same for the other set.
        sources: Number of sources in each set: the effective sample size, since copies are not independent.
    """
    shares = [counts.to_numpy(float) / counts.sum() for counts in (one, other)]
    pooled = (one + other).to_numpy(float) / (one + other).sum()
    rng = np.random.default_rng(0)
    drawn = [rng.multinomial(size, pooled, DRAWS) / size for size in sources]
    by_chance, found = np.abs(drawn[0] - drawn[1]), np.abs(shares[0] - shares[1])
    distance, chance = found.sum() / 2, np.quantile(by_chance.sum(1) / 2, COVERAGE)
    differing = np.flatnonzero(found > np.quantile(by_chance, COVERAGE, axis=0)) if distance > chance else []
    ordered = sorted(differing, key=lambda place: -found[place])
    names = [(str(one.index[place]), float(shares[0][place]), float(shares[1][place])) for place in ordered]
    return Shift(float(distance), float(chance), names)
