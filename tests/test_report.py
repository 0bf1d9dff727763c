"""The page shows the run's own numbers, stands alone, and takes no class name for markup."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from trunkfold.assessment import assess_run
from trunkfold.errors import InputError
from trunkfold.predictions import PREFIX
from trunkfold.report import class_shares, describe_split, draw_confusion, draw_learning_curves, summary, write_report
from trunkfold.runs import write_csv, write_json

CLASSES = {"1": "crack", "2": "<script>alert(1)</script>", "3": "$\\oops$ & up"}


def make_predictions(rows: int, first_id: int, fold: list[int]) -> pd.DataFrame:
    """Labels by turns; every fourth photo is taken for class 1."""
    label = np.array(list("123"))[np.arange(rows) % 3]
    prediction = np.where(np.arange(rows) % 4 == 1, "1", label)
    ids = [str(first_id + row) for row in range(rows)]
    sure = {PREFIX + name: np.where(prediction == number, 0.8, 0.1) for number, name in CLASSES.items()}
    return pd.DataFrame({"image_id": ids, "fold": fold, "label": label, "prediction": prediction, **sure})


def make_run(folder: Path, choice: str = "groups.csv", copies: int = 3, divided: str = "") -> Path:
    """A made-up finished run of two folds and three epochs, with a submission.

    Args:
        folder: Where it lies.
        choice: split.groups.
        copies: Photos of a group.
        divided: Sets whose first twelve photos are copies of photos in both folds.
    """
    run = folder / "made <up>"
    run.mkdir()
    oof, holdout = make_predictions(60, 0, [0, 1] * 30), make_predictions(24, 60, [-1] * 24)
    folds = pd.concat([oof, holdout])[["image_id", "fold"]]
    folds["group"] = [f"{row // (copies * 2)} of {fold}" for row, fold in enumerate(folds["fold"])]
    for table in (oof, holdout):
        name = "oof" if table is oof else "holdout"
        if name in divided:
            folds.loc[folds["image_id"].isin(table["image_id"][:12]), "group"] = "divided"
    metrics = {
        **assess_run(oof, holdout, folds, CLASSES, test_photos=50),
        "classes": CLASSES,
        "split": {"groups": choice, "folds": 2, "holdout": 0.135, "seed": 42},
        "parameters": {"trainable": 14399238, "total": 27920000},
        "seconds": {"reading photos": 1.25, "training": 61.7},
        "images_per_second": 123.4,
    }
    write_json(metrics, run / "metrics.json")
    history = pd.DataFrame({"epoch": [1, 1, 2, 2, 3, 3], "fold": [0, 1] * 3})
    for column in ("train_loss", "val_loss", "val_accuracy", "val_macro_f1", "lr_tail", "lr_head", "seconds"):
        history[column] = np.linspace(0.9, 0.1, 6)
    write_csv(history, run / "history.csv")
    (run / "submission.csv").write_text("image_id,label\n101,1\n102,3\n103,3\n")
    return run


@pytest.fixture
def run(tmp_path) -> Path:
    """A run without a report, to be changed."""
    return make_run(tmp_path)


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Pages without figures, which are what takes time."""
    monkeypatch.setattr("trunkfold.report._save", lambda *_: "data:,")


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    """A run with its report, to be looked at."""
    run = make_run(tmp_path_factory.mktemp("reported"))
    write_report(run)
    return run


def read_page(run: Path) -> tuple[str, dict]:
    """The page without its pictures, and the run's metrics."""
    page = (run / "report.html").read_text(encoding="utf-8")
    return re.sub(r'src="data:[^"]*"', "", page), json.loads((run / "metrics.json").read_text())


def cells(page: str, first: str) -> list[str]:
    """The texts of the table row that begins with `first`, of the first such row."""
    rows = [re.findall(r"<td>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", page, re.S)]
    return next(row for row in rows if row and row[0] == first)


