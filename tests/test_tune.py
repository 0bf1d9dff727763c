"""src/tune.py end to end, on a toy competition."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from ruamel.yaml import YAML
from toys import SOURCE, leave_out_figures, run_command, write_competition

from trunkfold.config.parsing import dump_config, load_config
from trunkfold.config.schema import ModelConfig
from trunkfold.model.parts import Trunk
from trunkfold.split.dataset import load_labelled
from trunkfold.training.setup import default_tail_lr, prepare_experiment
from trunkfold.tuning import objective
from trunkfold.tuning.objective import run_trial
from trunkfold.tuning.schema import parse_tuning

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SIZE, FOLDS, VIEWS = 32, 3, 2
OPTIONS = {
    "data": {"root": "input", "classes": None, "image_size": SIZE},
    "model": {"name": "test_convnext", "pretrained": False},
    "split": {"groups": "input/groups.csv", "folds": FOLDS},
    "train": {"batch_size": 12, "epochs": 3, "cached_views": VIEWS, "warmup_epochs": 0, "mixed_precision": "no"},
    "tune": {
        "trials": 4,
        "best": {"train.epochs": 2},
        "space": {
            "train.optimizer": {"choices": ["adamw", "sgd"]},
            "train.head_lr": {"low": 1e-5, "high": 1e-1, "log": True},
            "train.tail_lr": {"low": 1e-5, "high": 1e-2, "log": True},
            "train.batch_size": {"low": 6, "high": 12, "step": 3},
            "train.ema_decay": {"choices": [None, 0.9]},
            "model.rank": {"low": 2, "high": 4},
        },
    },
}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that share two cores with two threads each wait for one another."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _without_pictures(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study that `finished` holds has them."""
    leave_out_figures(monkeypatch)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **_: Path(file).touch())


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing; tests without this see that studies of one trial, of two and of a diverged one can be drawn."""
    monkeypatch.setattr("trunkfold.tuning.page._figures", lambda library, shown: ())


def write_config(folder: Path, **tune: object) -> None:
    """toy.yaml, a study's configuration, with other options of `tune`."""
    YAML(typ="safe").dump(OPTIONS | {"tune": OPTIONS["tune"] | tune}, folder / "toy.yaml")


def tune(*args: object) -> Path:
    run_command("tune.py", "--config", "toy.yaml", *args)
    return Path("submissions/toy")


def trials_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a toy competition and toy.yaml, to be in."""
    monkeypatch.chdir(tmp_path)
    write_competition(tmp_path / "input")
    write_config(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a study was finished, not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        write_competition(folder / "input")
        write_config(folder)
        tune()
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, to be changed and to be in."""
    shutil.copytree(finished, tmp_path / "copied")
    monkeypatch.chdir(tmp_path / "copied")
    return tmp_path / "copied"


def assert_refused(message: str, capsys: pytest.CaptureFixture, *args: object) -> None:
    """The command ends with exit code 2 and one message, and without a traceback."""
    with pytest.raises(SystemExit) as stopped:
        tune(*args)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert re.search(message, error), error
    assert "Traceback" not in error


def test_a_study_has_all_that_is_promised(finished):
    folder = finished / "submissions/toy"
    made = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    pairs = ["tail_lr_head_lr", "tail_lr_batch_size"]
    figures = ["history", "learning_curves", "importances", "parallel_coordinates", *(f"contour_{p}" for p in pairs)]
    assert {name for name in made if not name.startswith(".")} == {
        *("best.yaml", "trials.csv", "study.html", "study.yaml", "study.db"),
        *(f"figures/{name}.png" for name in figures),
    }
    assert load_config(folder / "best.yaml").run.name == "toy-best"


def test_the_table_has_a_row_a_trial_with_its_options(finished):
    table = trials_of(finished / "submissions/toy")
    assert table["trial"].tolist() == [0, 1, 2, 3]
    assert set(table["state"]) <= {"complete", "pruned"}
    assert table["macro_f1"].between(0, 1).all()
    complete = table[table["state"] == "complete"]
    assert (complete["epochs"] == 3).all()
    assert (table["epochs"].between(1, 3)).all()
    assert set(OPTIONS["tune"]["space"]) <= set(table.columns)
    assert table["train.batch_size"].isin([6, 9, 12]).all()


