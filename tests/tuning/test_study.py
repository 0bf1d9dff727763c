"""A study loses no trials if its processes are killed."""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import forked
import optuna
import pandas as pd
import pytest
from filelock import FileLock
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from trunkfold.errors import InputError
from trunkfold.run_folder import SUBMISSIONS
from trunkfold.split.dataset import Labelled
from trunkfold.tuning import study as module
from trunkfold.tuning.schema import TuneConfig, TuningConfig, parse_tuning
from trunkfold.tuning.study import TRIALS, check_photos, finished_trials, open_study, work

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
# Another process: each trial notes itself in a file, waits, and gives its learning rate.
WORKER = """
import os, sys, time
from pathlib import Path
from trunkfold.tuning.schema import parse_tuning
from trunkfold.tuning.study import open_study, work

notes, seconds, *args = sys.argv[1:]
config = parse_tuning(args)
study, folder = open_study(config)

def objective(trial):
    rate = trial.suggest_float("train.tail_lr", 1e-5, 1e-2, log=True)
    (Path(notes) / f"{trial.number} {rate}").touch()
    trial.set_user_attr("process", os.getpid())
    time.sleep(float(seconds))
    return rate

work(study, folder, config, objective, lambda study, trial: None)
"""


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()


def tuning(trials: int = 4, **options: object) -> TuningConfig:
    config = parse_tuning(["--run.name", "toy", "--trials", str(trials)])
    return replace(config, tune=replace(config.tune, **options))


def draw(trial: optuna.Trial) -> float:
    return trial.suggest_float("train.tail_lr", 1e-5, 1e-2, log=True)


def run(config: TuningConfig, objective: Callable = draw) -> optuna.Study:
    """Work on a study as a process of its own would."""
    study, folder = open_study(config)
    work(study, folder, config, objective, lambda study, trial: None)
    return study


def rates(study: optuna.Study) -> list[float]:
    return [trial.params["train.tail_lr"] for trial in study.trials if trial.state == TrialState.COMPLETE]


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def start_worker(seconds: float, *args: object) -> multiprocessing.Process:
    Path("worker.py").write_text(WORKER)
    return forked.start(Path.cwd(), Path("worker.py").absolute(), "notes", seconds, "--run.name", "toy", *args)


def end(worker: multiprocessing.Process, seconds: float) -> None:
    worker.join(seconds)
    assert worker.exitcode == 0, Path(forked.SAID).read_text()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def begun() -> list[str]:
    return sorted(path.name for path in Path("notes").iterdir())


def test_finished_trials_are_counted_over_all_starts():
    assert len(run(tuning(3)).trials) == 3
    assert len(run(tuning(5)).trials) == 5
    assert len(run(tuning(4)).trials) == 5


def test_pruned_trials_count_and_failed_ones_do_not():
    def objective(trial: optuna.Trial) -> float:
        if trial.number == 1:
            return float("nan")
        if trial.number == 2:
            raise optuna.TrialPruned
        return draw(trial)

    study = run(tuning(4), objective)
    assert states(study) == ["COMPLETE", "FAIL", "PRUNED", "COMPLETE", "COMPLETE"]
    assert finished_trials(study) == 4


def test_an_interrupted_study_draws_what_it_would_have_drawn():
    whole = rates(run(tuning(14)))
    shutil.rmtree(SUBMISSIONS / "toy")
    for trials in (1, 12, 14):
        study = run(tuning(trials))
    assert rates(study) == whole
    assert len(set(whole)) == 14


def test_another_seed_draws_others():
    first = rates(run(tuning(3)))
    shutil.rmtree(SUBMISSIONS / "toy")
    config = tuning(3)
    assert set(rates(run(replace(config, train=replace(config.train, seed=1))))).isdisjoint(first)