def test_the_pages_numbers_are_those_of_the_metrics(reported):
    page, metrics = read_page(reported)
    for key, title in (("oof", "out-of-fold"), ("holdout", "hold-out")):
        scores, row = metrics[key], cells(page, title)
        for text, name in ((row[1], "macro_f1"), (row[2], "accuracy")):
            low, high = scores["intervals"][name]
            assert text == f"{scores[name]:.4f} [{low:.3f}, {high:.3f}]"
        assert row[3:] == [str(scores["photos"]), str(scores["groups"])]
    crack = metrics["oof"]["per_class"]["crack"]
    assert cells(page, "crack") == [
        "crack",
        *(f"{crack[key]:.3f}" for key in ("precision", "recall", "f1")),
        str(crack["support"]),
    ]
    fold = metrics["folds"][1]
    assert cells(page, "1") == ["1", f"{fold['macro_f1']:.4f}", f"{fold['accuracy']:.4f}", "30"]
    assert "14,399,238 of 27,920,000 numbers" in page
    assert "123 photos a second" in page
    assert "reading photos 1 s, training 62 s." in page


def test_the_submissions_labels_are_counted_by_class(reported):
    page, _ = read_page(reported)
    counts = page[page.index("<h2>Submission") :]
    assert [cells(counts, name)[1] for name in ("crack", "$\\oops$ &amp; up")] == ["1", "2"]


def test_class_shares_are_those_of_each_set():
    folds = pd.DataFrame({"label": list("aaabbbab"), "fold": ["0", "1", "1", "0", "2", "2", "-1", "-1"]})
    shares = class_shares(folds, {"A": 3, "B": 1}, {"a": "A", "b": "B"})
    assert shares.to_dict("list") == {
        "in the folds": [0.5, 0.5],
        "hold-out": [0.5, 0.5],
        "predicted for the test photos": [0.75, 0.25],
    }
    assert shares.index.tolist() == ["A", "B"]


def test_of_one_fold_validation_and_learning_are_sets_of_their_own():
    folds = pd.DataFrame({"label": list("aaabcc"), "fold": ["-2", "-2", "0", "0", "-2", "-2"]})
    shares = class_shares(folds, {}, {"a": "A", "b": "B", "c": "C"})
    assert shares.to_dict("list") == {"learned from": [0.5, 0, 0.5], "validation": [0.5, 0.5, 0]}


def test_before_there_is_a_submission_its_counts_are_left_out(run):
    (run / "submission.csv").unlink()
    write_report(run)
    assert "<h2>Submission" not in read_page(run)[0]


def test_a_name_with_markup_stays_text(reported):
    page, _ = read_page(reported)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<h1>made &lt;up&gt;</h1>" in page


