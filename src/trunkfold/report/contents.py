"""Reading a run's folder for the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trunkfold.csv_table import read_text_table
from trunkfold.evaluation.class_shift import Shift, compare_shares
from trunkfold.evaluation.error_analysis import Gallery, choose_photos, read_placed, read_suspects
from trunkfold.evaluation.history import read_history
from trunkfold.evaluation.predictions import read_folds
from trunkfold.html import data_address
from trunkfold.metrics import Metrics
from trunkfold.run_folder import RunFolder
from trunkfold.split.folds import HELD_OUT
from trunkfold.split.groups import groups_of, read_groups


@dataclass(frozen=True)
class Findings:
    """The content of the report.

    Attributes:
        folder: The run, or the average of several.
        metrics: Its metrics.json.
        folds: image_id, filename, label, group (all strings) and fold (integer) of the labelled photos; None if the
            averaged runs have different splits.
        tables: Predictions by set, see `trunkfold.evaluation.error_analysis.placed`.
        history: history.csv, or None.
        predicted: Number of test photos predicted as each class, by name; empty without a submission.
        shifts: Differences in class shares, by a description of the compared sets.
        gallery: The photos to show.
        photographed: Runs whose thumbnails show the rows of `folds`.
    """

    folder: RunFolder
    metrics: Metrics
    folds: pd.DataFrame | None
    tables: dict[str, pd.DataFrame]
    history: pd.DataFrame | None
    predicted: dict[str, int]
    shifts: dict[str, Shift]
    gallery: Gallery
    photographed: list[RunFolder]

    @property
    def classes(self) -> dict[str, str]:
        """Name of each label."""
        return self.metrics.classes

    def photo(self, row: int) -> str | None:
        """Return the thumbnail of a row of `folds` as a data URL; None if there is none."""
        return next(filter(None, (_address(run.thumbnail(row)) for run in self.photographed)), None)

    def heat(self, row: int) -> str | None:
        """Return the thumbnail with a Grad-CAM overlay, of this run only, as it explains one model."""
        return _address(self.folder.heat_map(row))


def read_findings(run: RunFolder) -> Findings:
    """Read a run's folder. For an average of runs, folds and photos are read from the averaged runs.

    Raises:
        InputError: A file is damaged, or metrics.json is missing.
    """
    metrics = run.read_metrics()
    classes = metrics.classes
    averaged = [RunFolder(Path(path)) for path in metrics.runs] if metrics.oof else []
    folds, photographed = _folds([run, *averaged], classes)
    tables = {} if folds is None else read_placed(run, folds, classes)
    submission = read_text_table(run.submission, ["image_id", "label"]) if run.submission.exists() else None
    predicted = {} if submission is None else count_labels(submission, classes)
    gallery = Gallery() if folds is None else choose_photos(tables, read_suspects(run, folds), folds, classes)
    return Findings(
        folder=run,
        metrics=metrics,
        folds=folds,
        tables=tables,
        history=read_history(run),
        predicted=predicted,
        shifts={} if folds is None else _shifts(submission, predicted, photographed, folds, tables, classes),
        gallery=gallery,
        photographed=photographed,
    )


def count_labels(submission: pd.DataFrame, classes: dict[str, str]) -> dict[str, int]:
    """Return the number of photos with each label, by name of the class."""
    return {name: int((submission["label"] == label).sum()) for label, name in classes.items()}


def _address(path: Path) -> str | None:
    return data_address(path.read_bytes(), "jpeg") if path.exists() else None


def _folds(runs: list[RunFolder], classes: dict[str, str]) -> tuple[pd.DataFrame | None, list[RunFolder]]:
    """Return the first folds.csv, and the runs whose folds.csv lists the same photos."""
    tables = {run: read_folds(run.folds, classes) for run in runs if run.folds.exists()}
    if not tables:
        return None, []
    first = next(iter(tables.values()))
    return first, [run for run, table in tables.items() if table["image_id"].equals(first["image_id"])]


def _shifts(
    submission: pd.DataFrame | None,
    predicted: dict[str, int],
    runs: Sequence[RunFolder],
    folds: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    classes: dict[str, str],
) -> dict[str, Shift]:
    """Compare class shares: hold-out with folds by label, and test with labelled photos by prediction, so that the
    model's bias cancels."""
    names, shifts = list(classes.values()), {}

    def count(labels: pd.Series) -> pd.Series:
        return labels.map(classes).value_counts().reindex(names, fill_value=0)

    held_out = folds["fold"] == HELD_OUT
    if held_out.any() and not held_out.all():
        parts = folds[held_out], folds[~held_out]
        sources = tuple(part["group"].nunique() for part in parts)
        shifts["Class shares of the hold-out and of the folds"] = compare_shares(
            count(parts[0]["label"]), count(parts[1]["label"]), sources
        )
    if predicted and tables and sum(predicted.values()):
        labelled = pd.concat(tables.values())
        shifts["Predicted class shares of the test photos and of the labelled photos"] = compare_shares(
            pd.Series(predicted).reindex(names),
            count(labelled["prediction"]),
            (_test_sources(submission["image_id"], runs), labelled["group"].nunique()),
        )
    return shifts


def _test_sources(ids: pd.Series, runs: Sequence[RunFolder]) -> int:
    """Return the number of sources among test photos; without a known group, each photo is one."""
    found = next((run.groups for run in runs if run.groups.exists()), None)
    if found is None:
        return len(ids)
    groups = groups_of(ids, "test", read_groups(found))
    return groups[groups != ""].nunique() + int((groups == "").sum())
