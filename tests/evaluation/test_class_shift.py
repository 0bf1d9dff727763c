"""Class shares equal a computation by hand, and only significant shifts are reported."""

import numpy as np
import pandas as pd
import pytest

from trunkfold.evaluation.class_shift import class_shares, compare_shares


def test_class_shares_are_those_of_each_set():
    folds = pd.DataFrame({"label": list("aaabbbab"), "fold": ["0", "1", "1", "0", "2", "2", "-1", "-1"]})
    shares = class_shares(folds, {"A": 3, "B": 1}, {"a": "A", "b": "B"})
    assert shares.to_dict("list") == {
        "in the folds": [0.5, 0.5],
        "hold-out": [0.5, 0.5],
        "predicted for the test photos": [0.75, 0.25],
    }
    assert shares.index.tolist() == ["A", "B"]


def test_of_one_fold_validation_and_learning_are_sets_of_their_own():
    folds = pd.DataFrame({"label": list("aaabcc"), "fold": ["-2", "-2", "0", "0", "-2", "-2"]})
    shares = class_shares(folds, {}, {"a": "A", "b": "B", "c": "C"})
    assert shares.to_dict("list") == {"trained on": [0.5, 0, 0.5], "validation": [0.5, 0.5, 0]}


def counts(*numbers: int) -> pd.Series:
    return pd.Series(numbers, index=["a", "b", "c"])


def test_the_distance_is_half_of_the_summed_differences():
    shift = compare_shares(counts(50, 30, 20), counts(20, 40, 40), (10, 10))
    assert shift.distance == pytest.approx((0.3 + 0.1 + 0.2) / 2)


def test_few_sources_differ_by_chance_and_many_do_not():
    one, other = counts(50, 30, 20), counts(20, 40, 40)
    few, many = (compare_shares(one, other, (size, size)) for size in (10, 1000))
    assert few.distance < few.chance
    assert few.classes == []
    assert many.distance > many.chance
    assert many.classes[0] == ("a", 0.5, 0.2)
    assert [name for name, *_ in many.classes] == ["a", "c", "b"]


def test_classes_that_do_not_differ_are_not_named():
    shift = compare_shares(counts(500, 300, 200), counts(300, 500, 200), (1000, 1000))
    assert [name for name, *_ in shift.classes] == ["a", "b"]


def test_sampling_alone_exceeds_its_chance_in_one_of_twenty_cases():
    rng = np.random.default_rng(1)
    pairs = [[counts(*draw) for draw in rng.multinomial(60, [0.5, 0.3, 0.2], 2)] for _ in range(200)]
    draws = [compare_shares(*pair, (60, 60)) for pair in pairs]
    assert not any(shift.classes for shift in draws if shift.distance <= shift.chance)
    assert 0.01 < np.mean([shift.distance > shift.chance for shift in draws]) < 0.11
