"""Suspected labels contradict confident predictions or the labels of copies."""

import warnings

import numpy as np
import pandas as pd
import pytest
from toys import argmax_table

from trunkfold.evaluation.label_issues import BOTH, COPIES, MODEL, find_label_issues

CLASSES = {"1": "crack", "02": "dent", "3": "lamp"}
COLUMNS = ["image_id", "filename", "label", "suggestion", "p_label", "p_suggestion", "group", "reason"]


def toy(rows: list[tuple[str, str, list[float]]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and folds of photos a0, a1 ...: group ("" = one of its own), label, probabilities."""
    ids = pd.Series([f"a{row}" for row in range(len(rows))])
    folds = pd.DataFrame({"image_id": ids, "fold": 0, "label": [label for _, label, _ in rows]})
    probabilities = np.array([p for _, _, p in rows])
    groups = [group or f"g{row}" for row, (group, _, _) in enumerate(rows)]
    return argmax_table(folds, probabilities, CLASSES), folds.assign(group=groups, filename=ids + ".jpg")
    groups = pd.Series([group or f"g{row}" for row, (group, _, _) in enumerate(rows)], index=ids)
    return argmax_table(folds, probabilities, CLASSES), groups, (ids + ".jpg").set_axis(ids)


def right(label: str, p: float = 0.9) -> tuple[str, str, list[float]]:
    """A photo that the model predicts as it is labelled."""
    return "", label, [p if label == other else (1 - p) / 2 for other in CLASSES]


MANY = [right(label) for label in CLASSES for _ in range(20)]


def test_confidently_predicted_others_are_suspected_and_unsure_ones_are_not():
    """A class counts as sure from the mean probability on that its own photos give it: 0.79 for 1, 0.86 for 02.

    20 photos of 1 give it 0.9, the four below 0.05, 0.02, 0.3 and 0.5: 18.87 / 24; of 02, (18 + 0.07) / 21.
    """
    rows = [
        *MANY,
        ("", "1", [0.05, 0.90, 0.05]),
        ("", "1", [0.02004, 0.96996, 0.01]),
        ("", "1", [0.30, 0.65, 0.05]),  # rather 02, but its own photos are surer than that
        ("", "1", [0.50, 0.40, 0.10]),
        ("", "02", [0.88, 0.07, 0.05]),
    ]
    found = find_label_issues(*toy(rows), CLASSES)
    assert list(found.columns) == COLUMNS
    assert found.values.tolist() == [
        ["a61", "a61.jpg", "1", "02", 0.02, 0.97, "g61", MODEL],
        ["a60", "a60.jpg", "1", "02", 0.05, 0.9, "g60", MODEL],
        ["a64", "a64.jpg", "02", "1", 0.07, 0.88, "g64", MODEL],
    ]


def test_planted_errors_are_found_among_noisy_predictions():
    """15 of 300 labels are wrong; the model is right about 97 % of the photos, and mostly sure."""
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=300)
    probabilities = np.array([rng.dirichlet(np.where(np.arange(3) == label, 3, 0.2)) for label in truth])
    planted = rng.choice(300, 15, replace=False)
    given = truth.copy()
    given[planted] = (truth[planted] + 1) % 3
    rows = [("", list(CLASSES)[label], list(p)) for label, p in zip(given, probabilities, strict=True)]
    found = set(find_label_issues(*toy(rows), CLASSES)["image_id"].str[1:].astype(int))
    assert found <= set(planted.tolist())
    assert len(found) >= 10


def test_a_group_with_conflicting_labels_is_suspected_where_the_model_is_unsure():
    """The photo that its two copies outvote, and of two that contradict each other the one that is less probable."""
    unsure = [0.45, 0.5, 0.05]
    outvoted = [("three", "1", unsure), ("three", "02", unsure), ("three", "1", unsure)]
    tie = [("two", "02", unsure), ("two", "1", unsure)]
    found = find_label_issues(*toy([*MANY, *outvoted, *tie]), CLASSES)
    assert found.values.tolist() == [
        ["a64", "a64.jpg", "1", "02", 0.45, 0.5, "two", COPIES],
        ["a61", "a61.jpg", "02", "1", 0.5, 0.45, "three", COPIES],
    ]


def test_both_reasons_are_told_and_a_groups_own_agreement_does_not_protect_it():
    sure = [0.02, 0.97, 0.01]
    both = [("x", "02", sure), ("x", "02", sure), ("x", "3", sure)]
    agreed = [("y", "1", sure), ("y", "1", sure)]
    found = find_label_issues(*toy([*MANY, *both, *agreed]), CLASSES)
    assert found.set_index("image_id")["reason"].to_dict() == {"a62": BOTH, "a63": MODEL, "a64": MODEL}
    assert set(found["suggestion"]) == {"02"}


def test_the_model_suggests_where_it_disagrees_with_the_majority_too():
    """Two copies say 1, one says 3; the model is sure of 02 for all three."""
    sure = [0.02, 0.97, 0.01]
    found = find_label_issues(*toy([*MANY, ("x", "1", sure), ("x", "1", sure), ("x", "3", sure)]), CLASSES)
    assert found[["label", "suggestion", "reason"]].values.tolist() == [
        ["3", "02", BOTH],
        ["1", "02", MODEL],
        ["1", "02", MODEL],
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [right("1")],
        [right("02")] * 3,  # one label alone, which is not the first
        [right("1"), right("02")],
        [("", "1", [0.1, 0.8, 0.1])] * 4,
        [*MANY[:40], ("", "3", [0.1, 0.1, 0.8])],
        [("", label, [1 / 3] * 3) for label in CLASSES],  # no class has a confident example
        MANY,
    ],
    ids=["a photo", "a label", "two", "a label, all mistaken", "a rare class", "unsure of all", "all right"],
)
def test_where_there_is_nothing_to_suspect_the_table_is_empty_and_nothing_said(rows, capfd):
    oof, folds = toy(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_label_issues(oof, folds, CLASSES)
    assert found.empty
    assert list(found) == COLUMNS
    assert capfd.readouterr() == ("", "")


def test_a_class_that_no_photo_is_labelled_with_can_still_be_suggested_by_nobody():
    """There is no telling how sure the model is of a class without examples."""
    rows = [*MANY[:40], ("", "1", [0.05, 0.05, 0.9]), ("", "1", [0.02, 0.97, 0.01])]
    assert find_label_issues(*toy(rows), CLASSES)["suggestion"].tolist() == ["02"]


def test_the_same_is_found_in_whatever_order_the_photos_stand():
    oof, folds = toy([*MANY, ("", "1", [0.02, 0.97, 0.01]), ("", "02", [0.88, 0.07, 0.05])])
    table, other = (find_label_issues(oof.loc[order], folds, CLASSES) for order in (oof.index, oof.index[::-1]))
    pd.testing.assert_frame_equal(table, other)
    assert table["image_id"].tolist() == ["a60", "a61"]
    assert table["suggestion"].tolist() == ["02", "1"]  # labels, not the names of classes
