"""The submission, checked against test.csv and sample_submission.csv before it is written."""

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd

from trunkfold.csv_table import read_text_table
from trunkfold.data.tables import Competition, files_named, table_problems
from trunkfold.errors import InputError, counted, first_few, raise_problems

logger = logging.getLogger(__name__)

SAMPLE, COLUMNS = "sample_submission.csv", ["image_id", "label"]


def check_test(competition: Competition, labels: Collection[str]) -> None:
    """Check test.csv and sample_submission.csv before anything is predicted.

    Args:
        labels: The competition's labels; a warning is logged if the sample contains none of them.

    Raises:
        InputError: Problems of either file.
    """
    test, sample = competition.test, next(iter(files_named(competition.root, SAMPLE)), None)
    raise_problems([*table_problems(test, "test.csv"), *(sample_problems(test, sample) if sample else ())])
    if sample is not None and not (found := read_text_table(sample, COLUMNS)["label"]).isin(labels).any():
        logger.warning(
            "%s has the labels %s, none of which is in train.csv: check which labels the competition expects",
            sample,
            first_few(found.unique()),
        )


def make_submission(test: pd.DataFrame, predictions: pd.DataFrame, labels: Collection[str]) -> pd.DataFrame:
    """Return image_id and label in the order of test.csv, for a table with image_id and prediction.

    Raises:
        InputError: A photo of test.csv has no prediction, or a label is unknown.
    """
    label = test["image_id"].map(predictions.set_index("image_id")["prediction"])
    missing = test.loc[label.isna(), "image_id"]
    if len(missing):
        raise InputError(f"no prediction for {len(missing)} photos of test.csv: {first_few(missing)}")
    unknown = label[~label.isin(labels)]
    if len(unknown):
        raise InputError(
            f"unknown labels for {counted(len(unknown), 'photo')} of test.csv: {first_few(unknown.unique())}"
        )
    return pd.DataFrame({"image_id": test["image_id"], "label": label})


def sample_problems(test: pd.DataFrame, sample: Path) -> Iterator[str]:
    """Yield the differences between sample_submission.csv and the submission for test.csv."""
    wanted = read_text_table(sample, [])
    if list(wanted.columns) != COLUMNS:
        yield f"{sample} has the columns {', '.join(wanted.columns)}, not {', '.join(COLUMNS)}"
        return
    missing = wanted.loc[~wanted["image_id"].isin(test["image_id"]), "image_id"]
    extra = test.loc[~test["image_id"].isin(wanted["image_id"]), "image_id"]
    repeated = wanted.loc[wanted["image_id"].duplicated(), "image_id"]
    if len(repeated):
        yield f"{sample} has {counted(len(repeated), 'duplicate image_id')}: {first_few(repeated)}"
    if len(missing):
        yield f"{sample} has {counted(len(missing), 'id')} missing from test.csv: {first_few(missing)}"
    if len(extra):
        yield f"test.csv has {counted(len(extra), 'id')} missing from {sample}: {first_few(extra)}"
