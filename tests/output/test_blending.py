"""Runs are averaged by image id, and scored only if they share a split."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_run import blend as blend_runs
from made_up_run import change_metrics, metrics_of, report_on, summary_of
from toys import argmax_table

from trunkfold.errors import InputError
from trunkfold.evaluation.predictions import probability_table
from trunkfold.files import write_csv
from trunkfold.metrics import Metrics, Split
from trunkfold.run_folder import RunFolder

CLASSES = {"1": "crack", "2": "dent"}
FOLDS = pd.DataFrame(
    {
        "image_id": ["1", "2", "3", "4", "5", "6"],
        "label": ["1", "2", "1", "2", "1", "2"],
        "filename": [f"{number}.jpg" for number in range(6)],
        "group": ["a", "b", "c", "d", "e", "f"],
        "fold": [0, 0, 1, 1, -1, -1],
    }
)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_run(name: str, p_crack: float, ids: str = "789", classes: dict = CLASSES, folds: pd.DataFrame = FOLDS) -> Path:
    """A finished run that gives every photo the same probability of class 1; test ids in the given order."""
    run = Path("submissions") / name
    run.mkdir(parents=True)
    write_csv(folds, run / "folds.csv")
    for file, rows in {"oof": folds[folds["fold"] >= 0], "holdout": folds[folds["fold"] < 0]}.items():
        if len(rows):
            write_csv(argmax_table(rows, np.tile([p_crack, 1 - p_crack], (len(rows), 1)), classes), run / f"{file}.csv")
    # The first test photo is surer by its id, so that a mix-up of ids shows.
    own = np.array([p_crack + int(test_id) / 100 for test_id in ids])
    test = probability_table(pd.Series(list(ids)), np.stack([own, 1 - own], 1), classes)
    write_csv(test, run / "test_probabilities.csv")
    metrics = Metrics(classes=classes, split=Split("groups.csv", folds=2, holdout=0.2, seed=1))
    RunFolder(run, write=True).save(metrics, run / "metrics.json")
    (run / "shared.safetensors").touch()
    return run


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"image_id": str})


def test_probabilities_are_averaged_by_id_with_the_weights():
    runs = [make_run("a", 0.1), make_run("b", 0.9, ids="978")]
    folder = blend_runs(runs, weights=[3, 1])
    table = read(folder / "test_probabilities.csv")
    assert folder == Path("submissions/a+b")
    assert table["image_id"].tolist() == ["7", "8", "9"]
    np.testing.assert_allclose(table["p_crack"], [0.3 + 0.07, 0.3 + 0.08, 0.3 + 0.09])
    np.testing.assert_allclose(table["p_dent"], 1 - table["p_crack"])
    assert metrics_of(folder)["runs"] == {"submissions/a": 0.75, "submissions/b": 0.25}


def test_columns_are_averaged_by_class_name_in_whatever_order_they_stand():
    folder = blend_runs([make_run("a", 0.1), make_run("b", 0.3)])
    table = read(folder / "test_probabilities.csv")
    again = Path("submissions/b/test_probabilities.csv")
    write_csv(read(again)[["p_dent", "image_id", "p_crack"]], again)
    pd.testing.assert_frame_equal(read(blend_runs([Path("submissions/a"), again.parent]) / again.name), table)


def test_runs_weigh_the_same_unless_told_otherwise():
    folder = blend_runs([make_run("a", 0.2), make_run("b", 0.4), make_run("c", 0.9)], name="mean")
    assert folder.name == "mean"
    np.testing.assert_allclose(read(folder / "test_probabilities.csv")["p_crack"], [0.57, 0.58, 0.59])


def test_runs_of_one_split_are_scored_together():
    """0.75 x 0.1 + 0.25 x 0.9 = 0.3 for class 1: everything is taken for class 2, which is right half the time."""
    folder = blend_runs([make_run("a", 0.1), make_run("b", 0.9)], weights=[3, 1])
    metrics = metrics_of(folder)
    assert metrics["oof"]["accuracy"] == metrics["holdout"]["accuracy"] == 0.5
    assert metrics["oof"]["confusion_matrix"] == [[0, 2], [0, 2]]
    assert [fold["photos"] for fold in metrics["folds"]] == [2, 2]
    assert metrics["luck"]["photos"] == 3  # of test_probabilities.csv
    (found,) = metrics["calibration"]["oof"]["bins"]
    assert (found["confidence"], found["accuracy"], found["photos"]) == (pytest.approx(0.7), 0.5, 4)
    np.testing.assert_allclose(read(folder / "oof.csv")["p_crack"], 0.3)
    assert read(folder / "holdout.csv")["image_id"].tolist() == ["5", "6"]


def test_the_order_of_the_rows_makes_no_other_split(caplog):
    folder = blend_runs([make_run("a", 0.1), make_run("b", 0.9, folds=FOLDS[::-1])])
    assert metrics_of(folder)["oof"]["photos"] == 4
    assert caplog.records == []


def test_without_a_hold_out_only_the_folds_are_scored():
    folds = FOLDS.assign(fold=[0, 0, 1, 1, 0, 1])
    metrics = metrics_of(blend_runs([make_run("a", 0.1, folds=folds), make_run("b", 0.9, folds=folds)]))
    assert (metrics["oof"]["photos"], metrics["holdout"]) == (6, None)


def test_runs_of_different_splits_get_a_warning_and_no_score(caplog):
    runs = [make_run("a", 0.1), make_run("b", 0.9, folds=FOLDS.assign(fold=[1, 0, 0, 1, -1, -1]))]
    Path("submissions/a+b").mkdir()
    Path("submissions/a+b/oof.csv").write_text("of an earlier blend")
    with caplog.at_level(logging.WARNING):
        folder = blend_runs(runs)
    assert "the runs have different splits, so the blend has no unbiased score" in caplog.text
    metrics = metrics_of(folder)
    assert (metrics["oof"], metrics["holdout"], metrics["folds"], metrics["leak"]) == (None, None, [], None)
    assert metrics["calibration"] is metrics["luck"] is None
    assert not (folder / "oof.csv").exists()
    assert len(read(folder / "test_probabilities.csv")) == 3
    report_on(folder)
    assert "no unbiased score" in (folder / "report.html").read_text()
    assert "out-of-fold" not in summary_of(folder)


def test_nothing_of_another_output_stays_in_the_folder():
    """A run with a hold-out, then one without, then a blend are written to one folder."""
    out = RunFolder(Path("submissions/out"), write=True)
    runs = [make_run("a", 0.1), make_run("b", 0.9, folds=FOLDS.assign(fold=[0, 0, 1, 1, 0, 1]))]
    for run in map(RunFolder, runs):
        run.figures.mkdir()
        for path in (run.config, run.history, run.label_issues, run.groups, run.thumbnail(0)):
            path.parent.mkdir(exist_ok=True)
            path.write_text(run.name)
    out.copy_tables(RunFolder(runs[0]))
    assert out.predictions("holdout").exists()
    RunFolder(runs[1]).thumbnail(0).unlink()
    out.copy_tables(RunFolder(runs[1]))
    assert out.config.read_text() == out.label_issues.read_text() == "b"
    assert not out.predictions("holdout").exists()
    assert not out.thumbnail(0).exists()
    blend_runs(runs, name="out")
    left = {path.name for path in out.path.rglob("*") if path.is_file()}
    assert left == {"test_probabilities.csv", "metrics.json"}


def test_a_blend_that_fails_leaves_the_earlier_one():
    runs = [make_run("a", 0.1), make_run("b", 0.9), make_run("c", 0.9, ids="78")]
    before = (blend_runs(runs[:2], name="out") / "oof.csv").read_bytes()
    with pytest.raises(InputError, match="list different photos"):
        blend_runs(runs, name="out")
    assert Path("submissions/out/oof.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("classes", "ids", "message"),
    [
        ({"1": "crack", "2": "lamp"}, "789", "b and submissions/a have different classes"),
        (CLASSES, "78", "test_probabilities.csv and .* list different photos"),
        (CLASSES, "781", "list different photos"),
    ],
)
def test_only_runs_of_the_same_classes_and_photos_are_averaged(classes, ids, message):
    runs = [make_run("a", 0.1), make_run("b", 0.8, ids=ids, classes=classes)]
    with pytest.raises(InputError, match=message):
        blend_runs(runs)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], "--weights has 1 numbers for 2 runs"),
        ([1, -1], "must not be negative"),
        ([0, 0], "not all zero"),
        ([1, float("nan")], "--weights"),
        ([1, float("inf")], "--weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        blend_runs([make_run("a", 0.1), make_run("b", 0.9)], weights)


def test_a_training_run_is_never_overwritten():
    runs = [make_run("a", 0.1), make_run("b", 0.9)]
    with pytest.raises(InputError, match=r"submissions/a contains a trained run: choose another --out"):
        blend_runs(runs, name="a")


def test_a_folder_of_something_else_is_never_emptied():
    runs, other = [make_run("a", 0.1), make_run("b", 0.9)], Path("submissions/study/figures/history.png")
    other.parent.mkdir(parents=True)
    other.touch()
    (other.parents[1] / "study.yaml").touch()
    with pytest.raises(InputError, match="submissions/study contains study.yaml, which no submission has: choose an"):
        blend_runs(runs, name="study")
    assert other.exists()
    Path("submissions/interrupted/figures/photos").mkdir(parents=True)  # as by a submission that did not end
    Path("submissions/interrupted/oof.csv").touch()
    blend_runs(runs, name="interrupted")


@pytest.mark.parametrize("name", ["..", "../elsewhere", "x/y"])
def test_a_blend_lies_right_under_submissions(name):
    with pytest.raises(InputError, match=r"--out '.*' must be a plain folder name"):
        blend_runs([make_run("a", 0.1), make_run("b", 0.9)], name=name)


def test_a_blend_may_not_lie_where_the_searches_for_copies_do():
    with pytest.raises(InputError, match="--out copies is reserved for"):
        blend_runs([make_run("a", 0.1), make_run("b", 0.9)], name="copies")


def test_the_scores_of_a_blend_are_warned_of_as_those_of_its_runs():
    """Photos 1 and 3 are copies in two folds, 2 and 6 are one in a fold and one held out."""
    folds = FOLDS.assign(group=["a", "b", "a", "d", "e", "b"])
    runs = [make_run(name, p_crack, folds=folds) for name, p_crack in (("a", 0.9), ("b", 0.8))]
    for run in runs:
        split = {**metrics_of(run)["split"], "groups": "none"}
        change_metrics(run, split=split)
    folder = blend_runs(runs)
    leak = metrics_of(folder)["leak"]
    assert (leak["oof"]["with_copies"]["photos"], leak["oof"]["without_copies"]["photos"]) == (2, 2)
    assert (leak["holdout"]["with_copies"]["photos"], leak["holdout"]["without_copies"]["photos"]) == (1, 1)
    assert "WARNING: out-of-fold, accuracy 1.000" in summary_of(folder)


def test_a_blend_of_runs_without_copies_leaks_nothing():
    assert metrics_of(blend_runs([make_run("a", 0.1), make_run("b", 0.9)]))["leak"] is None
