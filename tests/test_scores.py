"""Scores equal those computed by hand, and intervals are as wide as the independent photos allow."""

import numpy as np
import pandas as pd
import pytest

from trunkfold.scores import bootstrap_intervals, score, score_run, validation_scores

CLASSES = {"a": "crack", "b": "dent", "c": "lamp"}


def make_table(truth: str, predicted: str) -> pd.DataFrame:
    """One letter a photo."""
    ids = [str(number) for number in range(len(truth))]
    return pd.DataFrame({"image_id": ids, "label": list(truth), "prediction": list(predicted)})


def own_groups(table: pd.DataFrame) -> pd.Series:
    return pd.Series(table["image_id"].to_numpy(), index=table["image_id"])


def own_folds(*tables: pd.DataFrame) -> pd.DataFrame:
    """Folds of photos that have no copies."""
    folds = pd.concat(tables)[["image_id", "fold"]]
    return folds.assign(group=folds["image_id"])


def make_score(truth: str, predicted: str) -> dict:
    table = make_table(truth, predicted)
    return score(table, own_groups(table), CLASSES)


def test_scores_are_those_computed_by_hand():
    """crack: 2 of 3 found, never wrongly: F1 0.8; dent: 1 of 1, of 2 named: 2/3; lamp: 2 of 2: 1."""
    scores = make_score("aaabcc", "aabbcc")
    assert scores["photos"] == scores["groups"] == 6
    assert scores["accuracy"] == pytest.approx(5 / 6)
    assert scores["macro_f1"] == pytest.approx((0.8 + 2 / 3 + 1) / 3)
    assert scores["per_class"]["crack"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert scores["per_class"]["dent"] == pytest.approx({"precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1})
    assert list(scores["per_class"]) == ["crack", "dent", "lamp"]


def test_an_absent_class_counts_as_zero():
    scores = make_score("aaab", "aabb")
    assert scores["macro_f1"] == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    assert scores["per_class"]["lamp"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    low, high = scores["intervals"]["macro_f1"]
    assert low <= scores["macro_f1"] <= high < 0.7


def test_rows_of_the_confusion_matrix_are_the_truth():
    assert make_score("aaabcc", "aabbca")["confusion_matrix"] == [[2, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_validation_scores_are_those_computed_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.5, 0.0]])
    scores = validation_scores(np.array([0, 0, 1]), probabilities)
    assert scores["val_loss"] == pytest.approx(-(np.log(0.7) + np.log(0.3) + np.log(0.5)) / 3)
    assert scores["val_accuracy"] == pytest.approx(1 / 3)
    assert scores["val_macro_f1"] == pytest.approx((0.5 + 0 + 0) / 3)


def test_a_certain_mistake_costs_a_finite_loss():
    assert np.isfinite(validation_scores(np.array([1]), np.array([[1.0, 0.0]]))["val_loss"])


def test_perfect_predictions_leave_no_doubt():
    """Also where many draws miss the rare class altogether."""
    truth = "a" * 12 + "b" * 6 + "c"
    assert make_score(truth, truth)["intervals"] == {"accuracy": [1.0, 1.0], "macro_f1": [1.0, 1.0]}


def simulate(seed: int, groups: int, copies: int) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Two equally frequent classes, each source right with probability 0.7, and its copies as the source."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, groups)
    predicted = np.where(rng.random(groups) < 0.7, truth, 1 - truth)
    names = np.array(["a", "b"])
    return tuple(pd.Series(np.repeat(values, copies)) for values in (names[truth], names[predicted], np.arange(groups)))


def width(interval: list[float]) -> float:
    return interval[1] - interval[0]


def test_copies_do_not_make_an_interval_narrower():
    truth, predicted, groups = simulate(seed=0, groups=100, copies=4)
    by_group = bootstrap_intervals(truth, predicted, groups, ["a", "b"])
    by_row = bootstrap_intervals(truth, predicted, pd.Series(range(400)), ["a", "b"])
    for key in ("accuracy", "macro_f1"):
        assert width(by_group[key]) == pytest.approx(2 * width(by_row[key]), rel=0.15)


@pytest.mark.parametrize("key", ["accuracy", "macro_f1"])
def test_intervals_hold_the_true_score_about_95_times_in_100(key):
    intervals = [bootstrap_intervals(*simulate(seed, 80, 3), ["a", "b"])[key] for seed in range(150)]
    assert 0.88 <= np.mean([low <= 0.7 <= high for low, high in intervals]) <= 0.99


def test_the_same_table_gives_the_same_interval():
    table = simulate(seed=0, groups=200, copies=1)
    assert bootstrap_intervals(*table, ["a", "b"]) == bootstrap_intervals(*table, ["a", "b"])


def test_copies_count_as_one_group_and_as_many_photos():
    table = make_table("aaabbb", "aaabbb")
    groups = pd.Series(["x", "x", "x", "y", "y", "z"], index=table["image_id"])
    scores = score(table, groups, CLASSES)
    assert (scores["photos"], scores["groups"]) == (6, 3)


def test_a_run_is_scored_as_a_whole_by_fold_and_on_its_hold_out():
    table = make_table("aabbcc", "aabacc").assign(fold=[0, 1, 0, 1, 0, 1])
    holdout = make_table("abc", "abb").assign(image_id=["10", "11", "12"], fold=-1)
    folds = own_folds(table, holdout)
    scores = score_run(table, holdout, folds, CLASSES)
    assert scores["oof"]["accuracy"] == pytest.approx(5 / 6)
    assert scores["holdout"]["accuracy"] == pytest.approx(2 / 3)
    assert [(fold["fold"], fold["photos"]) for fold in scores["folds"]] == [(0, 3), (1, 3)]
    assert [fold["accuracy"] for fold in scores["folds"]] == pytest.approx([1, 2 / 3])
    assert scores["leak"] is None
    assert score_run(table, None, folds, CLASSES)["holdout"] is None
