"""The summary states the score, how it was measured, and problems; the page agrees with it."""

import html
import json
import re
from pathlib import Path

import pytest
from made_up_run import change_metrics, make_run, read_page, report_on, summary_of, typed

from trunkfold.report.console import describe_split, summary
from trunkfold.run_folder import RunFolder


@pytest.fixture
def run(tmp_path) -> Path:
    """A run without a report, to be changed."""
    return make_run(tmp_path)


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch) -> None:
    """Pages without figures, which are what takes time."""
    for name in ("score_sections.save_figure", "score_sections.save_picture", "photo_sections.save_figure"):
        monkeypatch.setattr(f"trunkfold.report.{name}", lambda *_: "data:,")


def assert_warned(run: Path, expected: list[str]) -> None:
    """The summary and the page hold these warnings and no others, and the page is marked when there are any."""
    report_on(run)
    page, lines = html.unescape(read_page(run)[0]), summary_of(run).splitlines()
    assert [line for line in lines if line.startswith("WARNING")] == expected
    assert re.findall(r"<p>(WARNING.*?)\.</p>", page) == expected
    assert ('<div class="leaky">' in page) == bool(expected)


def told(scores: dict) -> str:
    return f"accuracy {scores['accuracy']:.3f}, macro F1 {scores['macro_f1']:.3f}"


def test_a_class_without_a_held_out_photo_is_named(run):
    assert "counted as 0" not in summary_of(run)
    holdout = json.loads((run / "metrics.json").read_text())["holdout"]
    holdout["per_class"]["crack"] = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    change_metrics(run, holdout=holdout)
    line = "hold-out: no photo of crack, counted as 0 in macro F1"
    assert line in summary_of(run).splitlines()
    report_on(run)
    assert f"<p>{line}.</p>" in read_page(run)[0]


@pytest.mark.parametrize("choice", ["copies", "groups.csv"])
def test_a_split_by_group_names_its_groups_and_warns_of_nothing(choice, tmp_path):
    run = make_run(tmp_path, choice)
    assert_warned(run, [])
    sentence = f"by group ({choice}): no copy of a scored photo was used in training"
    assert f"<p>Split {sentence}.</p>" in read_page(run)[0]
    assert f"split: {sentence}" in summary_of(run).splitlines()


def test_a_random_split_that_divides_copies_is_warned_of_with_what_is_left_without_them(tmp_path):
    """Of 60 out-of-fold photos 12 are copies of a photo in the other fold, of 24 held-out ones 12."""
    run = make_run(tmp_path, "none", divided="oof and holdout")
    leak = json.loads((run / "metrics.json").read_text())["leak"]
    oof, holdout = leak["oof"], leak["holdout"]
    assert_warned(
        run,
        [
            f"WARNING: out-of-fold, {told(oof['with_copies'])} on 12 photos whose copies were in training; "
            f"on the other 48: {told(oof['without_copies'])}",
            f"WARNING: hold-out, {told(holdout['with_copies'])} on 12 photos whose copies were in training; "
            f"on the other 12: {told(holdout['without_copies'])}",
        ],
    )
    sentence = "RANDOM by photo (split.groups none), inflated: copies of scored photos were in training"
    assert f"<p>Split {sentence}.</p>" in read_page(run)[0]
    assert f"split: {sentence}" in summary_of(run).splitlines()


def test_a_warnings_numbers_are_those_of_the_metrics(tmp_path):
    run = make_run(tmp_path, "none", divided="oof")
    copies = {"photos": 1, "accuracy": 0.98765, "macro_f1": 0.12345}
    others = {"photos": 59, "accuracy": 0.4567, "macro_f1": 0.6}
    change_metrics(run, leak={"oof": {"with_copies": copies, "without_copies": others}, "holdout": None})
    line = (
        "WARNING: out-of-fold, accuracy 0.988, macro F1 0.123 on 1 photo whose copies were in training; "
        "on the other 59: accuracy 0.457, macro F1 0.600"
    )
    assert_warned(run, [line])


def test_sets_without_copies_are_not_warned_of(tmp_path):
    """Also where the other set has them."""
    run = make_run(tmp_path, "none", divided="oof")
    leak = json.loads((run / "metrics.json").read_text())["leak"]
    assert leak["holdout"]["with_copies"] is None
    start = f"WARNING: out-of-fold, {told(leak['oof']['with_copies'])} on 12 photos"
    lines = [line for line in summary_of(run).splitlines() if line.startswith("WARNING")]
    assert [line.startswith(start) for line in lines] == [True]
    assert_warned(run, lines)


