"""A run's folder is made once, found again, and never holds half a file."""

import os

import pytest

from trunkfold.errors import InputError
from trunkfold.files import write_json, write_text
from trunkfold.output.provenance import Stopwatch
from trunkfold.run_folder import SUBMISSIONS, newest_run


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def create_run(name: str):
    """The empty folder of a run."""
    (SUBMISSIONS / name).mkdir(parents=True)
    return SUBMISSIONS / name


def finish(name: str, seconds: int):
    """A finished run of that age."""
    run = create_run(name)
    write_text("", run / "config.yaml")
    write_json({}, run / "metrics.json")
    os.utime(run / "metrics.json", (seconds, seconds))
    return run


def test_the_newest_run_is_the_one_that_finished_last():
    newer = finish("a", 200)
    finish("b", 100)
    create_run("unfinished")
    assert newest_run() == newer


def test_a_blend_is_no_run():
    newer = finish("a", 100)
    (finish("a+b", 200) / "config.yaml").unlink()
    assert newest_run() == newer


def test_without_a_finished_run_training_is_asked_for():
    create_run("unfinished")
    with pytest.raises(InputError, match="no finished run under submissions/: train one first"):
        newest_run()


def test_metrics_are_read_as_they_were_written():
    run = create_run("first")
    metrics = {"oof": {"macro_f1": 0.5}, "holdout": None, "classes": {"1": "crack", "2": "dent"}}
    write_json(metrics, run / "metrics.json")
    assert read_metrics(run) == metrics


def test_missing_and_damaged_metrics_are_named():
    run = create_run("first")
    with pytest.raises(InputError, match=r"metrics.json is missing: .*first is not a run, or did not finish training"):
        read_metrics(run)
    write_text("{", run / "metrics.json")
    with pytest.raises(InputError, match=r"metrics.json is damaged"):
        read_metrics(run)


def test_a_stopwatch_keeps_the_seconds_of_each_phase(monkeypatch):
    times = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    watch = Stopwatch()
    with watch("training"):
        pass
    with watch("prediction"):
        pass
    assert watch.seconds == {"training": 2.5, "prediction": 1.0}
