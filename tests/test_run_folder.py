"""The folder of a run is created once, is found again, and never contains partial files."""

import ast
import json
import os
from pathlib import Path

import made_up_run
import pytest
from made_up_run import typed
from toys import SOURCE, refuse_writes

from trunkfold.errors import InputError
from trunkfold.files import write_text
from trunkfold.output.provenance import Stopwatch
from trunkfold.run_folder import SETS, SUBMISSIONS, RunFolder, chosen_run


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
    write_text("", run / "shared.safetensors")
    write_text("", run / "history.csv")
    write_text("{}", run / "metrics.json")
    os.utime(run / "history.csv", (seconds, seconds))
    return run


def test_the_newest_run_is_the_one_that_finished_last():
    newer = finish("a", 200)
    finish("b", 100)
    create_run("unfinished")
    assert chosen_run().path == newer


def test_a_submission_does_not_make_its_run_the_newest():
    older, newer = finish("a", 100), finish("b", 200)
    write_text("{}", older / "metrics.json")
    assert chosen_run().path == newer


def test_a_run_is_finished_when_its_checkpoint_is_gone():
    newer = finish("a", 100)
    RunFolder(finish("b", 200)).state.touch()
    assert chosen_run().path == newer


def test_a_blend_is_no_run():
    newer = finish("a", 100)
    (finish("a+b", 200) / "shared.safetensors").unlink()
    assert chosen_run().path == newer


def test_without_a_finished_run_training_is_asked_for():
    create_run("unfinished")
    with pytest.raises(InputError, match="no finished run under submissions/: train one first"):
        chosen_run()


def test_metrics_are_read_as_they_were_written(tmp_path):
    run = RunFolder(made_up_run.make_run(tmp_path), write=True)
    metrics = typed(**{**made_up_run.metrics_of(run.path), **made_up_run.extra_metrics()})
    run.save(metrics, run.metrics)
    assert run.read_metrics() == metrics
    keys = json.loads(run.metrics.read_text())
    assert (next(iter(keys)), keys["format"]) == ("format", 1)
    assert keys["luck"]["told_apart"][0] == {"agreement": 0.8, "difference": 0.037}


def test_missing_metrics_are_named():
    with pytest.raises(InputError, match=r"metrics.json is missing: .*first is not a run, or did not finish training"):
        RunFolder(create_run("first")).read_metrics()


CLASSES = '"classes": {"1": "a", "2": "b"}'
SPLIT = '"split": {"groups": "copies", "folds": 2, "holdout": "legacy", "seed": 1}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "metrics.json is damaged"),
        ("[]", "metrics.json is damaged"),
        ("[" * 100_000, "nested too deeply"),
        (f'{{"format": 1, {CLASSES}}}', "split: Field required"),
        (f'{{"format": 1, {SPLIT}, "classes": {{"1": "a"}}}}', "fewer than two classes"),
        (f'{{"format": 1, {SPLIT}, {CLASSES}, "oof": {{}}}}', "oof.photos: Field required"),
        (f'{{"format": 1, {SPLIT}, {CLASSES}, "seconds": {{"training": "3"}}}}', "seconds.training: .* number"),
        (f"{{{SPLIT}, {CLASSES}}}", "it has format None, not 1: another version of trunkfold wrote it"),
        (f'{{"format": 2, {SPLIT}, {CLASSES}}}', "it has format 2, not 1"),
    ],
)
def test_damaged_and_older_metrics_are_one_clear_error(text, message):
    run = create_run("first")
    (run / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        RunFolder(run).read_metrics()
    assert "submissions/first/metrics.json" in str(caught.value)


def test_a_run_that_is_only_read_is_never_written():
    run = RunFolder(create_run("first"))
    with pytest.raises(RuntimeError, match="read-only"):
        run.save("text", run.report)
    assert list(run.path.iterdir()) == []


@pytest.mark.parametrize("name", ["first", "v1.5"])  # a folder's name may have a dot too
def test_every_path_is_tried_before_the_work(monkeypatch, name):
    run = RunFolder(create_run(name), write=True)
    run.check_writable("do this")
    assert [path for path in run.path.rglob("*") if path.is_file()] == []
    run.submission.mkdir()
    with pytest.raises(InputError, match=rf"cannot write submissions/{name}/submission.csv: it is a folder; do this"):
        run.check_writable("do this")
    run.submission.rmdir()
    refuse_writes(monkeypatch, run.figures)
    with pytest.raises(
        InputError, match=rf"cannot write submissions/{name}/figures/\S+ \(Read-only file system\): do this"
    ):
        run.check_writable("do this")


def test_no_other_module_spells_the_name_of_a_runs_file():
    run = RunFolder(Path())
    paths = [path for path in vars(run).values() if isinstance(path, Path) and path.suffix]
    names = {path.name for path in (*paths, *vars(run.fold(0)).values(), *map(run.predictions, SETS))}
    spelled = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        docstrings = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        }
        spelled += [
            f"{path.relative_to(SOURCE)}, line {node.lineno}: {name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings
            for name in names
            if name == node.value
        ]
    own = (
        "trunkfold/run_folder.py",
        "trunkfold/copies/",
        "trunkfold/demo/",
        "trunkfold/templates/",
        "trunkfold/deploy/kaggle.py",
    )
    assert [line for line in spelled if not line.startswith(own)] == []


def test_a_stopwatch_keeps_the_seconds_of_each_phase(monkeypatch):
    times = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    watch = Stopwatch()
    with watch("training"):
        pass
    with watch("prediction"):
        pass
    assert watch.seconds == {"training": 2.5, "prediction": 1.0}
