"""Assessments contain scores by set and fold, leakage, calibration and simulated leaderboards."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from toys import argmax_table

from trunkfold.assessment import PartScores
from trunkfold.evaluation.calibration import calibrate
from trunkfold.evaluation.evaluate import assess_run
from trunkfold.evaluation.leaderboard import simulate_leaderboards

CLASSES = {"x": "crack", "y": "dent", "z": "lamp"}


def make_folds(groups: str, folds: list[int]) -> pd.DataFrame:
    """One letter a photo."""
    ids = [str(number) for number in range(len(groups))]
    return pd.DataFrame({"image_id": ids, "group": list(groups), "fold": folds})


def make_tables(folds: pd.DataFrame, truth: str, predicted: str) -> list[pd.DataFrame | None]:
    """Out-of-fold and held-out predictions, in another order than the folds, each with a probability of 0.8."""
    probabilities = np.array([[0.8 if label == guess else 0.1 for label in CLASSES] for guess in predicted])
    table = argmax_table(folds.assign(label=list(truth)), probabilities, CLASSES)[::-1]
    held_out = table[table["fold"] < 0]
    return [table[table["fold"] >= 0], held_out if len(held_out) else None]


def assess(folds: pd.DataFrame, truth: str, predicted: str, test_photos: int = 10) -> dict:
    return assess_run(*make_tables(folds, truth, predicted), folds, CLASSES, test_photos)


def test_a_run_is_scored_as_a_whole_by_fold_and_on_its_hold_out():
    folds = make_folds("abcdefghi", [0, 1, 0, 1, 0, 1, -1, -1, -1])
    scores = assess(folds, "xxyyzzxyz", "xxyxzzxyy")
    assert scores.oof.accuracy == pytest.approx(5 / 6)
    assert scores.holdout.accuracy == pytest.approx(2 / 3)
    assert [(fold.fold, fold.photos) for fold in scores.folds] == [(0, 3), (1, 3)]
    assert [fold.accuracy for fold in scores.folds] == pytest.approx([1, 2 / 3])
    assert scores.leak is None


def test_without_a_hold_out_there_is_none_to_score():
    scores = assess(make_folds("abc", [0, 1, 0]), "xyz", "xyz")
    assert scores.holdout is scores.calibration.holdout is None


def test_calibration_is_of_both_sets_and_luck_of_the_folds_and_their_groups():
    folds = make_folds("aabbccdef", [0, 0, 1, 1, 0, 0, 1, -1, -1])
    oof, holdout = make_tables(folds, "xxyyzzxyz", "xxyxzzyyy")
    scores = assess_run(oof, holdout, folds, CLASSES, test_photos=50)
    groups = folds.set_index("image_id")["group"]
    assert scores.calibration == calibrate(oof, holdout, groups, CLASSES)
    assert scores.luck == simulate_leaderboards(oof, groups, CLASSES, 50)
    assert scores.luck.photos == 50
    json.dumps(asdict(scores))


def test_a_runs_leak_is_told_by_set():
    """Photos 0 and 1 are copies in two folds, 3 is held out and a copy of 2; 4, 5, 6 and 7 have no copies."""
    folds = make_folds("aabbcdef", [0, 1, 0, -1, 1, 0, -1, -1])
    leak = assess(folds, "xyxyxyxy", "xyxyyxxx").leak
    assert leak.oof.with_copies == PartScores(photos=2, accuracy=1.0, macro_f1=1.0)
    assert vars(leak.oof.without_copies) == pytest.approx({"photos": 3, "accuracy": 1 / 3, "macro_f1": 1 / 4})
    assert leak.holdout.with_copies == PartScores(photos=1, accuracy=1.0, macro_f1=1.0)
    assert vars(leak.holdout.without_copies) == pytest.approx({"photos": 2, "accuracy": 0.5, "macro_f1": 1 / 3})


def test_a_run_without_a_hold_out_leaks_there_nothing():
    folds = make_folds("aab", [0, 1, 0])
    leak = assess(folds, "xyx", "xyx").leak
    assert leak.holdout is None
    assert leak.oof.with_copies.photos == 2


@pytest.mark.parametrize(
    ("groups", "folds"),
    [("abcd", [0, 1, 0, -1]), ("aabc", [0, 0, 1, -1]), ("abcc", [0, 1, -1, -1])],
    ids=["no copies", "in one fold", "held out together"],
)
def test_where_nothing_was_learned_twice_there_is_no_leak(groups, folds):
    folds = make_folds(groups, folds)
    assert assess(folds, "xyxy", "xyxy").leak is None