def test_the_page_needs_no_network_and_shows_every_figure(finished):
    page = (finished / "submissions/toy/study.html").read_text()
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?https?:", page)
    assert page.count("Plotly.newPlot(") >= 6
    assert len(page) < 8e6  # the library is there once
    for heading in (
        "Optimization history",
        "Learning curves",
        "Hyperparameter importances",
        "Parallel coordinates",
        "Score by tail_lr and",
    ):
        assert f"<h2>{heading}" in page


@pytest.mark.usefixtures("without_figures")
def test_the_best_trial_is_a_run_as_it_stands(copied, accelerator):
    """With a trial's epochs and views train_folds.py does what the trial did; without it trains as tune.best says."""
    table = trials_of(copied / "submissions/toy")
    best = table.loc[table["macro_f1"].where(table["state"] == "complete").idxmax()]
    config = "submissions/toy/best.yaml"
    again = ["--train.epochs", 3, "--train.cached_views", VIEWS, "--run.name", "again"]
    run_command("train_folds.py", "--config", config, *again)
    history = pd.read_csv("submissions/again/history.csv")
    last = history[history["epoch"] == 3]["val_macro_f1"]
    assert last.mean() == pytest.approx(best["macro_f1"], abs=1e-6)
    assert np.std(last) == pytest.approx(best["std_over_folds"], abs=1e-6)
    done = load_config(Path("submissions/again/config.yaml"))
    trial = run_trial(done, load_labelled(done), accelerator, lambda epoch, macro_f1: None)
    columns = ["train_loss", "val_loss", "val_macro_f1"]
    np.testing.assert_allclose(history[columns], trial[columns], rtol=1e-5)
    made = load_config(Path(config))
    assert (made.train.epochs, made.train.cached_views) == (2, VIEWS)
    assert made.train.head_lr == pytest.approx(best["train.head_lr"])
    assert made.model.rank == best["model.rank"]


@pytest.mark.usefixtures("without_figures")
def test_started_again_it_goes_on_where_it_ended(copied, capsys):
    before = trials_of(copied / "submissions/toy")
    shutil.move("input", "elsewhere")  # nothing to do: no photos are read
    tune()
    pd.testing.assert_frame_equal(trials_of(copied / "submissions/toy"), before)
    shutil.move("elsewhere", "input")
    capsys.readouterr()
    tune("--trials", 5)
    after = trials_of(copied / "submissions/toy")
    assert len(after) == 5
    pd.testing.assert_frame_equal(after.iloc[:4], before, check_dtype=False)
    said = capsys.readouterr().out
    assert re.findall(r"^trial (\d+): ", said, re.MULTILINE) == ["4"]
    assert "epoch 1/" not in said


def test_the_same_seed_makes_the_same_study(finished, workplace):
    """Interrupted in between: neither what was drawn before nor what was trained before matters."""
    for trials in (1, 2):
        folder = tune("--trials", trials)
    first, second = (trials_of(path).drop(columns="seconds") for path in (finished / "submissions/toy", folder))
    pd.testing.assert_frame_equal(first[:2], second, check_dtype=False)


@pytest.mark.usefixtures("without_figures")
def test_only_the_first_trial_sends_photos_through_the_trunk(workplace, monkeypatch):
    seen, forward = [], Trunk.forward

    def counted(trunk, photos):
        if len(photos) > 1:  # not the probe of a model that is cut
            seen.append(len(photos))
        return forward(trunk, photos)

    monkeypatch.setattr(Trunk, "forward", counted)
    for trials in (1, 2):
        tune("--trials", trials, "--tune.pruner", "none", "--train.epochs", 1)
    assert sum(seen) == (1 + VIEWS) * 90


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_stages_may_be_searched_each_with_features_of_its_own(workplace):
    space = {"model.tune_stages": {"choices": [1, 2]}, "model.tune": {"choices": ["adapters", "block"]}}
    write_config(workplace, space=space)
    table = trials_of(tune("--trials", 4, "--train.epochs", 1))
    assert set(table["model.tune_stages"]) == {1, 2}
    kept = list((workplace / "submissions/.cache").glob("features-*"))
    assert len(kept) == 2 * (1 + VIEWS)


