"""Submissions that the competition would reject are rejected with the reason."""

import pandas as pd
import pytest

from trunkfold.data.tables import files_named
from trunkfold.errors import InputError, raise_problems
from trunkfold.output.submission import SAMPLE, make_submission, sample_problems

TEST = pd.DataFrame({"image_id": ["9", "07", "8"], "filename": ["9.jpg", "7.jpg", "8.jpg"]})
SUBMISSION = pd.DataFrame({"image_id": ["9", "07", "8"], "label": ["1", "2", "1"]})
LABELS = ["1", "2"]


def test_the_order_is_that_of_test_csv():
    predictions = pd.DataFrame({"image_id": ["07", "8", "9", "99"], "prediction": ["2", "1", "1", "2"]})
    pd.testing.assert_frame_equal(make_submission(TEST, predictions, LABELS), SUBMISSION)


def test_a_photo_without_a_prediction_is_named():
    predictions = pd.DataFrame({"image_id": ["8", "7"], "prediction": ["2", "1"]})
    with pytest.raises(InputError, match="no prediction for 2 photos of test.csv: 9, 07"):
        make_submission(TEST, predictions, LABELS)


@pytest.mark.parametrize("label", ["7", "nan", ""])
def test_unknown_labels_are_refused(label):
    predictions = SUBMISSION.assign(prediction=["1", label, "2"])
    with pytest.raises(InputError, match=f"unknown labels for 1 photo of test.csv: {label}"):
        make_submission(TEST, predictions, LABELS)


def write_sample(folder, text: str):
    (folder / "sample_submission.csv").write_text(text)
    return folder / "sample_submission.csv"


def test_a_sample_of_the_same_ids_in_any_order_is_content(tmp_path):
    assert not list(sample_problems(TEST, write_sample(tmp_path, "image_id,label\n8,1\n9,1\n07,1\n")))


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
        raise_problems(sample_problems(TEST, write_sample(tmp_path, text)))


@pytest.mark.parametrize("folder", [".", "ripik", "input/ripik/data"])
def test_the_sample_is_found_up_to_three_folders_down(folder, tmp_path):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    assert files_named(tmp_path, SAMPLE) == []
    sample = write_sample(tmp_path / folder, "image_id,label\n")
    assert files_named(tmp_path, SAMPLE) == [sample]
