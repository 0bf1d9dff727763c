"""Scores equal a computation by hand, and intervals reflect the number of independent photos."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from trunkfold.assessment import ClassScores, Intervals
from trunkfold.evaluation.scores import bootstrap_intervals, paired_difference, score, validation_scores

CLASSES = {"a": "crack", "b": "dent", "c": "lamp"}


def make_table(truth: str, predicted: str) -> pd.DataFrame:
    """One letter a photo."""
    ids = [str(number) for number in range(len(truth))]
    return pd.DataFrame({"image_id": ids, "label": list(truth), "prediction": list(predicted)})


def own_groups(table: pd.DataFrame) -> pd.Series:
    return pd.Series(table["image_id"].to_numpy(), index=table["image_id"])


def make_score(truth: str, predicted: str) -> dict:
    table = make_table(truth, predicted)
    return score(table, own_groups(table), CLASSES)


def test_scores_are_those_computed_by_hand():
    """crack: 2 of 3 found, never wrongly: F1 0.8; dent: 1 of 1, of 2 named: 2/3; lamp: 2 of 2: 1."""
    scores = make_score("aaabcc", "aabbcc")
    assert scores.photos == scores.groups == 6
    assert scores.accuracy == pytest.approx(5 / 6)
    assert scores.macro_f1 == pytest.approx((0.8 + 2 / 3 + 1) / 3)
    assert vars(scores.per_class["crack"]) == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert vars(scores.per_class["dent"]) == pytest.approx({"precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1})
    assert list(scores.per_class) == ["crack", "dent", "lamp"]


def test_an_absent_class_counts_as_zero():
    scores = make_score("aaab", "aabb")
    assert scores.macro_f1 == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    assert scores.per_class["lamp"] == ClassScores(precision=0, recall=0, f1=0, support=0)
    low, high = scores.intervals.macro_f1
    assert low <= scores.macro_f1 <= high < 0.7


def test_rows_of_the_confusion_matrix_are_the_truth():
    assert make_score("aaabcc", "aabbca").confusion_matrix == [[2, 1, 0], [0, 1, 0], [1, 0, 1]]


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
    assert make_score(truth, truth).intervals == Intervals(accuracy=(1.0, 1.0), macro_f1=(1.0, 1.0))


SHARES = np.array([0.5, 0.35, 0.15])
CONFUSION = np.array([[0.8, 0.15, 0.05], [0.2, 0.7, 0.1], [0.2, 0.1, 0.7]])  # a row a true class, which sums to 1


def simulate(seed: int, groups: int, copies: int, models: int = 1) -> tuple[pd.Series, ...]:
    """Truth, the label by each of some models of that confusion, and group; copies are taken for what the source is."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, groups, p=SHARES)
    predicted = [(rng.random(groups)[:, None] > CONFUSION[truth].cumsum(1)).sum(1).clip(max=2) for _ in range(models)]
    columns = [np.array(list("abc"))[values] for values in (truth, *predicted)]
    return tuple(pd.Series(np.repeat(values, copies)) for values in (*columns, np.arange(groups)))


def true_macro_f1() -> float:
    joint = SHARES[:, None] * CONFUSION
    return float(np.mean(2 * np.diagonal(joint) / (joint.sum(0) + joint.sum(1))))


def width(interval: list[float]) -> float:
    return interval[1] - interval[0]


def test_copies_do_not_make_an_interval_narrower():
    truth, predicted, groups = simulate(seed=0, groups=100, copies=4)
    by_group = bootstrap_intervals(truth, predicted, groups, list("abc"))
    by_row = bootstrap_intervals(truth, predicted, pd.Series(range(400)), list("abc"))
    for key in ("accuracy", "macro_f1"):
        assert width(getattr(by_group, key)) == pytest.approx(2 * width(getattr(by_row, key)), rel=0.15)


@pytest.mark.parametrize(
    ("unit", "least", "most"), [("group", 0.9, 0.99), ("photo", 0.6, 0.85)], ids=["by group", "by photo"]
)
def test_only_intervals_by_group_hold_the_true_score_about_95_times_in_100(unit, least, most):
    """Three copies of each of 80 photos: drawn one by one they look like 240, and the interval is too narrow."""
    expected = {"accuracy": float(SHARES @ np.diagonal(CONFUSION)), "macro_f1": true_macro_f1()}
    covered = {"accuracy": [], "macro_f1": []}
    for seed in range(200):
        truth, predicted, groups = simulate(seed, 80, 3)
        groups = groups if unit == "group" else pd.Series(range(240))
        for key, (low, high) in vars(bootstrap_intervals(truth, predicted, groups, list("abc"))).items():
            covered[key].append(low <= expected[key] <= high)
    for key, hits in covered.items():
        assert least <= np.mean(hits) <= most, key


