"""Leakage is detected photo by photo."""

import pandas as pd
import pytest

from trunkfold.assessment import PartScores
from trunkfold.evaluation.evaluate import has_learned_copy, score_leak


def make_folds(groups: str, folds: list[int]) -> pd.DataFrame:
    """One letter a photo."""
    ids = [str(number) for number in range(len(groups))]
    return pd.DataFrame({"image_id": ids, "group": list(groups), "fold": folds})


@pytest.mark.parametrize(
    ("groups", "folds", "leaked"),
    [
        ("abc", [0, 1, -1], [False, False, False]),  # no copies
        ("aab", [0, 1, 2], [True, True, False]),  # each is learned from by the other's tail
        ("aab", [0, 0, 1], [False, False, False]),  # the tail of fold 0 learned from neither
        ("aaa", [0, 0, 1], [True, True, True]),
        ("aab", [-1, -1, 0], [False, False, False]),  # nobody learned from a held-out photo
        ("aab", [0, -1, 1], [False, True, False]),  # the held-out one is known, its copy in the fold learned nothing
        ("aaa", [0, -1, 0], [False, True, False]),
        ("aaa", [0, -1, 1], [True, True, True]),
        ("aaabb", [0, -1, -1, 1, 2], [False, True, True, True, True]),
        ("abab", [0, 0, 1, 0], [True, False, True, False]),  # groups are not mixed up with each other
        ("ab", [-1, -1], [False, False]),
        ("aab", [0, -2, -2], [True, False, False]),  # one fold: what validates it learned from the others
        ("aab", [0, 0, -2], [False, False, False]),
        ("aab", [0, -1, -2], [False, False, False]),  # and not from what validates it
        ("aab", [-1, -2, 0], [True, False, False]),
    ],
)
def test_a_photo_is_known_where_a_copy_was_learned_from(groups, folds, leaked):
    found = has_learned_copy(make_folds(groups, folds))
    assert found.tolist() == leaked
    assert found.dtype == bool


def test_rows_are_told_by_their_place_whatever_the_index_says():
    folds = make_folds("aabba", [0, 1, 0, 0, -1])
    mixed = folds.sample(frac=1, random_state=0)
    expected = [leaked for _, leaked in sorted(zip(mixed["image_id"], has_learned_copy(mixed), strict=True))]
    assert expected == has_learned_copy(folds).tolist() == [True, True, False, False, True]


def make_table(truth: str, predicted: str) -> pd.DataFrame:
    ids = [str(number) for number in range(len(truth))]
    return pd.DataFrame({"image_id": ids, "label": list(truth), "prediction": list(predicted)})


def test_scores_with_and_without_copies_are_those_computed_by_hand():
    """With copies: x found in 2 of 2, y in 1 of 1. Without: x in 1 of 2, whose other is taken for z, y in 0 of 1."""
    table = make_table("xxyxxy", "xxyxzx")
    leak = score_leak({"oof": table, "holdout": None}, make_folds("aaabcd", [0, 1, 1, 0, 0, 1])).oof
    assert leak.with_copies == PartScores(photos=3, accuracy=1.0, macro_f1=1.0)
    # x: precision 1/2, recall 1/2; y: never named; z is not there, and does not count
    assert vars(leak.without_copies) == pytest.approx({"photos": 3, "accuracy": 1 / 3, "macro_f1": (0.5 + 0) / 2})


def test_where_there_are_no_such_photos_there_are_no_scores():
    """Both copies are known to the other's tail, and the held-out photo has none."""
    table = make_table("xyx", "xyx")
    leak = score_leak({"oof": table[:2], "holdout": table[2:]}, make_folds("aab", [0, 1, -1]))
    assert (leak.oof.with_copies.photos, leak.oof.without_copies) == (2, None)
    assert (leak.holdout.with_copies, leak.holdout.without_copies.photos) == (None, 1)