def test_an_interrupted_trial_waits_to_be_run_again():
    def objective(trial: optuna.Trial) -> float:
        draw(trial)
        if trial.number == 1:
            raise KeyboardInterrupt
        return draw(trial)

    with pytest.raises(KeyboardInterrupt):
        run(tuning(), objective)
    study = open_study(tuning())[0]
    assert states(study) == ["COMPLETE", "FAIL", "WAITING"]
    study = run(tuning())
    assert states(study) == ["COMPLETE", "FAIL", *["COMPLETE"] * 3]
    assert study.trials[2].params == study.trials[1].params
    assert study.trials[2].system_attrs["retry_history"] == [1]


def test_a_trial_that_cannot_be_run_ends_the_study_and_is_not_run_again():
    def objective(trial: optuna.Trial) -> float:
        raise InputError("wrong")

    for failed in (1, 2):
        with pytest.raises(InputError, match="wrong"):
            run(tuning(), objective)
        assert states(open_study(tuning())[0]) == ["FAIL"] * failed


def test_two_processes_share_a_study():
    workers = [start_worker(0.1, "--trials", 12) for _ in range(2)]
    for worker in workers:
        end(worker, 120)
    study = open_study(tuning(12))[0]
    assert states(study) == ["COMPLETE"] * 12
    assert len(set(rates(study))) == len(begun()) == 12
    assert [trial.value for trial in study.trials] == rates(study)
    assert len({trial.user_attrs["process"] for trial in study.trials}) == 2


def test_the_trial_of_a_killed_process_is_failed_and_run_again_by_another():
    worker = start_worker(600, "--trials", 3, "--tune.heartbeat", 1)
    wait_for(begun)
    study, _ = open_study(tuning(3, heartbeat=1))
    time.sleep(4)
    optuna.storages.fail_stale_trials(study)
    assert states(study) == ["RUNNING"]  # its process lives
    worker.kill()
    worker.join()
    study = run(tuning(3, heartbeat=1))
    assert states(study).count("FAIL") == 1
    assert states(study).count("COMPLETE") == len(study.trials) - 1 == 3
    (again,) = (trial for trial in study.trials if trial.system_attrs.get("retry_history") == [0])
    assert again.params == study.trials[0].params
    assert sorted(trial.value for trial in study.trials[1:]) == sorted(rates(study))


@pytest.mark.slow
def test_a_process_waits_for_the_last_trial_of_another_and_takes_it_over():
    worker = start_worker(600, "--trials", 2, "--tune.heartbeat", 1)
    wait_for(begun)
    other = start_worker(0, "--trials", 2, "--tune.heartbeat", 1)
    wait_for(lambda: len(begun()) == 2)
    time.sleep(4)
    assert other.is_alive()
    worker.kill()
    worker.join()
    end(other, 30)
    assert states(open_study(tuning(2))[0]) == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_trial_that_kills_every_process_is_given_up(monkeypatch):
    """Here each dies before its first heartbeat."""
    config = tuning(2, retries=2)
    study, _ = open_study(config)
    study.ask()
    module._fail_stale_trials(study, config)
    assert states(study) == ["RUNNING"]  # its process may live
    monkeypatch.setattr(module, "PATIENCE", 0)
    for _ in range(2):
        module._fail_stale_trials(study, config)
        study.ask()
    for _ in range(2):
        module._fail_stale_trials(study, config)
    assert states(study) == ["FAIL"] * 3


def test_a_retried_trial_whose_process_dies_before_its_first_heartbeat_is_failed(monkeypatch):
    def interrupt(trial: optuna.Trial) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tuning(), interrupt)
    study, _ = open_study(tuning())
    study.ask()
    assert states(study) == ["FAIL", "RUNNING"]
    monkeypatch.setattr(module, "PATIENCE", 0)
    module._fail_stale_trials(study, tuning())
    assert states(study) == ["FAIL", "FAIL", "WAITING"]


