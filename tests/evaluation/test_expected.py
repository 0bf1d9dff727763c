"""The expected score is the out-of-fold score plus the gain from averaging, with a valid interval."""

import numpy as np
import pandas as pd
import pytest

from trunkfold.assessment import Draws, Histogram, Luck, Range
from trunkfold.evaluation.expected import WIDER, expected_score

LABELS = ["x", "y"]


def table(first: int, truth: str, predicted: str) -> pd.DataFrame:
    """One letter per photo."""
    ids = [str(first + row) for row in range(len(truth))]
    return pd.DataFrame({"image_id": ids, "label": list(truth), "prediction": list(predicted)})


def expect(oof: pd.DataFrame, holdout: pd.DataFrame | None, alone, copies: int = 1, luck: Luck | None = None):
    tables = oof if holdout is None else pd.concat([oof, holdout])
    groups = pd.Series([int(name) // copies for name in tables["image_id"]], index=tables["image_id"])
    return expected_score(oof, holdout, alone, groups, LABELS, luck)


def test_the_gain_on_the_hold_out_is_added_to_the_out_of_fold_score():
    """Out-of-fold 6 of 8 are right in each class. Of 4 held-out photos of each class all are right by the ensemble but
    one, and 6 of 8 by both models together."""
    oof = table(0, "xxxxyyyy" * 2, "xxxyyyyx" * 2)
    holdout = table(100, "xxxxyyyy", "xxxxyyyx")
    found = expect(oof, holdout, [pd.Series(list("xxxyyyyx")), pd.Series(list("xxxyyyyx"))])
    measured = (8 / 9 + 6 / 7) / 2 - 0.75
    assert 0 < found.gain < measured / 5  # as eight photos tell little
    assert found.macro_f1 == pytest.approx(0.75 + found.gain)
    many = table(100, "xxxxyyyy" * 200, "xxxxyyyx" * 200)
    found = expect(oof, many, [pd.Series(list("xxxyyyyx" * 200))] * 2)
    assert 0.9 * measured < found.gain < measured
    perfect = expect(oof.assign(prediction=oof["label"]), many, [pd.Series(list("xxxyyyyx" * 200))] * 2)
    assert perfect.macro_f1 == 1


@pytest.mark.parametrize("known", ["no hold-out", "no single models"])
def test_without_a_gain_it_is_the_score_of_single_models(known):
    oof = table(0, "xxxxyyyy" * 2, "xxxyyyyx" * 2)
    found = expect(oof, None if known == "no hold-out" else table(100, "xxyy", "xxyy"), None)
    assert (found.gain, found.macro_f1, found.leaderboard) == (None, 0.75, None)
    low, high = found.interval
    assert low < 0.75 < high


def test_copies_widen_the_interval():
    oof = table(0, "xxxxyyyy" * 9, "xxxxyyyy" * 5 + "yyyyxxxx" * 4)
    widths = [np.ptp(expect(oof, None, None, copies).interval) for copies in (1, 4)]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.2)


def test_no_mistake_is_not_certainty():
    found = expect(table(0, "xy" * 30, "xy" * 30), None, None)
    assert found.macro_f1 == found.interval[1] == 1
    assert found.interval[0] == pytest.approx(1 - WIDER * 3 / 60)


def test_a_leaderboard_adds_its_own_luck():
    private = Draws(low=0.6, high=0.8, mean=0.7)
    luck = Luck(50, 0.4, 10, private, private, Range(0, 0), Histogram([], [], []), [])
    found = expect(table(0, "xxxxyyyy" * 2, "xxxyyyyx" * 2), None, None, luck=luck)
    low, high = found.interval
    expected = (0.75 - np.hypot(0.75 - low, 0.1), min(1, 0.75 + np.hypot(high - 0.75, 0.1)))
    assert found.leaderboard == pytest.approx(expected)


def simulate(seed: int, sources: int = 240, models: int = 5) -> bool:
    """Whether the interval covers the truth: each model is right by a source's ease, and by luck of its own."""
    rng = np.random.default_rng(seed)

    def predict(count: int, votes: int) -> tuple[np.ndarray, np.ndarray]:
        truth, ease = rng.integers(0, 2, count), rng.normal(0.8, 1, count)
        right = ease[:, None] + rng.normal(size=(count, votes))
        chosen = np.where(np.column_stack([right, right.mean(1)]) > 0, truth[:, None], 1 - truth[:, None])
        return np.array(LABELS)[truth], np.array(LABELS)[chosen]

    (oof_truth, oof), (truth, held) = predict(sources, 1), predict(sources // 6, models)
    (new, predicted) = predict(20_000, models)
    found = expect(
        table(0, oof_truth, oof[:, 0]),
        table(sources, truth, held[:, -1]),
        [pd.Series(held[:, model]) for model in range(models)],
    )
    low, high = found.interval
    return low <= np.mean(new == predicted[:, -1]) <= high  # macro F1 of two equal classes is the accuracy


def test_the_interval_covers_the_truth_in_most_simulations():
    """Of 40 simulations 38 are wanted; 32 or fewer are four standard errors less."""
    assert sum(map(simulate, range(40))) > 32
