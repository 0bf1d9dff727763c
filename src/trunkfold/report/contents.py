"""All that a run's folder says about its result, read for the report."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trunkfold.csv_table import read_text_table
from trunkfold.evaluation.class_shift import Shift, compare_shares
from trunkfold.evaluation.error_analysis import Gallery, choose_photos, read_placed
from trunkfold.report.thumbnails import Thumbnails
from trunkfold.runs import read_metrics
from trunkfold.split.folds import HELD_OUT
from trunkfold.split.groups import read_groups


@dataclass(frozen=True)
class Findings:
    """What the report is made of.

    Attributes:
        folder: The run, or the average of several.
        metrics: Its metrics.json.
        folds: image_id, filename, label, group and fold (texts, but fold) of the labelled photos; None where the
            averaged runs have different ones.
        tables: Predictions by set, see `trunkfold.evaluation.error_analysis.placed`.
        history: history.csv, None without one.
        predicted: How many test photos were given each class, by name; empty before there is a submission.
        shifts: What was compared with what, and how it differs.
        gallery: Which photos are shown.
        thumbnails: Their pictures.
    """

    folder: Path
    metrics: dict
    folds: pd.DataFrame | None
    tables: dict[str, pd.DataFrame]
    history: pd.DataFrame | None
    predicted: dict[str, int]
    shifts: dict[str, Shift]
    gallery: Gallery
    thumbnails: Thumbnails

    @property
    def classes(self) -> dict[str, str]:
        """Name of each label."""
        return self.metrics["classes"]


def read_findings(folder: Path) -> Findings:
    """Read a run's folder; of an average of several runs, the folds and photos are theirs.

    Raises:
        InputError: A file is damaged, or metrics.json is missing.
    """
    metrics = read_metrics(folder)
    classes = metrics["classes"]
    folds, photographed = _folds([folder, *map(Path, metrics.get("runs", {}))] if metrics["oof"] else [folder])
    tables = {} if folds is None else read_placed(folder, folds, classes)
    predicted = predicted_classes(folder, classes)
    return Findings(
        folder=folder,
        metrics=metrics,
        folds=folds,
        tables=tables,
        history=pd.read_csv(folder / "history.csv") if (folder / "history.csv").exists() else None,
        predicted=predicted,
        shifts={} if folds is None else _shifts(folder, folds, tables, predicted, classes),
        gallery=Gallery() if folds is None else choose_photos(folder, folds, classes),
        thumbnails=Thumbnails([folder, *(run for run in photographed if run != folder)]),
    )


def predicted_classes(folder: Path, classes: dict[str, str]) -> dict[str, int]:
    """How many test photos were given each class, by name; empty before there is a submission."""
    if not (folder / "submission.csv").exists():
        return {}
    labels = read_text_table(folder / "submission.csv", ["label"])["label"]
    return {name: int((labels == label).sum()) for label, name in classes.items()}


def _folds(runs: list[Path]) -> tuple[pd.DataFrame | None, list[Path]]:
    """The first folds.csv, and the runs whose rows are the same photos."""
    columns = ["image_id", "filename", "label", "group", "fold"]
    tables = {run: read_text_table(run / "folds.csv", columns) for run in runs if (run / "folds.csv").exists()}
    if not tables:
        return None, []
    first = next(iter(tables.values()))
    same = [run for run, table in tables.items() if table["image_id"].equals(first["image_id"])]
    return first.astype({"fold": int}), same


def _shifts(
    folder: Path, folds: pd.DataFrame, tables: dict[str, pd.DataFrame], predicted: dict[str, int], classes: dict
) -> dict[str, Shift]:
    """Hold-out against folds by their labels; test photos against labelled ones by what was predicted of both, so that
    the model's own leanings cancel."""
    names, shifts = list(classes.values()), {}

    def count(labels: pd.Series) -> pd.Series:
        return labels.map(classes).value_counts().reindex(names, fill_value=0)

    held_out = folds["fold"] == HELD_OUT
    if held_out.any() and not held_out.all():
        parts = folds[held_out], folds[~held_out]
        sources = tuple(part["group"].nunique() for part in parts)
        shifts["The labels of the hold-out and of the folds"] = compare_shares(
            count(parts[0]["label"]), count(parts[1]["label"]), sources
        )
    if predicted and tables and sum(predicted.values()):
        labelled = pd.concat(tables.values())
        shifts["What was predicted for the test photos and for the labelled ones"] = compare_shares(
            pd.Series(predicted).reindex(names),
            count(labelled["prediction"]),
            (_test_sources(folder, sum(predicted.values())), labelled["group"].nunique()),
        )
    return shifts


def _test_sources(folder: Path, photos: int) -> int:
    """How many sources the test photos show, where that is known."""
    if not (folder / "groups.csv").exists():
        return photos
    groups = read_groups(folder / "groups.csv")
    return groups.loc[groups["set"] == "test", "group"].nunique() or photos