def test_a_process_that_counted_as_dead_is_told_so_and_loses_nothing():
    """Such as one on a laptop that slept."""

    def objective(trial: optuna.Trial) -> float:
        rate = draw(trial)
        study = open_study(tuning())[0]
        study.tell(trial.number, state=TrialState.FAIL)  # as another process does
        trial.report(rate, 1)
        return rate

    with pytest.raises(InputError, match="another process took over this process's trial.*tune.heartbeat"):
        run(tuning(), objective)


def test_a_database_that_fails_during_a_study_is_an_error_and_finished_trials_are_intact(monkeypatch):
    def objective(trial: optuna.Trial) -> float:
        if trial.number == 2:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return draw(trial)

    with pytest.raises(InputError, match="database or disk is full.*finished trials are intact"):
        run(tuning(), objective)
    assert states(open_study(tuning())[0])[:2] == ["COMPLETE"] * 2
    assert len(rates(run(tuning()))) == 4


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"train": {"epochs": 7}}, ["train.epochs: 10 in the study, 7 now"]),
        ({"train": {"cached_views": 2}, "model": {"scale": 1.0}}, ["train.cached_views", "model.scale"]),
        ({"tune": {"pruner": "none"}}, ["tune.pruner: hyperband in the study, none now"]),
        ({"tune": {"space": {"train.tail_lr": {"low": 1e-5, "high": 1e-3}}}}, ["tune.space.train.tail_lr.high"]),
        ({"augment": "none"}, ["augment: standard in the study, none now"]),
    ],
    ids=str,
)
def test_a_study_is_not_gone_on_with_otherwise(change, names):
    config = tuning()
    run(config)
    other = replace(
        config, **{key: replace(getattr(config, key), **v) if isinstance(v, dict) else v for key, v in change.items()}
    )
    with pytest.raises(InputError, match="was started with different options") as refused:
        open_study(other)
    assert all(name in str(refused.value) for name in names)
    assert str(refused.value).count("in the study") >= len(names)
    anew = replace(other, run=replace(other.run, restart=True))
    assert open_study(anew)[0].trials == []
    assert parse_tuning(["--config", "submissions/toy/study.yaml"]) == other


def test_what_a_trial_does_not_depend_on_may_change(tmp_path):
    config = tuning(2)
    run(config)
    other = replace(
        tuning(3, retries=9, best={"train.epochs": 60}),
        data=replace(config.data, root=tmp_path, workers=2),
        cache=replace(config.cache, dir=tmp_path / "cache"),
    )
    assert len(run(other).trials) == 3


def test_other_photos_or_folds_are_refused():
    table = pd.DataFrame({"image_id": ["1", "2"], "label": ["a", "b"], "group": ["g", "h"], "fold": [0, 1]})

    def labelled(key: str = "k", **columns: list) -> Labelled:
        return Labelled(table.assign(**columns), {}, SimpleNamespace(key=key), table)

    check_photos(open_study(tuning())[0], labelled())
    check_photos(open_study(tuning())[0], labelled(filename=["elsewhere", "y"]))
    for changed in (labelled("other"), labelled(fold=[1, 0]), labelled(label=["a", "a"]), labelled(group=["g", "g"])):
        with pytest.raises(InputError, match="photos, labels, groups or folds have changed"):
            check_photos(open_study(tuning())[0], changed)


def test_the_folder_of_a_run_is_not_taken_for_a_studys():
    (SUBMISSIONS / "toy").mkdir(parents=True)
    (SUBMISSIONS / "toy/metrics.json").touch()
    with pytest.raises(InputError, match="submissions/toy contains a run, not a study"):
        open_study(tuning())


def restarted() -> TuningConfig:
    config = tuning()
    return replace(config, run=replace(config.run, restart=True))


