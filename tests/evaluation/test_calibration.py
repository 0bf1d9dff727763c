"""Reliability equals a computation by hand, and temperature scaling recovers a known temperature."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from toys import argmax_table

from trunkfold.assessment import Bin
from trunkfold.evaluation.calibration import calibrate, fit_temperature, reliability, scale

CLASSES = {"1": "crack", "2": "dent", "3": "lamp"}


def make_table(truth: list[int], probabilities: np.ndarray) -> pd.DataFrame:
    labels = np.array(list(CLASSES))[truth]
    ids = [str(row) for row in range(len(truth))]
    return argmax_table(pd.DataFrame({"image_id": ids, "fold": 0, "label": labels}), probabilities, CLASSES)


def draw(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes drawn from the probabilities of random logits, and the logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, 3))
    probabilities = softmax(logits)
    return (rng.random((rows, 1)) > probabilities.cumsum(1)[:, :2]).sum(1), logits


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


TRUTH = [0, 1, 2, 1, 0]
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.7, 0.2, 0.1], [0.95, 0.03, 0.02], [0.6, 0.2, 0.2]],
)


def alone(table: pd.DataFrame) -> pd.Series:
    """Each photo is a group of its own."""
    return pd.Series(table["image_id"].to_numpy(), index=table["image_id"])


def test_reliability_is_that_computed_by_hand():
    """Few sources are one bin: 3 of 5 right, at a mean confidence of 0.73."""
    found = reliability(np.array(TRUTH), PROBABILITIES, np.arange(5))
    assert found["bins"] == [
        Bin(confidence=pytest.approx(0.73), accuracy=0.6, photos=5, interval=pytest.approx((0.231, 0.882), abs=1e-3))
    ]
    assert found["ece"] == pytest.approx(0.73 - 0.6)
    assert found["nll"] == pytest.approx(-(2 * np.log(0.7) + np.log(0.1) + np.log(0.03) + np.log(0.6)) / 5)


def test_bins_hold_equally_many_photos_and_copies_widen_their_intervals():
    truth, logits = draw(300)
    bins = reliability(truth, softmax(logits), np.arange(300))["bins"]
    assert [row.photos for row in bins] == [25] * 12
    assert [row.confidence for row in bins] == sorted(row.confidence for row in bins)
    order = np.argsort(softmax(logits).max(1), kind="stable")
    groups = np.empty(300, int)
    groups[order] = np.arange(300) // 3  # copies have equal confidences, as with a consensus
    copies = reliability(truth, softmax(logits), groups)["bins"]
    assert [row.photos for row in copies] == [60] * 5
    low, high = copies[0].interval
    share = copies[0].accuracy
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 20), rel=0.15)


def test_honest_probabilities_are_nearly_reliable_and_their_temperature_is_one():
    truth, logits = draw(20_000)
    assert reliability(truth, softmax(logits), np.arange(len(truth)))["ece"] < 0.015
    assert fit_temperature(truth, softmax(logits)) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_factor_of_the_logits_is_found_again(factor):
    truth, logits = draw(20_000)
    temperature = fit_temperature(truth, softmax(factor * logits))
    assert temperature == pytest.approx(factor, rel=0.03)
    np.testing.assert_allclose(scale(softmax(factor * logits), factor), softmax(logits), atol=1e-9)


def test_scaling_by_one_changes_nothing_and_by_more_no_decision():
    probabilities = softmax(draw(50)[1])
    np.testing.assert_allclose(scale(probabilities, 1.0), probabilities)
    flatter, sharper = scale(probabilities, 2.0), scale(probabilities, 0.5)
    for scaled in (flatter, sharper):
        np.testing.assert_allclose(scaled.sum(1), 1)
        assert (scaled.argmax(1) == probabilities.argmax(1)).all()
    assert (flatter.max(1) < probabilities.max(1)).all()
    assert (sharper.max(1) > probabilities.max(1)).all()


def test_the_hold_out_is_scaled_by_the_temperature_of_the_folds():
    """Out-of-fold three times too sure; held out honest, so that scaling makes these worse."""
    (truth, logits), (other, honest) = draw(5000), draw(2000, seed=1)
    oof, holdout = make_table(truth, softmax(3 * logits)), make_table(other, softmax(honest))
    found = calibrate(oof, holdout, alone(oof), CLASSES)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.oof.nll_scaled < found.oof.nll - 0.3
    assert found.oof.ece_scaled < 0.03 < 0.1 < found.oof.ece
    assert found.holdout.nll == pytest.approx(reliability(other, softmax(honest), np.arange(2000))["nll"])
    scaled = softmax(honest / found.temperature)
    assert found.holdout.nll_scaled == pytest.approx(reliability(other, scaled, np.arange(2000))["nll"])
    expected = reliability(other, scale(softmax(honest), found.temperature), np.arange(2000))
    assert found.holdout.bins_scaled == expected["bins"]
    assert found.holdout.ece_scaled > 0.1 > found.holdout.ece
    json.dumps(asdict(found))


def test_without_a_hold_out_there_is_only_the_one_row():
    table = make_table(TRUTH, PROBABILITIES)
    found = calibrate(table, None, alone(table), CLASSES)
    assert found.holdout is None
    assert set(vars(found.oof)) == {"ece", "nll", "bins", "ece_scaled", "nll_scaled", "bins_scaled"}


@pytest.mark.parametrize("truth", [[0, 1, 2], [0, 1, 1], [1, 2, 0]])
def test_certain_predictions_have_finite_numbers_right_or_wrong(truth):
    table = make_table(truth, np.eye(3))
    found = calibrate(table, None, alone(table), CLASSES)
    assert 0.05 <= found.temperature <= 20
    assert np.isfinite([getattr(found.oof, key) for key in ("nll", "nll_scaled", "ece_scaled")]).all()


def test_a_certain_mistake_can_be_made_less_certain():
    """Probabilities of 0 count as 1e-12, and at the highest temperature as 1e-12 to the power 1/20, which is 1/4."""
    table = make_table([1, 2, 0], np.eye(3))
    found = calibrate(table, None, alone(table), CLASSES)
    assert found.oof.nll == pytest.approx(-np.log(1e-12))
    assert found.oof.nll_scaled == pytest.approx(np.log(1.5 / 0.25), abs=0.02)
