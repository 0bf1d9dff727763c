"""Expected score of the ensemble on new photos: the out-of-fold score plus the gain from averaging the folds.

Out-of-fold photos are numerous, but each is predicted by a single model. The hold-out measures the ensemble, but on few
photos. Sampling error affects ensemble and single models alike, so their difference, the gain, is estimated more
precisely than either score. Still it is noisy on a small hold-out, so it is shrunk by its reliability.
`tests/benchmarks/bench_expected.py` measures the coverage of the interval.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from trunkfold.assessment import Expected, Interval, Luck
from trunkfold.evaluation.scores import bootstrap_macro_f1, counts_of_groups, interval

# Factor on the percentile bootstrap's width, which ignores that out-of-fold models share training photos. Measured by
# the benchmark.
WIDER = 1.2
# Standard deviation of true gains in macro F1; with the variance by sampling, it determines how much of a measured gain
# is believed.
TYPICAL = 0.03


def expected_score(
    oof: pd.DataFrame,
    holdout: pd.DataFrame | None,
    alone: Sequence[pd.Series] | None,
    groups: pd.Series,
    labels: list[str],
    luck: Luck | None,
) -> Expected:
    """Estimate the macro F1 of the ensemble on new photos of the same kind.

    Args:
        oof: image_id, label and prediction of the out-of-fold photos.
        holdout: The same for the held-out photos, predicted by the ensemble; None without a hold-out.
        alone: Labels of the held-out photos predicted by each single model, in the same rows; None if unknown.
        groups: Group of each image_id, the index; whole groups are resampled.
        luck: Simulated leaderboards, for the spread of a private score around its expectation.

    Returns:
        The expected score. If the gain is unknown (no hold-out, or `alone` is None), it is the score of single models,
        which is usually lower than that of the ensemble.
    """

    def counts(table: pd.DataFrame, predicted: pd.Series) -> np.ndarray:
        return counts_of_groups(table["label"], predicted, table["image_id"].map(groups), labels)

    single = counts(oof, oof["prediction"])
    score, drawn, gain = *bootstrap_macro_f1(single, seed=0), None
    if holdout is not None and alone is not None:
        ensemble, of_ensemble = bootstrap_macro_f1(counts(holdout, holdout["prediction"]), seed=1)
        singles, of_singles = bootstrap_macro_f1(sum(counts(holdout, predicted) for predicted in alone), seed=1)
        drawn_gain = of_ensemble - of_singles
        reliable = TYPICAL**2 / (TYPICAL**2 + drawn_gain.var())
        gain = float(reliable * (ensemble - singles))
        score, drawn = min(score + gain, 1.0), drawn + reliable * drawn_gain
    low, high = interval(drawn)
    if low == high:  # no mistakes: the interval follows from the rule of three
        low = score - 3 / len(single)
    known = float(max(score - WIDER * (score - low), 0)), float(min(score + WIDER * (high - score), 1))
    return Expected(score, known, _leaderboard(score, known, luck), gain)


def _leaderboard(score: float, known: Interval, luck: Luck | None) -> Interval | None:
    """Return the interval of a private score: uncertainty of the expected score plus sampling of the photos."""
    if luck is None:
        return None
    down = np.hypot(score - known[0], luck.private.mean - luck.private.low)
    up = np.hypot(known[1] - score, luck.private.high - luck.private.mean)
    return float(max(score - down, 0)), float(min(score + up, 1))
