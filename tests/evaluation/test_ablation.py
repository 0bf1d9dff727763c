"""The gain from each part equals a computation by hand."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from trunkfold.evaluation import ablation
from trunkfold.metrics import Ablation, Alone, Gain

CLASSES = {"a": "crack", "b": "dent"}
VIEWS = ["hflip", "plain"]
NOTHING = np.nan


def make_folds(labels: str, groups: str, folds: list[int]) -> pd.DataFrame:
    """One letter a photo."""
    ids = [str(row) for row in range(len(labels))]
    return pd.DataFrame({"image_id": ids, "label": list(labels), "group": list(groups), "fold": folds})


def make_predicted(*views: list[list[float]]) -> np.ndarray:
    """Probabilities of class a, by view, row and tail."""
    of_a = np.array(views, np.float32)
    return np.stack([of_a, 1 - of_a], axis=-1)


# Photos 0 and 1 are copies in fold 0, 2 and 3 stand alone in fold 1; 4 and 5 are held out, which all tails predict.
FOLDS = make_folds("aabbab", "ccdefg", [0, 0, 1, 1, -1, -1])
MIRRORED = [[0.9, NOTHING], [0.9, NOTHING], [NOTHING, 0.1], [NOTHING, 0.1], [0.9, 0.6], [0.2, 0.1]]
PLAIN = [[0.9, NOTHING], [0.2, NOTHING], [NOTHING, 0.2], [NOTHING, 0.7], [0.7, 0.2], [0.2, 0.6]]


def ablate(*of: object, **others: object) -> Ablation:
    return ablation.ablate(*of, **others)[0]


def rows_by_part(rows: list[dict]) -> dict[str, dict]:
    return {row.part: row for row in rows}


def test_test_time_augmentation_adds_what_the_plain_view_loses():
    """With both views all is right. The plain view takes photo 3 for a: F1 of a 2 x 2 / 5, of b 2 x 1 / 3. Photo 1 is
    saved by its copy: (0.9 + 0.2) / 2 > 1 / 2."""
    row = ablate(make_predicted(MIRRORED, PLAIN), FOLDS, CLASSES, VIEWS, True, "accuracy").oof[0]
    assert row.part == "test-time augmentation (hflip)"
    assert row.accuracy == 3 / 4
    assert row.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert row.gain == pytest.approx(1 - row.macro_f1)
    low, high = row.interval
    assert low == 0 < row.gain < high  # photo 3 is not drawn in a third of the draws


def test_the_consensus_adds_what_single_photos_lose():
    """Photo 1 alone is a b by the one view there is, photo 3 an a either way."""
    rows = rows_by_part(ablate(make_predicted(PLAIN), FOLDS, CLASSES, ["plain"], True, "accuracy").oof)
    assert set(rows) == {"consensus of copies"}
    assert rows["consensus of copies"].accuracy == 2 / 4
    assert rows["consensus of copies"].macro_f1 == 1 / 2
    assert rows["consensus of copies"].gain == pytest.approx((4 / 5 + 2 / 3) / 2 - 1 / 2)


def test_the_averaging_of_weights_adds_what_raw_ones_lose():
    """The raw tails take photos 2 and 5 for a."""
    raw = [list(row) for row in MIRRORED]
    raw[2][1] = raw[5][0] = 0.99
    found = ablate(make_predicted(MIRRORED), FOLDS, CLASSES, ["hflip"], False, "accuracy", raw=make_predicted(raw))
    oof, holdout = (rows_by_part(getattr(found, name))["weight averaging (EMA)"] for name in ("oof", "holdout"))
    assert oof.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert (holdout.accuracy, holdout.macro_f1) == (1 / 2, pytest.approx((2 / 3 + 0) / 2))
    assert holdout.gain == pytest.approx(2 / 3)


def test_folds_are_left_out_and_stand_alone_on_the_hold_out():
    """Photo 4 is an a by fold 0 and both together, a b by fold 1 (0.4); photo 5 is a b by all."""
    found = ablate(make_predicted(MIRRORED, PLAIN), FOLDS, CLASSES, VIEWS, False, "accuracy")
    holdout = rows_by_part(found.holdout)
    assert list(holdout) == ["test-time augmentation (hflip)", "fold 0", "fold 1"]
    assert holdout["fold 0"] == Gain(
        part="fold 0",
        accuracy=1 / 2,
        macro_f1=pytest.approx(1 / 3),
        gain=pytest.approx(2 / 3),
        interval=(0, 1),
    )
    assert (holdout["fold 1"].accuracy, holdout["fold 1"].gain) == (1, 0)
    assert found.folds_alone == [
        Alone("fold 0 alone", macro_f1=1, accuracy=1),
        Alone("fold 1 alone", macro_f1=pytest.approx(1 / 3), accuracy=1 / 2),
    ]
    assert "fold 0" not in rows_by_part(found.oof)
    _, alone = ablation.ablate(make_predicted(MIRRORED, PLAIN), FOLDS, CLASSES, VIEWS, False, "accuracy")
    assert [labels.to_dict() for labels in alone] == [{4: "a", 5: "b"}, {4: "b", 5: "b"}]


def test_the_hold_out_has_its_plain_view_too():
    """Without the mirrored view photo 4 is undecided: 0.7 and 0.2; it becomes a b."""
    row = ablate(make_predicted(MIRRORED, PLAIN), FOLDS, CLASSES, VIEWS, False, "accuracy").holdout[0]
    assert (row.accuracy, row.gain) == (1 / 2, pytest.approx(2 / 3))


@pytest.mark.parametrize("views", [["plain"], ["hflip"], ["hflip", "larger"]])
def test_without_other_views_or_a_plain_one_there_is_nothing_to_leave_out(views):
    predicted = make_predicted(*[MIRRORED] * len(views))
    assert ablate(predicted, FOLDS, CLASSES, views, False, "accuracy").oof == []


def test_all_other_views_are_named():
    found = ablate(
        make_predicted(MIRRORED, PLAIN, PLAIN), FOLDS, CLASSES, ["hflip", "plain", "larger"], False, "accuracy"
    )
    assert found.oof[0].part == "test-time augmentation (hflip, larger)"


def test_without_a_hold_out_there_are_only_the_folds():
    folds, rows = FOLDS[:4], slice(0, 4)
    found = ablate(make_predicted(MIRRORED[rows], PLAIN[rows]), folds, CLASSES, VIEWS, False, "accuracy")
    assert (found.holdout, found.folds_alone) == (None, None)
    assert len(found.oof) == 1


def test_one_fold_cannot_be_left_out():
    """Photo 1 is only learned from, and predicted by nothing."""
    folds = make_folds("abab", "cdef", [0, -2, -1, -1])
    plain, mirrored = [[0.9], [NOTHING], [0.8], [0.3]], [[0.8], [NOTHING], [0.1], [0.6]]
    found = ablate(make_predicted(plain, mirrored), folds, CLASSES, ["plain", "hflip"], True, "accuracy")
    assert [row.part for row in found.holdout] == ["test-time augmentation (hflip)", "consensus of copies"]
    assert [row.part for row in found.folds_alone] == ["fold 0 alone"]
    assert found.oof[0].accuracy == 1


def test_the_interval_knows_of_copies():
    """Without the part 1 of 8 photos is wrong, of 4 groups of two or of 8 alone; then whole groups come and go."""
    labels, wrong = "aabbaabb", [[0.9], [0.9], [0.1], [0.1], [0.9], [0.9], [0.9], [0.9]]
    right = [[0.9], [0.9], [0.1], [0.1], [0.9], [0.9], [0.1], [0.1]]
    predicted = make_predicted(np.array(right) * 3 - np.array(wrong), wrong)  # whose mean decides as `right`
    widths = []
    for groups in ("ccddeeff", "cdefghij"):
        folds = make_folds(labels, groups, [0] * 8)
        low, high = ablate(predicted, folds, CLASSES, ["hflip", "plain"], False, "accuracy").oof[0].interval
        widths.append(high - low)
    assert widths[0] > widths[1] > 0


def test_the_result_is_json_and_repeats():
    results = [ablate(make_predicted(MIRRORED, PLAIN), FOLDS, CLASSES, VIEWS, True, "accuracy") for _ in range(2)]
    json.dumps(asdict(results[0]))
    assert results[0] == results[1]
