"""Trackers receive the same values as the run's files; one that fails is disabled, and training continues."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from toys import SOURCE, run_command

from trunkfold.config.schema import Config, RunConfig
from trunkfold.errors import InputError
from trunkfold.run_folder import RunFolder
from trunkfold.training import trackers
from trunkfold.training.trackers import check_trackers, log_epoch, tracking

ROWS = [
    {"epoch": 2, "fold": fold, "train_loss": 1.0 + fold, "val_macro_f1": 0.5, "lr_tail": 0.1, "seconds": 3.0}
    for fold in range(2)
]


class Broken(GeneralTracker):
    """Fails in one method and remembers all calls; it takes wandb's place."""

    name, requires_logging_directory, tracker = "wandb", False, None
    fails_in, calls = "", []

    def __init__(self, project: str, **options: object) -> None:
        super().__init__()
        self._call("__init__", project, options)

    def _call(self, method: str, *args: object) -> None:
        self.calls.append((method, *args))
        if method == self.fails_in:
            raise RuntimeError("no connection\nto the server")

    def start(self) -> None:
        self._call("start")

    def store_init_configuration(self, values: dict) -> None:
        self._call("store_init_configuration", values)

    def log(self, values: dict, step: int | None = None) -> None:
        self._call("log", values, step)

    def log_artifact(self, path: str) -> None:
        self._call("log_artifact", path)

    def finish(self) -> None:
        self._call("finish")


@pytest.fixture
def broken(monkeypatch) -> type[Broken]:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", Broken)
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["tensorboard", "wandb", "mlflow"])
    monkeypatch.setattr(Broken, "calls", [])
    return Broken


def words(competition: Path, names: str, **more: object) -> list[str]:
    """Options of a toy run with the given trackers."""
    options = {"data.root": competition, "data.classes": "null", "data.image_size": 64, "split.folds": 2}
    options |= {"split.groups": competition / "groups.csv", "model.name": "test_convnext"}
    options |= {"model.pretrained": "false", "train.batch_size": 12, "train.epochs": 2, "run.name": "toy"}
    options |= {"run.trackers": names, **more}
    return [str(word) for key, value in options.items() for word in (f"--{key}", value)]


@pytest.fixture
def train(competition, monkeypatch, without_figures, capsys):
    """Train a toy run with the given trackers; its folder."""
    monkeypatch.chdir(competition.parent)

    def run(names: str, **more: object) -> RunFolder:
        run_command("train_folds.py", *words(competition, names, **more))
        return RunFolder(competition.parent / "submissions/toy")

    return run


def test_tensorboard_gets_configuration_epochs_and_scores_beside_a_tracker_that_fails(train, broken, caplog):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    broken.fails_in = "log"
    run = train("[tensorboard, wandb]")
    (folder,) = run.trackers.iterdir()
    found = accumulator.EventAccumulator(str(folder)).Reload()
    history = pd.read_csv(run.history)
    for key in ("train_loss", "val_loss", "val_accuracy", "val_macro_f1"):
        for fold, rows in history.groupby("fold"):
            events = found.Scalars(f"{key}/fold_{fold}")
            assert [event.step for event in events] == [1, 2]
            assert [event.value for event in events] == pytest.approx(rows[key].tolist(), rel=1e-6)
    rates = history.query("fold == 0")["lr_tail"].tolist()
    assert [event.value for event in found.Scalars("lr_tail")] == pytest.approx(rates)
    metrics = run.read_metrics()
    assert found.Scalars("holdout/macro_f1")[0].value == pytest.approx(metrics.holdout.macro_f1)
    assert found.Scalars("oof/macro_f1_low")[0].value == pytest.approx(metrics.oof.intervals.macro_f1[0])
    assert "train.batch_size: 12" in next(folder.glob("*/hparams.yml")).read_text()
    assert [call[0] for call in broken.calls] == ["__init__", "start", "store_init_configuration", "log"]
    assert [record.message for record in caplog.records if "trackers" in record.message] == [
        "run.trackers: wandb failed and is disabled for the rest of the run (no connection)"
    ]
    assert run.report.exists()