def test_a_restart_deletes_no_folder_that_another_process_uses(monkeypatch):
    monkeypatch.setattr("trunkfold.training.resume.PATIENCE", 0.1)
    (SUBMISSIONS / "toy").mkdir(parents=True)
    (SUBMISSIONS / "toy/state.safetensors").touch()
    with (
        FileLock(SUBMISSIONS / "toy/.lock"),
        pytest.raises(InputError, match="another process uses submissions/toy: wait for it, or choose another"),
    ):
        open_study(restarted())
    assert (SUBMISSIONS / "toy/state.safetensors").exists()
    open_study(restarted())
    assert not (SUBMISSIONS / "toy/state.safetensors").exists()


def test_a_restart_that_may_not_delete_the_files_is_an_error(monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (SUBMISSIONS / "toy").mkdir(parents=True)
    (SUBMISSIONS / "toy/metrics.json").touch()
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(InputError, match=r"cannot empty submissions/toy \(Permission denied\): choose another --run"):
        open_study(restarted())


@pytest.mark.parametrize("storage", ["nonsense", "sqlite:///missing/folder/study.db", "oracle+none://host/name"])
def test_a_storage_that_cannot_be_reached_is_an_error(storage):
    with pytest.raises(InputError, match="tune.storage"):
        open_study(tuning(storage=storage))


def test_a_study_in_a_database_goes_on_too():
    config = tuning(2, storage="sqlite:///study.db")
    whole = rates(run(config))
    assert rates(run(tuning(3, storage="sqlite:///study.db")))[:2] == whole
    assert not (SUBMISSIONS / "toy" / TRIALS).exists()


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of a server of its own; it refuses to be run by root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(found[-1]) if found else None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed: no initdb on the PATH or in /usr/lib/postgresql")
    pytest.importorskip("psycopg2")
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    if user and (shutil.which("setpriv") is None or "\npostgres:" not in Path("/etc/passwd").read_text()):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres or no setpriv to become it")
    folder = Path("/tmp") / f"trunkfold-postgresql-{os.getpid()}"  # where any user may go
    folder.mkdir()
    if user:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def server(program: str, *args: str) -> None:
        command = [*user, str(Path(initdb).with_name(program)), "-D", str(folder / "data"), *args]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    try:
        server("initdb", "-U", "postgres", "--auth=trust", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        server("pg_ctl", "-o", options, "-l", str(folder / "log"), "-w", "start")
        yield f"postgresql+psycopg2://postgres:secret@127.0.0.1:{port}/postgres"
    finally:
        server("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.mark.slow
def test_processes_share_a_study_through_postgresql_and_one_may_be_killed(postgresql):
    options = ["--tune.storage", postgresql, "--tune.heartbeat", "1"]
    victim = start_worker(600, "--trials", 8, *options)
    wait_for(begun)
    others = [start_worker(0.1, "--trials", 8, *options) for _ in range(2)]
    wait_for(lambda: len(begun()) > 2)
    victim.kill()
    victim.join()
    for worker in others:
        end(worker, 60)
    study = open_study(tuning(8, storage=postgresql, heartbeat=1))[0]
    assert sorted(states(study)) == ["COMPLETE"] * 8 + ["FAIL"]
    failed = next(trial for trial in study.trials if trial.state == TrialState.FAIL)
    assert failed.number == 0
    again = [trial for trial in study.trials if trial.system_attrs.get("retry_history") == [0]]
    assert [trial.params for trial in again] == [failed.params]
    assert len(set(rates(study))) == 8
    for kept in (Path("submissions/toy/study.yaml").read_text(), study.user_attrs["config"]):
        assert "postgres:***@" in kept
        assert "secret" not in kept


def test_ctrl_c_and_sigterm_look_the_same_to_a_study():
    """What src/tune.py makes of SIGTERM is what `work` expects."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tuning(), lambda trial: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5) or 0.0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert states(open_study(tuning())[0]) == ["FAIL", "WAITING"]


def test_the_default_is_a_database_in_the_studys_folder():
    assert TuneConfig().storage is None
    run(tuning(1))
    assert {path.name for path in (SUBMISSIONS / "toy").iterdir()} >= {TRIALS, "study.yaml"}