def test_the_page_stands_alone(reported):
    page = (reported / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//|url\(|@import|<link|<script", re.sub(r"base64,[^\"]*", "", page))
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_figures_are_pictures_with_something_on_them(reported):
    names = {path.name for path in (reported / "figures").iterdir()}
    assert names == {"learning_curves.png", "confusion_oof.png", "confusion_holdout.png"}
    for name in names:
        pixels = np.asarray(Image.open(reported / "figures" / name).convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert plt.get_fignums() == []  # none is left open


def test_the_confusion_figure_holds_every_count_at_its_place(run):
    scores = json.loads((run / "metrics.json").read_text())["oof"]
    figure = draw_confusion(scores)
    shown = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    counts = scores["confusion_matrix"]
    assert shown == {(column, row): str(counts[row][column]) for row in range(3) for column in range(3)}
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(CLASSES.values())
    plt.close(figure)


def test_learning_curves_are_thin_by_fold_and_thick_in_the_mean():
    history = pd.DataFrame({"epoch": [1, 1, 2, 2], "fold": [0, 1, 0, 1]})
    for column in ("train_loss", "val_loss", "val_accuracy", "val_macro_f1", "lr_tail", "lr_head"):
        history[column] = [0.1, 0.3, 0.5, 0.9]
    figure = draw_learning_curves(history)
    lines = [list(line.get_ydata()) for line in figure.axes[1].lines]
    assert lines[:2] == [[0.1, 0.5], [0.3, 0.9]]
    assert lines[2] == pytest.approx([0.2, 0.7])
    plt.close(figure)


def assert_warned(run: Path, expected: list[str]) -> None:
    """The summary and the page hold these warnings and no others, and the page is marked when there are any."""
    write_report(run)
    page, lines = html.unescape(read_page(run)[0]), summary(run).splitlines()
    assert [line for line in lines if line.startswith("WARNING")] == expected
    assert re.findall(r"<p>(WARNING.*?)\.</p>", page) == expected
    assert ('<div class="leaky">' in page) == bool(expected)


def told(scores: dict) -> str:
    return f"accuracy {scores['accuracy']:.3f}, macro F1 {scores['macro_f1']:.3f}"


def change_metrics(run: Path, **changed: object) -> dict:
    metrics = {**json.loads((run / "metrics.json").read_text()), **changed}
    write_json(metrics, run / "metrics.json")
    return metrics


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("choice", ["copies", "groups.csv"])
def test_a_split_by_group_names_its_groups_and_warns_of_nothing(choice, tmp_path):
    run = make_run(tmp_path, choice)
    assert_warned(run, [])
    sentence = f"by group ({choice}): no copy of a scored photo was trained on"
    assert f"<p>Split {sentence}.</p>" in read_page(run)[0]
    assert f"split: {sentence}" in summary(run).splitlines()


@pytest.mark.usefixtures("undrawn")
def test_a_random_split_that_divides_copies_is_warned_of_with_what_is_left_without_them(tmp_path):
    """Of 60 out-of-fold photos 12 are copies of a photo in the other fold, of 24 held-out ones 12."""
    run = make_run(tmp_path, "none", divided="oof and holdout")
    leak = json.loads((run / "metrics.json").read_text())["leak"]
    oof, holdout = leak["oof"], leak["holdout"]
    assert_warned(
        run,
        [
            f"WARNING: out-of-fold, {told(oof['with_copies'])} on 12 photos whose copies were learned from; "
            f"on the other 48: {told(oof['without_copies'])}",
            f"WARNING: hold-out, {told(holdout['with_copies'])} on 12 photos whose copies were learned from; "
            f"on the other 12: {told(holdout['without_copies'])}",
        ],
    )
    sentence = (
        "RANDOM by photo (split.groups none), and photos have copies: these scores measure memory, and are too high"
    )
    assert f"<p>Split {sentence}.</p>" in read_page(run)[0]
    assert f"split: {sentence}" in summary(run).splitlines()


@pytest.mark.usefixtures("undrawn")
def test_a_warnings_numbers_are_those_of_the_metrics(tmp_path):
    run = make_run(tmp_path, "none", divided="oof")
    copies = {"photos": 1, "accuracy": 0.98765, "macro_f1": 0.12345}
    others = {"photos": 59, "accuracy": 0.4567, "macro_f1": 0.6}
    change_metrics(run, leak={"oof": {"with_copies": copies, "without_copies": others}, "holdout": None})
    line = (
        "WARNING: out-of-fold, accuracy 0.988, macro F1 0.123 on 1 photo whose copies were learned from; "
        "on the other 59: accuracy 0.457, macro F1 0.600"
    )
    assert_warned(run, [line])


@pytest.mark.usefixtures("undrawn")
def test_sets_without_copies_are_not_warned_of(tmp_path):
    """Also where the other set has them."""
    run = make_run(tmp_path, "none", divided="oof")
    leak = json.loads((run / "metrics.json").read_text())["leak"]
    assert leak["holdout"]["with_copies"] is None
    start = f"WARNING: out-of-fold, {told(leak['oof']['with_copies'])} on 12 photos"
    lines = [line for line in summary(run).splitlines() if line.startswith("WARNING")]
    assert [line.startswith(start) for line in lines] == [True]
    assert_warned(run, lines)


@pytest.mark.usefixtures("undrawn")
def test_where_all_photos_have_copies_there_are_no_others(tmp_path):
    run = make_run(tmp_path, "none", divided="oof")
    copies = {"photos": 60, "accuracy": 1.0, "macro_f1": 1.0}
    change_metrics(run, leak={"oof": {"with_copies": copies, "without_copies": None}, "holdout": None}, holdout=None)
    line = (
        "WARNING: out-of-fold, accuracy 1.000, macro F1 1.000 on 60 photos whose copies were learned from; "
        "there are no others"
    )
    assert_warned(run, [line])


@pytest.mark.usefixtures("undrawn")
def test_a_random_split_without_copies_says_so_and_warns_of_nothing(tmp_path):
    run = make_run(tmp_path, "none", copies=1)
    assert_warned(run, [])
    sentence = "random by photo (split.groups none); no copies were found"
    assert f"<p>Split {sentence}.</p>" in read_page(run)[0]
    assert f"split: {sentence}" in summary(run).splitlines()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("consensus", "line"),
    [
        ({"macro_f1_gain": {"oof": 0.01239, "holdout": -0.5}}, "macro F1 +0.0124 out-of-fold, -0.5000 hold-out"),
        ({"macro_f1_gain": {"oof": 0.0}}, "macro F1 +0.0000 out-of-fold"),
        (
            {"macro_f1_gain": {"oof": 0.1}, "test_labels_changed": 1},
            "macro F1 +0.1000 out-of-fold, 1 test label changed",
        ),
        ({"macro_f1_gain": {"oof": 0.1}, "test_labels_changed": 12}, "+0.1000 out-of-fold, 12 test labels changed"),
        ({"test_labels_changed": 0}, "0 test labels changed"),
    ],
)
def test_what_the_consensus_did_is_told(consensus, line, run):
    change_metrics(run, consensus=consensus)
    write_report(run)
    lines = [found for found in summary(run).splitlines() if found.startswith("consensus of copies: ")]
    assert len(lines) == 1
    assert lines[0].endswith(line)
    assert f">{lines[0]}.</p>" in read_page(run)[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ({"used": True, "photos": 12, "different": 3}, "12 test photos were given (decode.copy_labels), 3"),
        ({"used": False, "photos": 12, "different": 0}, "12 test photos could be given"),
        ({"used": True, "photos": 1, "different": 1}, "1 test photo were given (decode.copy_labels), 1"),
        ({"used": False, "photos": 1, "different": 1}, "1 test photo could be given"),
    ],
)
def test_what_labelled_copies_say_is_told(labels, line, run):
    change_metrics(run, copy_labels=labels)
    write_report(run)
    lines = [found for found in summary(run).splitlines() if found.startswith("labels of copies for ")]
    assert len(lines) == 1
    assert line in lines[0]
    assert f"{labels['different']} of them unlike the prediction" in lines[0]
    assert f">{lines[0]}.</p>" in read_page(run)[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "absent",
    [{}, {"consensus": None, "copy_labels": None}, {"copy_labels": {"used": True, "photos": 0, "different": 0}}],
    ids=["not known", "null", "no such photos"],
)
def test_nothing_is_said_of_what_copies_did_not_do(absent, run):
    change_metrics(run, **absent)
    write_report(run)
    for text in (summary(run), read_page(run)[0]):
        assert "consensus" not in text
        assert "labels of copies" not in text


