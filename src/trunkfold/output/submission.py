"""The file that is uploaded: checked against test.csv and sample_submission.csv before it is written."""

import logging
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from trunkfold.csv_table import read_text_table
from trunkfold.data.tables import read_unlabelled
from trunkfold.errors import InputError, first_few, raise_problems

logger = logging.getLogger(__name__)

SAMPLE, COLUMNS = "sample_submission.csv", ["image_id", "label"]


def read_test(root: Path, labels: Collection[str]) -> pd.DataFrame:
    """Read test.csv, and check it against sample_submission.csv before anything is predicted.

    Args:
        root: Folder of the competition.
        labels: The competition's labels; a warning says where the sample's are none of them.

    Raises:
        InputError: What is wrong with either.
    """
    problems: list[str] = []
    test, sample = read_unlabelled(root, problems), find_sample(root)
    if sample is not None:
        problems += sample_problems(test, sample)
    raise_problems(problems)
    if sample is not None and not (found := read_text_table(sample, COLUMNS)["label"]).isin(labels).any():
        logger.warning(
            "%s has the labels %s, none of which train.csv has: does the competition want other labels?",
            sample,
            first_few(found.unique()),
        )
    return test


def make_submission(test: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """image_id and label, in the order of test.csv.

    Args:
        test: image_id of the photos that need a label.
        predictions: image_id and prediction.

    Raises:
        InputError: A photo of test.csv has no prediction.
    """
    label = test["image_id"].map(predictions.set_index("image_id")["prediction"])
    missing = test.loc[label.isna(), "image_id"]
    if len(missing):
        raise InputError(f"no prediction for {len(missing)} photos of test.csv: {first_few(missing)}")
    return pd.DataFrame({"image_id": test["image_id"], "label": label})


def check_submission(submission: pd.DataFrame, test: pd.DataFrame, labels: list[str], sample: Path | None) -> None:
    """Refuse what the competition would refuse.

    Args:
        submission: image_id and label.
        test: image_id, in the order that is wanted.
        labels: The competition's labels.
        sample: sample_submission.csv, where there is one.

    Raises:
        InputError: Ids are missing, repeated or in another order, labels are unknown, or the sample wants other ids or
            columns; all of it in one message.
    """
    problems = []
    if submission["image_id"].tolist() != test["image_id"].tolist():
        problems.append("the ids are not those of test.csv, each once and in its order")
    unknown = submission.loc[~submission["label"].isin(labels), "label"].astype(str)
    if len(unknown):
        problems.append(f"{len(unknown)} labels are none of the competition's: {first_few(unknown.unique())}")
    if sample is not None:
        problems += sample_problems(test, sample)
    raise_problems([f"submission.csv is not written: {problem}" for problem in problems])


def find_sample(root: Path) -> Path | None:
    """sample_submission.csv in `root` or up to three folders down; None where there is none."""
    return next((path for depth in range(4) for path in sorted(root.glob("*/" * depth + SAMPLE))), None)


def sample_problems(test: pd.DataFrame, sample: Path) -> list[str]:
    """List the differences between sample_submission.csv and the submission for test.csv."""
    wanted = read_text_table(sample, [])
    problems = []
    if list(wanted.columns) != COLUMNS:
        problems.append(f"{sample} has the columns {', '.join(wanted.columns)}, not {', '.join(COLUMNS)}")
    else:
        missing = wanted.loc[~wanted["image_id"].isin(test["image_id"]), "image_id"]
        extra = test.loc[~test["image_id"].isin(wanted["image_id"]), "image_id"]
        repeated = wanted.loc[wanted["image_id"].duplicated(), "image_id"]
        if len(repeated):
            problems.append(f"{sample} has an image_id twice or more: {first_few(repeated)}")
        if len(missing):
            problems.append(f"{sample} wants {len(missing)} ids that test.csv lacks: {first_few(missing)}")
        if len(extra):
            problems.append(f"test.csv has {len(extra)} ids that {sample} lacks: {first_few(extra)}")
    return problems