def test_the_same_table_gives_the_same_interval():
    table = simulate(seed=0, groups=200, copies=1)
    assert bootstrap_intervals(*table, list("abc")) == bootstrap_intervals(*table, list("abc"))


def test_copies_count_as_one_group_and_as_many_photos():
    table = make_table("aaabbb", "aaabbb")
    groups = pd.Series(["x", "x", "x", "y", "y", "z"], index=table["image_id"])
    scores = score(table, groups, CLASSES)
    assert (scores.photos, scores.groups) == (6, 3)


def test_memory_does_not_grow_with_the_square_of_the_classes():
    """Of 100 classes and 500 groups, matrices of classes by classes take 120 MB."""
    labels = [str(number) for number in range(100)]
    table = [pd.Series(np.random.default_rng(seed).choice(labels, 500)) for seed in (0, 1)]
    tracemalloc.start()
    bootstrap_intervals(*table, pd.Series(range(500)), labels)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 30e6


def series(*columns: str) -> list[pd.Series]:
    return [pd.Series(list(column)) for column in columns]


def test_a_paired_difference_is_that_of_the_scores():
    """a: 2 of 2 and 1 of 2, the other taken for a: F1 0.8 and 2/3. b: all taken for a: 2/3 and 0. Nobody knows c."""
    truth, one, other, groups = series("aabb", "aaba", "aaaa", "wxyz")
    difference = paired_difference(truth, one, other, groups, list("abc"))["difference"]
    assert difference == pytest.approx((0.8 + 2 / 3) / 3 - (2 / 3) / 3)


def test_an_interval_of_a_difference_spans_the_draws_by_hand():
    """b is wrong about y alone: of the draws of two groups, xx shows no difference, and yy that of 1 and 0."""
    paired = paired_difference(*series("ab", "ab", "aa", "xy"), list("ab"))
    assert (paired["low"], paired["high"]) == (0, 1)


def test_one_prediction_is_not_better_than_itself():
    truth, predicted, groups = simulate(seed=0, groups=50, copies=2)
    paired = paired_difference(truth, predicted, predicted, groups, list("abc"))
    assert paired == {"difference": 0, "low": 0, "high": 0}


def test_the_other_way_round_a_difference_has_the_other_sign():
    truth, one, other, groups = simulate(seed=0, groups=50, copies=2, models=2)
    paired = paired_difference(truth, one, other, groups, list("abc"))
    swapped = paired_difference(truth, other, one, groups, list("abc"))
    assert swapped["difference"] == pytest.approx(-paired["difference"])
    assert (swapped["low"], swapped["high"]) == pytest.approx((-paired["high"], -paired["low"]))


def test_predictions_that_agree_nearly_everywhere_are_told_apart_by_their_few_differences():
    """One of 300 photos is taken for another class: each score is unsure, the difference is not."""
    truth, one, groups = simulate(seed=0, groups=300, copies=1)
    other = one.copy()
    other[np.flatnonzero(truth == one)[0]] = "c" if truth[np.flatnonzero(truth == one)[0]] == "a" else "a"
    paired = paired_difference(truth, one, other, groups, list("abc"))
    alone = bootstrap_intervals(truth, one, groups, list("abc")).macro_f1
    assert 0 < paired["difference"] < paired["high"] < width(alone) / 4
    assert paired["low"] == 0  # where the photo is not drawn


@pytest.mark.parametrize(("unit", "least", "most"), [("group", 0.9, 0.99), ("photo", 0.6, 0.85)])
def test_intervals_of_equally_good_models_hold_no_difference_about_95_times_in_100(unit, least, most):
    covered = []
    for seed in range(150):
        truth, one, other, groups = simulate(seed, 60, 3, models=2)
        groups = groups if unit == "group" else pd.Series(range(180))
        paired = paired_difference(truth, one, other, groups, list("abc"))
        covered.append(paired["low"] <= 0 <= paired["high"])
    assert least <= np.mean(covered) <= most