def test_runs_of_different_splits_have_no_split_to_tell():
    assert describe_split({"oof": None, "leak": None, "split": {"groups": "none"}}) == (
        "different in each of the averaged runs"
    )


def test_the_summary_is_a_table_of_scores_and_files(run, reported):
    metrics = json.loads((run / "metrics.json").read_text())
    lines = summary(run).splitlines()
    assert lines[0].split() == ["macro", "F1", "accuracy", "photos", "groups"]
    for line, key, title in ((lines[1], "oof", "out-of-fold"), (lines[2], "holdout", "hold-out")):
        scores = metrics[key]
        assert line.startswith(title)
        for part, name in zip(line.split("]"), ("macro_f1", "accuracy"), strict=False):
            low, high = scores["intervals"][name]
            assert part.endswith(f" {scores[name]:.4f} [{low:.3f}, {high:.3f}")
        assert line.split()[-2:] == [str(scores["photos"]), str(scores["groups"])]
    assert len({len(line) for line in lines[:3]}) == 1  # the columns stand under each other
    assert lines[-2] == f"split: {describe_split(metrics)}"
    assert lines[-1] == f"files: {run / 'submission.csv'}, {run / 'metrics.json'}"
    assert summary(reported).splitlines()[-1].count(str(reported)) == 3


def test_a_run_without_a_hold_out_shows_its_folds_alone(run):
    metrics = json.loads((run / "metrics.json").read_text())
    write_json({**metrics, "holdout": None}, run / "metrics.json")
    write_report(run)
    page, _ = read_page(run)
    assert "<td>hold-out</td>" not in page
    assert cells(page, "out-of-fold")
    assert "hold-out" not in summary(run).splitlines()[2]
    assert not (run / "figures" / "confusion_holdout.png").exists()


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match="is not a run, or did not finish training"):
        write_report(tmp_path)