def test_each_trial_has_the_default_rate_of_its_rank(workplace, monkeypatch):
    """Else the rate of the configuration's rank would be every trial's, with which high ranks diverge."""
    write_config(workplace, space={"model.rank": {"choices": [4, 16]}})
    rates = {}

    def prepare(config, *rest):
        rates[config.model.rank] = config.train.tail_lr
        return prepare_experiment(config, *rest)

    monkeypatch.setattr(objective, "prepare_experiment", prepare)
    folder = tune("--trials", 3, "--train.epochs", 1)
    assert rates == {rank: pytest.approx(default_tail_lr(ModelConfig("test_convnext", rank=rank))) for rank in rates}
    assert rates[4] == 2 * rates[16]
    assert load_config(folder / "best.yaml").train.tail_lr is None


def test_a_trial_that_diverges_is_pruned_and_the_study_goes_on(workplace):
    space = {"train.head_lr": {"choices": [0.01, 1e30]}}
    write_config(workplace, space=space)
    table = trials_of(tune("--train.optimizer", "sgd", "--train.clip_grad", "null", "--tune.pruner", "none"))
    wild = table["train.head_lr"] == 1e30
    assert wild.any()
    assert (table.loc[wild, ["state", "macro_f1", "reason"]] == ["pruned", 0.0, "diverged"]).all(axis=None)
    assert (table.loc[~wild, "state"] == "complete").all()
    assert "diverged" in Path("submissions/toy/study.html").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_hopeless_trials_are_pruned(workplace):
    space = {"train.head_lr": {"choices": [1e-9, 0.02, 0.03]}}
    write_config(workplace, space=space, pruner="median")
    options = ["--trials", 10, "--train.tail_lr", "1e-9", "--train.optimizer", "adamw", "--train.epochs", 4]
    table = trials_of(tune(*options, "--train.warmup_epochs", 0))
    pruned = table[table["state"] == "pruned"]
    assert len(pruned)
    assert (pruned["train.head_lr"] == 1e-9).all()
    assert (pruned["epochs"] < 4).all()


