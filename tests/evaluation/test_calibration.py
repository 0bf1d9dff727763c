"""Reliability is what a look at the table says, and the temperature is the one that spoilt the probabilities."""

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


# Three surest at 0.7 in the bin from 2/3 to 11/15, of which two are right; one at 0.95, wrong; one at 0.6, right.
TRUTH = [0, 1, 2, 1, 0]
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.7, 0.2, 0.1], [0.95, 0.03, 0.02], [0.6, 0.2, 0.2]],
)


def test_reliability_is_that_computed_by_hand():
    found = reliability(np.array(TRUTH), PROBABILITIES)
    assert found["bins"] == [
        Bin(confidence=pytest.approx(0.6), accuracy=1, photos=1),
        Bin(confidence=pytest.approx(0.7), accuracy=pytest.approx(2 / 3), photos=3),
        Bin(confidence=pytest.approx(0.95), accuracy=0, photos=1),
    ]
    assert found["ece"] == pytest.approx((0.4 + 3 * (0.7 - 2 / 3) + 0.95) / 5)
    assert found["nll"] == pytest.approx(-(2 * np.log(0.7) + np.log(0.1) + np.log(0.03) + np.log(0.6)) / 5)


def test_there_are_fifteen_bins_up_to_and_with_certainty():
    """0.4 to 1 in steps of 0.001, from the middle of one on: nine bins of 1/15, and rounding makes no tenth."""
    top = np.append(np.arange(0.4005, 1, 0.001), 1 + 1e-7)
    found = reliability(np.zeros(len(top), int), np.stack([top, (1 - top) / 2, (1 - top) / 2], 1))
    assert [row.photos for row in found["bins"]] == pytest.approx([66.8] * 9, abs=1.5)
    assert sum(row.photos for row in found["bins"]) == len(top)


def test_honest_probabilities_are_nearly_reliable_and_their_temperature_is_one():
    truth, logits = draw(20_000)
    assert reliability(truth, softmax(logits))["ece"] < 0.015
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
    found = calibrate(oof, holdout, CLASSES)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.oof.nll_scaled < found.oof.nll - 0.3
    assert found.oof.ece_scaled < 0.03 < 0.1 < found.oof.ece
    assert found.holdout.nll == pytest.approx(reliability(other, softmax(honest))["nll"])
    scaled = softmax(honest / found.temperature)
    assert found.holdout.nll_scaled == pytest.approx(reliability(other, scaled)["nll"])
    assert found.holdout.bins_scaled == reliability(other, scale(softmax(honest), found.temperature))["bins"]
    assert found.holdout.ece_scaled > 0.1 > found.holdout.ece
    json.dumps(asdict(found))


def test_without_a_hold_out_there_is_only_the_one_row():
    found = calibrate(make_table(TRUTH, PROBABILITIES), None, CLASSES)
    assert found.holdout is None
    assert set(vars(found.oof)) == {"ece", "nll", "bins", "ece_scaled", "nll_scaled", "bins_scaled"}


@pytest.mark.parametrize("truth", [[0, 1, 2], [0, 1, 1], [1, 2, 0]])
def test_certain_predictions_have_finite_numbers_right_or_wrong(truth):
    found = calibrate(make_table(truth, np.eye(3)), None, CLASSES)
    assert 0.05 <= found.temperature <= 20
    assert np.isfinite([getattr(found.oof, key) for key in ("nll", "nll_scaled", "ece_scaled")]).all()


def test_a_certain_mistake_can_be_made_less_certain():
    """Probabilities of 0 count as 1e-12, and at the highest temperature as 1e-12 to the power 1/20, which is 1/4."""
    found = calibrate(make_table([1, 2, 0], np.eye(3)), None, CLASSES)
    assert found.oof.nll == pytest.approx(-np.log(1e-12))
    assert found.oof.nll_scaled == pytest.approx(np.log(1.5 / 0.25), abs=0.02)
