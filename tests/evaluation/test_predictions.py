"""Tables of probabilities are validated when they are created and when they are read."""

import numpy as np
import pandas as pd
import pytest

from trunkfold.errors import InputError
from trunkfold.evaluation.predictions import (
    class_indices,
    probabilities_of,
    probability_table,
    read_predictions,
    scored_table,
)
from trunkfold.files import write_csv

CLASSES = {"1": "crack", "7": "lamp, broken", "04": "dent"}
IDS = pd.Series(["007", "2"], index=[5, 3])
PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])


def test_a_table_has_a_column_a_class_in_the_order_of_the_classes():
    table = probability_table(IDS, PROBABILITIES, CLASSES)
    assert list(table.columns) == ["image_id", "p_crack", "p_lamp, broken", "p_dent"]
    assert table["image_id"].tolist() == ["007", "2"]
    np.testing.assert_array_equal(probabilities_of(table, CLASSES), PROBABILITIES)


def test_a_scored_table_has_the_truth_beside_the_prediction():
    folds = pd.DataFrame({"image_id": ["007", "2"], "filename": ["a", "b"], "label": ["7", "04"], "fold": [1, -1]})
    table = scored_table(folds, PROBABILITIES, CLASSES, pd.Series(["7", "1"]))
    assert list(table.columns)[:4] == ["image_id", "fold", "label", "prediction"]
    assert table.iloc[:, :4].values.tolist() == [["007", 1, "7", "7"], ["2", -1, "04", "1"]]


@pytest.mark.parametrize(
    ("ids", "probabilities"),
    [
        (["1", "1"], PROBABILITIES),
        (["1", "2"], PROBABILITIES * [[1], [np.nan]]),
        (["1", "2"], PROBABILITIES * [[1], [0.9]]),
    ],
    ids=["repeated id", "nan", "sum"],
)
def test_incomplete_predictions_are_never_made_into_a_table(ids, probabilities):
    with pytest.raises(RuntimeError, match="predictions are invalid"):
        probability_table(pd.Series(ids), probabilities, CLASSES)


def test_what_is_written_is_read_again(tmp_path):
    write_csv(probability_table(IDS, PROBABILITIES, CLASSES), tmp_path / "p.csv")
    table = read_predictions(tmp_path / "p.csv", CLASSES)
    assert table["image_id"].tolist() == ["007", "2"]
    np.testing.assert_allclose(probabilities_of(table, CLASSES), PROBABILITIES, rtol=1e-7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "p.csv does not exist"),
        ("image_id,p_a\n1,1\n", "p.csv has no column p_b"),
        ("image_id,p_a,p_b\n1,0.5,half\n", r"p.csv: .*half.* in the columns of probabilities \(p_a, p_b\)"),
        ("image_id,p_a,p_b\n1,0.5,0.5\n1,0.1,0.9\n", "p.csv: duplicate image_id: 1"),
        ("image_id,p_a,p_b\n1,0.5,0.5\n2,0.5,0.4\n3,nan,1\n", "do not sum to 1 for image_id 2, 3"),
    ],
)
def test_a_table_that_is_damaged_or_of_other_classes_is_named(text, message, tmp_path):
    if text is not None:
        (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / "p.csv", {"1": "a", "2": "b"})


def test_probabilities_that_are_negative_are_refused_even_where_they_sum_to_1(tmp_path):
    (tmp_path / "p.csv").write_text("image_id,p_a,p_b\n1,-0.5,1.5\n")
    with pytest.raises(InputError, match="probabilities are negative or do not sum to 1 for image_id 1"):
        read_predictions(tmp_path / "p.csv", {"1": "a", "2": "b"})


def test_labels_become_class_indices_and_none_becomes_the_last_class():
    labels = pd.Series(["b", "a", "b"], index=[7, 8, 9])
    assert class_indices(labels, {"a": "first", "b": "second"}).tolist() == [1, 0, 1]
    with pytest.raises(RuntimeError, match="labels of no class: c"):
        class_indices(pd.Series(["a", "c", "c"]), {"a": "first", "b": "second"})