def test_where_all_photos_have_copies_there_are_no_others(tmp_path):
    run = make_run(tmp_path, "none", divided="oof")
    copies = {"photos": 60, "accuracy": 1.0, "macro_f1": 1.0}
    change_metrics(run, leak={"oof": {"with_copies": copies, "without_copies": None}, "holdout": None}, holdout=None)
    line = (
        "WARNING: out-of-fold, accuracy 1.000, macro F1 1.000 on 60 photos whose copies were in training; "
        "there are no other photos"
    )
    assert_warned(run, [line])


def test_a_random_split_without_copies_says_so_and_warns_of_nothing(tmp_path):
    run = make_run(tmp_path, "none", copies=1)
    assert_warned(run, [])
    sentence = "random by photo (split.groups none); no copies were found"
    assert f"<p>Split {sentence}.</p>" in read_page(run)[0]
    assert f"split: {sentence}" in summary_of(run).splitlines()


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
    report_on(run)
    lines = [found for found in summary_of(run).splitlines() if found.startswith("consensus of copies: ")]
    assert len(lines) == 1
    assert lines[0].endswith(line)
    assert f">{lines[0]}.</p>" in read_page(run)[0]


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ({"used": True, "photos": 12, "different": 3}, "were used for 12 test photos (decode.copy_labels); 3"),
        ({"used": False, "photos": 12, "different": 0}, "are available for 12 test photos"),
        ({"used": True, "photos": 1, "different": 1}, "were used for 1 test photo (decode.copy_labels); 1"),
        ({"used": False, "photos": 1, "different": 1}, "are available for 1 test photo"),
    ],
)
def test_what_labelled_copies_say_is_told(labels, line, run):
    change_metrics(run, copy_labels=labels)
    report_on(run)
    lines = [found for found in summary_of(run).splitlines() if found.startswith("labels of copies ")]
    assert len(lines) == 1
    assert line in lines[0]
    assert f"{labels['different']} of them differ from the prediction" in lines[0]
    assert f">{lines[0]}.</p>" in read_page(run)[0]


@pytest.mark.parametrize(
    "absent",
    [{}, {"consensus": None, "copy_labels": None}, {"copy_labels": {"used": True, "photos": 0, "different": 0}}],
    ids=["not known", "null", "no such photos"],
)
def test_nothing_is_said_of_what_copies_did_not_do(absent, run):
    change_metrics(run, **absent)
    report_on(run)
    for text in (summary_of(run), read_page(run)[0]):
        assert "onsensus of copies" not in text
        assert "labels of copies" not in text


def test_runs_of_different_splits_have_no_split_to_tell():
    assert describe_split(typed(oof=None)) == "different in each of the averaged runs"


def test_the_summary_is_the_headline_a_table_of_scores_and_files(run):
    metrics = json.loads((run / "metrics.json").read_text())
    headline, _, *lines = summary_of(run).splitlines()
    assert headline.startswith("Expect {:.3f} to {:.3f} private".format(*metrics["expected"]["leaderboard"]))
    assert lines[0].split() == ["macro", "F1", "accuracy", "photos", "groups"]
    low, high = metrics["expected"]["interval"]
    assert lines[1].split(maxsplit=1) == ["expected", f"{metrics['expected']['macro_f1']:.4f} [{low:.3f}, {high:.3f}]"]
    for line, key, title in ((lines[2], "holdout", "hold-out"), (lines[3], "oof", "out-of-fold")):
        scores = metrics[key]
        assert line.startswith(title)
        for part, name in zip(line.split("]"), ("macro_f1", "accuracy"), strict=False):
            low, high = scores["intervals"][name]
            assert part.endswith(f" {scores[name]:.4f} [{low:.3f}, {high:.3f}")
        assert line.split()[-2:] == [str(scores["photos"]), str(scores["groups"])]
    assert len({len(line) for line in (lines[0], *lines[2:4])}) == 1  # the columns stand under each other
    split, time, files = lines[-3:]
    assert split == f"split: {describe_split(RunFolder(run).read_metrics())}"
    assert time == "time: reading photos 1.2 s, training 62 s"
    assert files == f"files: {run / 'submission.csv'}, {run / 'metrics.json'}"
    report_on(run)
    assert summary_of(run).splitlines()[-1].count(str(run)) == 3


def test_the_next_command_is_the_last_line(run):
    metrics = RunFolder(run).read_metrics()
    assert summary(RunFolder(run), metrics, "upload it").splitlines()[-2:] == ["", "next: upload it"]


def test_an_interval_of_no_mistakes_is_not_shown(run):
    """Its width is 0, as if the score were certain."""
    holdout = json.loads((run / "metrics.json").read_text())["holdout"]
    perfect = {"accuracy": 1.0, "macro_f1": 1.0, "intervals": {"accuracy": [1, 1], "macro_f1": [1, 1]}}
    change_metrics(run, holdout={**holdout, **perfect})
    (row,) = [line for line in summary_of(run).splitlines() if line.startswith("hold-out")]
    assert row.count("1.0000 no mistake") == 2
    assert "[" not in row