@pytest.mark.parametrize(
    ("tune_options", "args", "message"),
    [
        ({"space": {"train.optimizer": {"choices": ["adamw", "adamm"]}}}, [], "train.optimizer adamm"),
        ({"space": {"train.head_lr": {"low": 0, "high": 1}}}, [], "tune.space train.head_lr"),
        ({"space": {"train.head": {"low": 0, "high": 1}}}, [], "the nearest is train.head_lr"),
        ({"space": {"train.batch_size": {"choices": [6, 10]}}}, [], "train.batch_size 10 must be a multiple"),
        ({"trial": 3}, [], "no option tune.trial; the nearest is tune.trials"),
        ({}, ["--trials", 0], "trials"),
        ({}, ["--tune.pruner", "asha"], "tune.pruner"),
        ({}, ["--run.name", "copies"], "run.name copies"),
        ({}, ["--data.root", "absent"], "absent"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_trial(workplace, capsys, tune_options, args, message):
    write_config(workplace, **tune_options)
    assert_refused(message, capsys, *args)
    for database in Path("submissions").glob("*/study.db"):
        assert optuna.load_study(study_name="toy", storage=f"sqlite:///{database}").trials == []


@pytest.mark.usefixtures("without_figures")
def test_another_space_or_other_options_are_refused_for_a_study_that_was_begun(copied, capsys):
    assert_refused("train.epochs: 3 in the study, 4 now", capsys, "--train.epochs", 4)
    folds = Path("input/train/train/train.csv")
    table = pd.read_csv(folds)
    table.iloc[:-3].to_csv(folds, index=False)
    assert_refused("photos, labels, groups or folds have changed", capsys, "--trials", 9)
    table.to_csv(folds, index=False)
    write_config(copied, space={"train.head_lr": {"low": 0.01, "high": 0.1}})
    assert_refused("tune.space", capsys)
    tune("--run.restart", "true", "--trials", 1)
    assert len(trials_of(copied / "submissions/toy")) == 1


def test_a_restart_with_a_mistyped_folder_keeps_the_study(copied, capsys):
    before = trials_of(copied / "submissions/toy")
    assert_refused("data.root inputs is not a folder", capsys, "--run.restart", "true", "--data.root", "inputs")
    pd.testing.assert_frame_equal(trials_of(copied / "submissions/toy"), before)


def test_several_launched_processes_are_told_how_to_share(workplace, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_refused("start it with python, once per GPU", capsys)


def start(folder: Path, *args: object) -> subprocess.Popen:
    command = [sys.executable, SOURCE / "tune.py", "--config", "toy.yaml", *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(list(map(str, command)), cwd=folder, stdout=pipe, stderr=pipe, text=True)


def wait_for_trial(process: subprocess.Popen, number: int) -> None:
    """Until the process has said what became of a trial, and has drawn all values of the next one."""
    for line in process.stdout:
        if line.startswith(f"trial {number}:"):
            break
    study = optuna.load_study(study_name="toy", storage="sqlite:///submissions/toy/study.db")
    space = set(OPTIONS["tune"]["space"])
    while not any(trial.number == number + 1 and space <= set(trial.params) for trial in study.get_trials()):
        assert process.poll() is None
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_interrupted_and_shared_a_study_loses_no_trial(workplace):
    """Killed with -9, then ended by SIGTERM, then finished by two processes."""
    many = ["--tune.pruner", "none", "--train.epochs", 6, "--tune.heartbeat", 2]
    victim = start(workplace, "--trials", 50, *many)
    wait_for_trial(victim, 0)
    victim.kill()
    victim.wait()
    told = start(workplace, "--trials", 50, *many)
    wait_for_trial(told, 2)
    told.send_signal(signal.SIGTERM)
    out, error = told.communicate(timeout=60)
    assert told.returncode == 130, error
    assert "trials: rerun without --run.restart to resume" in out
    before = trials_of(workplace / "submissions/toy")
    done = (before["state"] == "complete").sum()
    workers = [start(workplace, "--trials", done + 3, *many) for _ in range(2)]
    for worker in workers:
        out, error = worker.communicate(timeout=120)
        assert worker.returncode == 0, error
        assert "Traceback" not in error
    after = trials_of(workplace / "submissions/toy")
    assert (after["state"] == "complete").sum() == done + 3
    failed = after[after["state"] == "fail"]
    assert len(failed) == 2
    assert not after["state"].isin(["running", "waiting"]).any()
    options = list(OPTIONS["tune"]["space"])
    again = after[after["retry_of"].notna()].set_index("retry_of")[options]
    for number, row in failed.set_index("trial")[options].iterrows():
        pd.testing.assert_series_equal(again.loc[number], row, check_names=False)


@pytest.mark.slow
def test_the_shipped_study_runs(workplace):
    config = SOURCE.parent / "configs/tune.yaml"
    words = ["--data.root", "input", "--split.groups", "input/groups.csv", "--data.classes", "null"]
    words += ["--data.image_size", SIZE, "--model.name", "test_convnext", "--model.pretrained", "false"]
    run_command("tune.py", "--config", config, *words, "--train.epochs", 1, "--trials", 2)
    assert len(trials_of(Path("submissions/tune"))) == 2
    best = load_config(Path("submissions/tune/best.yaml"))
    assert (best.train.epochs, best.train.cached_views, best.run.name) == (30, None, "tune-best")


def test_the_help_explains_every_option_of_a_study(capsys):
    with pytest.raises(SystemExit):
        run_command("tune.py", "--help")
    text = capsys.readouterr().out
    for option in ("--trials", "--tune.trials", "--tune.space", "--tune.pruner", "--tune.storage", "--tune.best"):
        assert option in text


def test_a_studys_configuration_reads_back_as_it_was(workplace):
    config = parse_tuning(["--config", "toy.yaml"])
    Path("again.yaml").write_text(dump_config(config))
    assert parse_tuning(["--config", "again.yaml"]) == config
    assert parse_tuning([]).train.cached_views > 0