@pytest.mark.slow
def test_mlflow_gets_the_same_and_the_report(train, monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = train("[mlflow]", **{"train.tail_lr": 3e-3})
    (found,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert (found.info.run_name, found.info.status) == ("toy", "FINISHED")
    assert found.data.params["train.tail_lr"] == "0.003"
    history = mlflow.MlflowClient().get_metric_history(found.info.run_id, "val_macro_f1/fold_1")
    assert [event.value for event in history] == pd.read_csv(run.history).query("fold == 1")["val_macro_f1"].tolist()
    assert found.data.metrics["holdout/macro_f1"] == run.read_metrics().holdout.macro_f1
    copied = mlflow.artifacts.download_artifacts(run_id=found.info.run_id, artifact_path="report.html")
    assert run.report.read_bytes() == Path(copied).read_bytes()


@pytest.mark.slow
def test_trackio_gets_epochs_and_scores(competition, tmp_path):
    pytest.importorskip("trackio", reason="pip install trackio")
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}  # read when it is imported
    command = [sys.executable, SOURCE / "train_folds.py", *words(competition, "[trackio]")]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    run = RunFolder(tmp_path / "submissions/toy")
    (database,) = (tmp_path / "trackio").rglob("*.db")
    with sqlite3.connect(database) as opened:
        logged = " ".join(str(row) for row in opened.execute("SELECT * FROM metrics"))
    assert "toy" in logged
    assert "val_macro_f1/fold_1" in logged
    assert str(run.read_metrics().holdout.macro_f1) in logged


def test_nothing_is_tracked_by_default(tmp_path, accelerator):
    with tracking(RunFolder(tmp_path), Config(), accelerator):
        log_epoch(accelerator, ROWS)
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_gets_all_and_is_finished_when_the_training_fails(tmp_path, accelerator, broken):
    broken.fails_in = ""
    config = Config(run=RunConfig(name="first", trackers=["wandb", "wandb"]))

    def interrupted() -> None:
        with tracking(RunFolder(tmp_path / "first"), config, accelerator):
            log_epoch(accelerator, ROWS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    made, _, (_, configuration), (_, values, step), finished = broken.calls
    assert made == ("__init__", "trunkfold", {"name": "first"})
    assert configuration["train.epochs"] == 30
    assert json.loads(configuration["data.classes"])["6"] == "lamp broken"
    assert step == 2
    assert values == {
        "lr_tail": 0.1,
        "seconds": 3.0,
        "train_loss/fold_0": 1.0,
        "train_loss/fold_1": 2.0,
        "train_loss/mean": 1.5,
        "val_macro_f1/fold_0": 0.5,
        "val_macro_f1/fold_1": 0.5,
        "val_macro_f1/mean": 0.5,
    }
    assert finished == ("finish",)
    assert accelerator.trackers == []


@pytest.mark.parametrize("method", ["__init__", "start", "store_init_configuration", "log", "finish"])
def test_a_tracker_that_fails_anywhere_is_one_warning(method, tmp_path, accelerator, broken, caplog):
    broken.fails_in = method
    config = Config(run=RunConfig(trackers=["wandb"]))
    with tracking(RunFolder(tmp_path), config, accelerator):
        log_epoch(accelerator, ROWS)
        log_epoch(accelerator, ROWS)
    assert caplog.text.count("run.trackers: wandb failed") == 1
    assert broken.calls[-1][0] == method


def test_other_processes_track_nothing(tmp_path, broken):
    second = SimpleNamespace(is_main_process=False, trackers=[], init_trackers=lambda *_: None)
    with tracking(RunFolder(tmp_path), Config(run=RunConfig(trackers=["wandb"])), second):
        assert (second.log_with, broken.calls) == ([], [])


def test_an_unknown_tracker_and_one_that_is_not_installed_are_refused(broken):
    with pytest.raises(InputError, match=r"run.trackers: .*no tracker tensorbord; the nearest is tensorboard"):
        check_trackers(["tensorbord"])
    with pytest.raises(InputError, match=r"run.trackers: comet_ml is not installed: pip install comet_ml"):
        check_trackers(["comet_ml"])
