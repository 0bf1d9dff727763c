"""The report reads the files of the run, or of the averaged runs, and compares class shares correctly."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from made_up_run import change_metrics, make_run

from trunkfold.csv_table import read_text_table
from trunkfold.files import write_json
from trunkfold.report import contents
from trunkfold.report.contents import count_labels, read_findings
from trunkfold.run_folder import RunFolder


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path)


def make_blend(run: Path, folder: Path, *others: Path) -> Path:
    folder.mkdir()
    for name in ("oof.csv", "holdout.csv"):
        shutil.copy(run / name, folder / name)
    metrics = json.loads((run / "metrics.json").read_text())
    write_json({**metrics, "runs": {str(one): 0.5 for one in (run, *others)}}, folder / "metrics.json")
    return folder


def test_a_run_is_read_with_its_tables(run):
    findings = read_findings(RunFolder(run))
    assert list(findings.tables) == ["holdout", "oof"]
    assert len(findings.folds) == 84
    assert findings.predicted == {"crack": 1, "<script>alert(1)</script>": 0, "$\\oops$ & up": 2}
    assert [photographed.path for photographed in findings.photographed] == [run]


def test_an_average_has_the_folds_of_its_runs_and_photos_of_those_with_the_same(run, tmp_path):
    (tmp_path / "other").mkdir()
    other = make_run(tmp_path / "other")
    different = tmp_path / "different"
    shutil.copytree(run, different)
    table = pd.read_csv(run / "folds.csv", dtype=str)
    table.iloc[::-1].to_csv(different / "folds.csv", index=False)
    blend = make_blend(run, tmp_path / "blend", different, other, tmp_path / "gone")
    findings = read_findings(RunFolder(blend))
    assert findings.folds["image_id"].tolist() == table["image_id"].tolist()
    assert [photographed.path for photographed in findings.photographed] == [run, other]


def test_an_average_of_different_splits_has_no_folds(run, tmp_path):
    blend = make_blend(run, tmp_path / "blend")
    (blend / "oof.csv").unlink()
    change_metrics(blend, oof=None, holdout=None)
    findings = read_findings(RunFolder(blend))
    assert findings.folds is None
    assert findings.tables == findings.shifts == {}


def test_the_submission_is_read_once(run, monkeypatch):
    read = []
    kept = contents.read_text_table
    monkeypatch.setattr(contents, "read_text_table", lambda path, columns: (read.append(path), kept(path, columns))[1])
    read_findings(RunFolder(run))
    assert read == [run / "submission.csv"]


def test_labels_with_names_that_csv_readers_change_are_counted(run):
    (run / "submission.csv").write_text("image_id,label\n1,04\n2,NA\n3,04\n")
    submission = read_text_table(run / "submission.csv", ["label"])
    found = count_labels(submission, {"04": "four", "4": "other", "NA": "none"})
    assert found == {"four": 2, "other": 0, "none": 1}


def test_the_test_photos_are_compared_by_what_is_predicted_of_both(tmp_path):
    """Every fourth labelled photo is taken for crack: a model that leans so on the test photos too shows no shift."""
    run = make_run(tmp_path, copies=1, rows=(120, 48))
    predictions = [label for name in ("oof", "holdout") for label in pd.read_csv(run / f"{name}.csv")["prediction"]]
    lines = "\n".join(f"{number},{label}" for number, label in enumerate(predictions))
    (run / "submission.csv").write_text(f"image_id,label\n{lines}\n")
    shift = read_findings(RunFolder(run)).shifts["Predicted class shares of the test photos and of the labelled photos"]
    assert shift.distance == pytest.approx(0)


def test_copies_of_test_photos_are_one_draw(tmp_path):
    run = make_run(tmp_path, copies=1, rows=(120, 48))
    labels = "\n".join(f"{number},{1 + number % 2}" for number in range(300))
    (run / "submission.csv").write_text(f"image_id,label\n{labels}\n")
    name = "Predicted class shares of the test photos and of the labelled photos"
    alone = read_findings(RunFolder(run)).shifts[name]
    groups = "\n".join(f"{number},test,{number // 30}" for number in range(300))
    (run / "groups.csv").write_text(f"image_id,set,group\n{groups}\n")
    together = read_findings(RunFolder(run)).shifts[name]
    assert together.distance == alone.distance
    assert together.chance > 1.5 * alone.chance
    blend = make_blend(run, tmp_path / "blend", run)  # has no groups itself
    shutil.copy(run / "submission.csv", blend)
    assert read_findings(RunFolder(blend)).shifts[name] == together


def test_sources_are_those_of_the_submitted_photos(tmp_path):
    """Whether or not groups.csv has sets, and whatever other test photos it lists."""
    run = make_run(tmp_path, copies=1, rows=(120, 48))
    labels = "\n".join(f"new {number},{1 + number % 2}" for number in range(300))
    (run / "submission.csv").write_text(f"image_id,label\n{labels}\n")
    name, chances = "Predicted class shares of the test photos and of the labelled photos", {}
    rows = [f"new {number},{{}},{number // 30}" for number in range(300)]
    others = [f"old {number},test,{number}" for number in range(300)]
    for case, lines in {"sets": rows, "no sets": rows, "others": rows + others, "only others": others}.items():
        table = "\n".join(lines).format(*[""] * 300 if case == "no sets" else ["test"] * 300)
        (run / "groups.csv").write_text(f"image_id,set,group\n{table}\n")
        chances[case] = read_findings(RunFolder(run)).shifts[name].chance
    assert chances["sets"] == chances["no sets"] == chances["others"] > 1.5 * chances["only others"]
