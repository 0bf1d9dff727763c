"""Selection of the photos shown in the report."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from trunkfold.csv_table import read_text_table
from trunkfold.evaluation.predictions import probabilities_of, read_scored
from trunkfold.run_folder import SETS, RunFolder

MISTAKES, SUSPECTS = 12, 24  # mistakes per set; suspected labels
PAIRS, IN_PAIR = 4, 4  # pairs of confused classes, and photos per pair
COPIES = 3  # copies shown with a photo
SAMPLES, MOST_SAMPLES = 5, 120  # samples per class, and in total


@dataclass(frozen=True)
class Gallery:
    """Photos in the report, by row of folds.csv.

    Attributes:
        mistakes: The most confident wrong predictions of each set, one per group, as tables like those of `placed`.
        pairs: The most confused classes: label, prediction, count, and rows of some of these photos.
        samples: Rows of some photos of each label, one per group.
        suspects: The first suspected labels, see `read_suspects`.
        copies: Rows of the same group for each row of mistakes and suspects.
    """

    mistakes: dict[str, pd.DataFrame] = field(default_factory=dict)
    pairs: list[dict] = field(default_factory=list)
    samples: dict[str, list[int]] = field(default_factory=dict)
    suspects: pd.DataFrame = field(default_factory=pd.DataFrame)
    copies: dict[int, list[int]] = field(default_factory=dict)

    @property
    def rows(self) -> list[int]:
        """All rows in the report."""
        shown = {int(row) for pair in self.pairs for row in pair["rows"]}
        shown |= {row for rows in [*self.samples.values(), *self.copies.values()] for row in rows}
        return sorted(shown | set(self.copies))


def choose_photos(
    tables: Mapping[str, pd.DataFrame], suspects: pd.DataFrame, folds: pd.DataFrame, classes: Mapping[str, str]
) -> Gallery:
    """Choose the photos for the report of a run from the results of `read_placed`, `read_suspects` and `read_folds`."""
    mistakes = {name: surest_mistakes(table) for name, table in tables.items()}
    beside = [*(row for table in mistakes.values() for row in table["row"])]
    beside += suspects["row"].tolist() if len(suspects) else []
    return Gallery(
        mistakes=mistakes,
        pairs=confused_pairs(pd.concat(tables.values())) if tables else [],
        samples=class_samples(folds, classes),
        suspects=suspects,
        copies=copies_of(folds, beside),
    )


def read_placed(run: RunFolder, folds: pd.DataFrame, classes: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """Read the prediction tables of a run, hold-out first, see `read_scored` and `placed`."""
    tables = {name: read_scored(run, name, folds, classes) for name in SETS}
    return {name: placed(table, folds, classes) for name, table in tables.items() if table is not None}


def placed(table: pd.DataFrame, folds: pd.DataFrame, classes: Mapping[str, str]) -> pd.DataFrame:
    """Add the columns row (in folds.csv), group and sure (probability of the prediction) to a prediction table."""
    row_of_id = pd.Series(range(len(folds)), index=folds["image_id"])
    rows = row_of_id.reindex(table["image_id"]).to_numpy()
    return table.assign(row=rows, group=folds["group"].to_numpy()[rows], sure=probabilities_of(table, classes).max(1))


def surest_mistakes(table: pd.DataFrame, most: int = MISTAKES) -> pd.DataFrame:
    """Return the most confident wrong predictions, one per group."""
    wrong = table[table["label"] != table["prediction"]].sort_values("sure", ascending=False, kind="stable")
    return wrong.drop_duplicates("group").head(most)


def confused_pairs(table: pd.DataFrame) -> list[dict]:
    """Return the most frequent confusions of two classes, with the most confident photos of each, one per group."""
    wrong = table[table["label"] != table["prediction"]]
    pairs = sorted(wrong.groupby(["label", "prediction"]), key=lambda pair: -len(pair[1]))
    return [
        {
            "label": label,
            "prediction": prediction,
            "count": len(own),
            "rows": surest_mistakes(own, IN_PAIR)["row"].tolist(),
        }
        for (label, prediction), own in pairs[:PAIRS]
    ]


def class_samples(folds: pd.DataFrame, classes: Mapping[str, str]) -> dict[str, list[int]]:
    """Return rows of a few photos of each label, one per group, spread evenly over the table."""
    each = max(1, min(SAMPLES, MOST_SAMPLES // max(len(classes), 1)))
    samples = {}
    for label in classes:
        rows = np.flatnonzero(folds["label"] == label)
        rows = rows[~folds["group"].iloc[rows].duplicated().to_numpy()]
        chosen = np.linspace(0, len(rows) - 1, min(each, len(rows))).round().astype(int)
        samples[label] = rows[chosen].tolist()
    return samples


def copies_of(folds: pd.DataFrame, rows: list[int]) -> dict[int, list[int]]:
    """Return up to three other rows of the group of each row."""
    members = folds.groupby("group").indices
    groups = folds["group"].to_numpy()
    return {int(row): [int(other) for other in members[groups[row]] if other != row][:COPIES] for row in map(int, rows)}


def read_suspects(run: RunFolder, folds: pd.DataFrame) -> pd.DataFrame:
    """Read the first suspected labels, one row per source, label and suggestion; empty if there are none.

    Returns:
        The columns of label_issues.csv for the first photo of each source, its row in folds.csv and its group, and
        photos: image_id, filename and label of all photos of the source with this label and suggestion.

    Raises:
        InputError: The file was edited and cannot be read; reviewers may delete rows, also all of them.
    """
    if not run.label_issues.exists():
        return pd.DataFrame()
    issues = read_text_table(run.label_issues, ["image_id", "label", "suggestion"], may_be_empty=True)
    rows = pd.Index(folds["image_id"]).get_indexer(issues["image_id"])
    issues, rows = issues[rows >= 0], rows[rows >= 0]
    if issues.empty:
        return pd.DataFrame()
    known = {column: folds[column].to_numpy()[rows] for column in ("group", "filename")}
    issues = issues.assign(row=rows, **known)
    key = ["group", "label", "suggestion"]
    photos = issues.groupby(key)[["image_id", "filename", "label"]].apply(lambda own: own.to_dict("records"))
    return issues.drop_duplicates(key).head(SUSPECTS).join(photos.rename("photos"), on=key)
