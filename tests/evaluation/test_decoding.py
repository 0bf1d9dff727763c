"""Decoding for macro F1 finds the optimum of small sets, and improves on argmax for skewed ones."""

import itertools

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from trunkfold.evaluation.decoding import decode, decode_labelled

CLASSES = {"7": "crack", "04": "dent", "b": "lamp"}


def expected(probabilities, labels):
    """Expected macro F1 as the ratio of expectations, class by class."""
    total = 0.0
    for place in range(probabilities.shape[1]):
        chosen = labels == place
        total += 2 * probabilities[chosen, place].sum() / (chosen.sum() + probabilities[:, place].sum())
    return total / probabilities.shape[1]


def test_hardly_any_labelling_of_a_small_set_is_expected_to_be_better():
    misses = []
    for seed in range(20):
        probabilities = np.random.default_rng(seed).dirichlet([2.0, 1.0, 0.3], size=7)
        best = max(expected(probabilities, np.array(labels)) for labels in itertools.product(range(3), repeat=7))
        found = expected(probabilities, decode(probabilities, "macro_f1"))
        assert found >= expected(probabilities, probabilities.argmax(1))
        misses.append(best - found)
    assert np.mean(misses) < 0.01
    assert np.mean(np.array(misses) < 1e-9) >= 0.7


def test_a_rare_class_that_never_wins_is_predicted_where_it_is_likeliest():
    probabilities = np.array([[0.9, 0.1]] * 50 + [[0.6, 0.4]] * 3)
    assert probabilities.argmax(1).sum() == 0
    assert decode(probabilities, "macro_f1").tolist() == [0] * 50 + [1] * 3
    assert decode(probabilities, "accuracy").sum() == 0


def skewed(seed, rows=600, shares=(0.85, 0.12, 0.03), strength=1.4):
    """Truth and the exact posterior of photos whose evidence is Gaussian, so that the probabilities are calibrated."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, rows, p=shares)
    evidence = strength * np.eye(3)[truth] + rng.normal(size=(rows, 3))
    logits = strength * evidence + np.log(shares)
    posterior = np.exp(logits - logits.max(1, keepdims=True))
    return truth, posterior / posterior.sum(1, keepdims=True)


def test_macro_f1_rises_on_skewed_classes():
    gains = []
    for seed in range(20):
        truth, posterior = skewed(seed)
        scores = [f1_score(truth, decode(posterior, metric), average="macro") for metric in ("macro_f1", "accuracy")]
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) > 0.02
    assert np.mean(np.array(gains) > 0) >= 0.75


def test_overconfident_probabilities_are_decoded_by_their_temperature():
    _, posterior = skewed(0)
    sharp = posterior**3 / (posterior**3).sum(1, keepdims=True)
    np.testing.assert_array_equal(decode(sharp, "macro_f1", temperature=3.0), decode(posterior, "macro_f1"))
    assert (decode(sharp, "macro_f1") != decode(posterior, "macro_f1")).any()


def table(truth, fold):
    return pd.DataFrame({"label": np.array(list(CLASSES))[truth], "fold": fold})


def test_the_temperature_of_a_fold_is_fitted_on_the_others(monkeypatch):
    truth, posterior = skewed(1, rows=90)
    fold = np.repeat([0, 1, 2, -1], [20, 25, 30, 15])
    fitted = []
    monkeypatch.setattr(
        "trunkfold.evaluation.decoding.fit_temperature", lambda truth, _: fitted.append(truth.tolist()) or 1.0
    )
    decode_labelled(posterior, table(truth, fold), CLASSES, "macro_f1")
    assert fitted == [truth[(fold >= 0) & (fold != left)].tolist() for left in (0, 1, 2, -1)]


def test_sets_are_decoded_apart_and_rows_that_nothing_predicts_are_ignored():
    truth, posterior = skewed(2, rows=90)
    fold = np.repeat([0, 1, -1, -2], [30, 30, 20, 10])
    posterior[fold == -2] = np.nan
    found = decode_labelled(posterior, table(truth, fold), CLASSES, "macro_f1")
    shuffled = posterior.copy()
    shuffled[fold == -1] = shuffled[fold == -1][::-1]
    again = decode_labelled(shuffled, table(truth, fold), CLASSES, "macro_f1")
    assert (found[fold >= 0] == again[fold >= 0]).all()
    assert (found[fold == -1].to_numpy() == again[fold == -1].to_numpy()[::-1]).all()


def test_accuracy_takes_the_most_probable_class():
    truth, posterior = skewed(3, rows=50)
    found = decode_labelled(posterior, table(truth, np.arange(50) % 2), CLASSES, "accuracy")
    np.testing.assert_array_equal(found, np.array(list(CLASSES))[posterior.argmax(1)])
