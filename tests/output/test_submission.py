"""Submissions that the competition would reject are rejected with the reason."""

import pandas as pd
import pytest

from trunkfold.errors import InputError
from trunkfold.output.submission import check_submission, find_sample, make_submission

TEST = pd.DataFrame({"image_id": ["9", "07", "8"], "filename": ["9.jpg", "7.jpg", "8.jpg"]})
SUBMISSION = pd.DataFrame({"image_id": ["9", "07", "8"], "label": ["1", "2", "1"]})
LABELS = ["1", "2"]


def test_the_order_is_that_of_test_csv():
    predictions = pd.DataFrame({"image_id": ["07", "8", "9", "99"], "prediction": ["2", "1", "1", "2"]})
    pd.testing.assert_frame_equal(make_submission(TEST, predictions), SUBMISSION)


def test_a_photo_without_a_prediction_is_named():
    predictions = pd.DataFrame({"image_id": ["8", "7"], "prediction": ["2", "1"]})
    with pytest.raises(InputError, match="no prediction for 2 photos of test.csv: 9, 07"):
        make_submission(TEST, predictions)


@pytest.mark.parametrize("order", [[0, 2, 1], [0, 1], [0, 1, 1], [0, 1, 2, 2]], ids=str)
def test_ids_that_are_missing_repeated_or_in_another_order_are_refused(order):
    with pytest.raises(InputError, match="submission.csv was not written: the ids do not match test.csv"):
        check_submission(SUBMISSION.iloc[order], TEST, LABELS, None)


@pytest.mark.parametrize("label", ["7", None, "nan", ""])
def test_unknown_and_missing_labels_are_refused(label):
    wrong = SUBMISSION.assign(label=["1", label, "2"])
    with pytest.raises(InputError, match=f"unknown labels in 1 row: {label or ''}"):
        check_submission(wrong, TEST, LABELS, None)


def write_sample(folder, text: str):
    (folder / "sample_submission.csv").write_text(text)
    return folder / "sample_submission.csv"


def test_a_sample_of_the_same_ids_in_any_order_is_content(tmp_path):
    check_submission(SUBMISSION, TEST, LABELS, write_sample(tmp_path, "image_id,label\n8,1\n9,1\n07,1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,label\n9,1\n07,1\n8,1\n5,1\n", r"sample_submission.csv has 1 id missing from test.csv: 5"),
        ("image_id,label\n9,1\n07,1\n", r"test.csv has 1 id missing from .*sample_submission.csv: 8"),
        ("id,label\n9,1\n", r"sample_submission.csv has the columns id, label, not image_id, label"),
        ("image_id,label\n", r"sample_submission.csv has a header but no rows"),
    ],
)
def test_a_sample_of_other_ids_or_columns_is_named(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        check_submission(SUBMISSION, TEST, LABELS, write_sample(tmp_path, text))


def test_everything_wrong_is_told_at_once(tmp_path):
    wrong = pd.DataFrame({"image_id": ["9", "8"], "label": ["1", "7"]})
    with pytest.raises(InputError) as raised:
        check_submission(wrong, TEST, LABELS, write_sample(tmp_path, "image_id,label\n9,1\n"))
    assert str(raised.value).startswith("3 problems:")


def test_a_right_submission_is_accepted():
    check_submission(SUBMISSION, TEST, LABELS, None)


@pytest.mark.parametrize("folder", [".", "ripik", "input/ripik/data"])
def test_the_sample_is_found_up_to_three_folders_down(folder, tmp_path):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    assert find_sample(tmp_path) is None
    sample = write_sample(tmp_path / folder, "image_id,label\n")
    assert find_sample(tmp_path) == sample
