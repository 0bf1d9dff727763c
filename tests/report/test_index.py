"""The page of all runs lists existing runs, newest first, and never fails a command."""

import os
import re
from pathlib import Path

import pytest
from made_up_run import change_metrics, make_run, metrics_of
from toys import refuse_writes

from trunkfold.report.index import write_index, write_index_after


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("submissions").mkdir()


def rows() -> list[str]:
    write_index()
    return re.findall(r"<tr>(<td>.*?)</tr>", Path("submissions/index.html").read_text(), re.S)


def test_runs_are_listed_with_scores_and_links_newest_first():
    older, newer = (make_run(Path("submissions"), name=name) for name in ("older", "new <er>"))
    (newer / "report.html").touch()
    change_metrics(older, expected=None)
    os.utime(older / "metrics.json", (1, 1))
    first, second = rows()
    assert first.startswith("<td>new &lt;er&gt;</td>")
    found = metrics_of(newer)
    for score, interval in (
        (found["expected"]["macro_f1"], found["expected"]["interval"]),
        *((found[name]["macro_f1"], found[name]["intervals"]["macro_f1"]) for name in ("oof", "holdout")),
    ):
        assert f">{score:.3f} <small>[{interval[0]:.3f}, {interval[1]:.3f}]</small></td>" in first
    assert '<a href="new%20%3Cer%3E/report.html">report.html</a>' in first
    assert '<a href="older/submission.csv">submission.csv</a>' in second
    assert "report.html" not in second


def test_runs_that_are_damaged_or_unfinished_are_named():
    (make_run(Path("submissions"), name="a") / "metrics.json").write_text("{")
    Path("submissions/b").mkdir()
    Path("submissions/b/state.safetensors").touch()
    Path("submissions/copies/demo").mkdir(parents=True)
    Path("submissions/copies/demo/copies.html").touch()
    text = " ".join(rows())
    assert "metrics.json is damaged" in text
    assert "not finished" in text
    assert text.count("<td") == 2 * 4  # a problem takes the place of three scores
    assert '<a href="copies/demo/copies.html">copies: copies/demo</a>' in Path("submissions/index.html").read_text()


def test_where_nothing_can_be_written_there_is_no_page(monkeypatch):
    refuse_writes(monkeypatch, Path("submissions"))
    write_index()
    Path("submissions").rmdir()
    write_index()
    assert not Path("submissions").exists()


def test_what_another_process_removes_meanwhile_does_not_fail_a_command(monkeypatch):
    run = make_run(Path("submissions"), name="a")
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name == "metrics.json" or exists(path))
    (run / "metrics.json").unlink()
    write_index()


def test_only_what_is_written_below_submissions_updates_the_page(tmp_path):
    write_index_after(Path("elsewhere/predictions.csv"), None)
    assert not Path("submissions/index.html").exists()
    write_index_after(None, tmp_path / "submissions/a/predictions.csv")
    assert Path("submissions/index.html").exists()


def test_an_interval_of_no_mistakes_is_not_shown():
    """Its width is 0, as if the score were certain."""
    run = make_run(Path("submissions"))
    holdout = {**metrics_of(run)["holdout"], "macro_f1": 1.0, "intervals": {"accuracy": [1, 1], "macro_f1": [1, 1]}}
    change_metrics(run, holdout=holdout)
    (row,) = rows()
    assert ">1.000 <small>no mistake</small></td>" in row
