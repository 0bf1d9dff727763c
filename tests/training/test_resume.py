"""A run can be killed at any time and resumes to the same result, with unchanged options and photos only."""

import multiprocessing
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import forked
import pandas as pd
import pytest
from filelock import FileLock
from forked import without_figures
from safetensors.torch import load_file
from toys import write_competition

from trunkfold.config.parsing import dump_config
from trunkfold.config.schema import VEHICLE_DAMAGE, Config, DataConfig, Normalization, RunConfig, TrainConfig
from trunkfold.errors import InputError
from trunkfold.files import write_csv, write_json, write_text
from trunkfold.run_folder import SUBMISSIONS, RunFolder
from trunkfold.training.resume import check_run, occupied_run

OPTIONS = {
    "data.root": "input",
    "data.classes": "null",
    "data.image_size": 32,
    "split.groups": "input/groups.csv",
    "split.folds": 3,
    "model.name": "test_convnext",
    "model.pretrained": "false",
    "model.drop_path": 0.2,
    "train.batch_size": 12,
    "train.epochs": 3,
    "train.ema_decay": 0.9,
    "train.save_minutes": 0,
    "run.name": "toy",
}
TABLES = ["config.yaml", "folds.csv", "groups.csv", "oof.csv", "holdout.csv"]
LOCK, STATE = ".lock", "state.safetensors"


def start(folder: Path, prepare: Callable[[], None] = without_figures, **options: object) -> multiprocessing.Process:
    """Train in `folder`, in a process of its own."""
    words = [word for key, value in {**OPTIONS, **options}.items() for word in (f"--{key}", value)]
    return forked.start(folder, "train_folds.py", *words, prepare=prepare)


def finish(folder: Path) -> None:
    """Train to the end."""
    process = start(folder)
    process.join()
    assert process.exitcode == 0, (folder / "said.txt").read_text()


class KilledAtFile:
    """Kills its process at the n-th time that a file of this name is about to take its place, or has just taken it."""

    def __init__(self, name: str, times: int, before: bool) -> None:
        self.name, self.times, self.before = name, times, before

    def __call__(self) -> None:
        without_figures()
        replace_file = os.replace

        def replace_or_die(source: Path, target: Path) -> None:
            self.times -= Path(target).name == self.name
            if self.before and self.times == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            replace_file(source, target)
            if self.times == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace_or_die


def content(folder: Path) -> dict[str, object]:
    """All tables and weights of the run, but for the seconds."""
    run = folder / "submissions/toy"
    tables = {name: (run / name).read_text() for name in TABLES}
    tables["config.yaml"] = re.sub("max_hours: .*", "", tables["config.yaml"])
    tables["history.csv"] = pd.read_csv(run / "history.csv").drop(columns="seconds").to_csv()
    weights = {
        str(path.relative_to(run)): {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
        for path in sorted(run.rglob("*.safetensors"))
    }
    pages = {name: (run / name).exists() for name in ("report.html", "metrics.json", STATE)}
    return {**tables, **weights, **pages}


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("unharmed")
    write_competition(folder / "input")
    finish(folder)
    return folder


FILES = ["photos-00000.npy", "config.yaml", "folds.csv", "shared.safetensors", "augmented.png", *[STATE] * 8]
FILES += ["history.csv", "tail.safetensors", "adapter_config.json", "holdout.csv", "metrics.json", "report.html"]


@pytest.mark.parametrize(
    "files",
    [["folds.csv", STATE], pytest.param(FILES, marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_killed_at_any_file_a_run_ends_as_if_it_was_not(unharmed, tmp_path, files):
    """One run, killed at its files one after the other, by turns before and after they are there."""
    write_competition(tmp_path / "input")
    for number, name in enumerate(files):
        process = start(tmp_path, KilledAtFile(name, times=2 if name == STATE else 1, before=number % 2 == 0))
        process.join()
        assert process.exitcode == -signal.SIGKILL, (name, (tmp_path / "said.txt").read_text())
    finish(tmp_path)
    assert content(tmp_path) == content(unharmed)


@pytest.mark.slow
def test_killed_at_random_instants_a_run_ends_as_if_it_was_not(unharmed, tmp_path):
    write_competition(tmp_path / "input")
    draw, kills, run = random.Random(0), 0, RunFolder(tmp_path / "submissions/toy")
    while kills < 20:
        begun, process = time.monotonic(), start(tmp_path)
        process.join(draw.uniform(0.3, 3))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0 or run.is_finished:  # or killed after its end: again from the beginning
            assert content(tmp_path) == content(unharmed)
            run.path.rename(tmp_path / f"submissions/done after {kills} {begun}")
    finish(tmp_path)
    assert content(tmp_path) == content(unharmed)


def test_stopped_in_time_a_run_ends_without_an_error_and_goes_on(unharmed, tmp_path):
    write_competition(tmp_path / "input")
    for hours in (1e-6, "null"):
        process = start(tmp_path, **{"train.max_hours": hours})
        process.join()
        assert process.exitcode == 0
    said = (tmp_path / "said.txt").read_text()
    assert said.count("stopped in epoch 1, within train.max_hours 1e-06; the checkpoint is saved") == 1
    assert said.count("resuming the unfinished run in submissions/toy") == 1
    assert content(tmp_path) == content(unharmed)


def test_a_second_run_into_the_same_folder_is_refused(unharmed, tmp_path):
    """The first is stopped amid its training, and goes on undisturbed."""
    write_competition(tmp_path / "input")
    options = {"train.epochs": 40, "train.cached_views": 0}  # trains at once, and for long
    first = start(tmp_path, **options)
    while not (tmp_path / "submissions/toy" / STATE).exists():
        assert first.is_alive(), (tmp_path / "said.txt").read_text()
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGSTOP)
    second = start(tmp_path, **options)
    second.join()
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert second.exitcode == 2
    assert "error: another process uses submissions/toy" in (tmp_path / "said.txt").read_text()
    assert (tmp_path / "submissions/toy" / STATE).exists()


def config(**options: object) -> Config:
    return Config(run=RunConfig("toy"), train=TrainConfig(**options))


@pytest.fixture
def unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was begun with the defaults, whose classes were settled."""
    monkeypatch.chdir(tmp_path)
    run = SUBMISSIONS / "toy"
    run.mkdir(parents=True)
    begun = config(epochs=10)
    settled = {str(label): name for label, name in begun.data.classes.items()}
    write_text(dump_config(replace(begun, data=replace(begun.data, classes=settled))), run / "config.yaml")
    return run


FOLDS = pd.DataFrame(
    {"image_id": ["1", "2"], "filename": ["a", "b"], "label": ["x", "y"], "group": "g", "fold": [0, -1]}
)


def test_an_unfinished_run_goes_on_as_it_was_begun(unfinished):
    assert check_run(config(epochs=10)).path == unfinished


@pytest.mark.parametrize(
    "options",
    [
        {"train": TrainConfig(epochs=10, max_hours=1.0, save_minutes=1.0)},
        {"data": DataConfig(root=Path("elsewhere"), workers=3)},
        {"data": DataConfig(classes=None)},
        {"run": RunConfig("toy", restart=True), "train": TrainConfig(epochs=3)},
    ],
    ids=["time", "place", "classes of the data", "restart"],
)
def test_what_changes_no_number_may_change(unfinished, options):
    assert check_run(replace(config(epochs=10), **options)).path == unfinished


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": TrainConfig(epochs=10, head_lr=0.5)}, r"train\.head_lr 0\.002, not 0\.5: resume it unchanged, or"),
        ({"train": TrainConfig(epochs=9)}, r"train\.epochs 10, not 9"),
        ({"train": TrainConfig(epochs=10, seed=1), "augment": "none"}, r"train\.seed 0, not 1; augment 'standard'"),
        ({"data": DataConfig(classes={1: "a", 2: "b"})}, r"data\.classes \{'1': 'crack'"),
        ({"data": DataConfig(classes=dict(reversed(VEHICLE_DAMAGE.items())))}, r"order of data\.classes \['1'.*\['6'"),
        ({"data": DataConfig(normalize=Normalization([0, 0, 0], [1, 1, 1]))}, r"data\.normalize 'model', not Norm"),
        ({"data": DataConfig(normalize="dataset")}, r"data\.normalize 'model', not 'dataset'"),
    ],
    ids=["rate", "shorter", "two", "classes", "order", "normalize", "dataset"],
)
def test_another_configuration_is_refused_by_its_differences(unfinished, options, message):
    with pytest.raises(InputError, match=message):
        check_run(replace(config(epochs=10), **options))


def test_what_depends_on_the_photos_is_compared_with_what_was_saved(unfinished):
    measured = Normalization([0.1] * 3, [0.2] * 3)
    saved = DataConfig(normalize=measured, classes={"10": "a", "9": "b"})
    write_text(dump_config(replace(config(), data=saved)), unfinished / "config.yaml")
    given = replace(saved, normalize="dataset")
    assert check_run(replace(config(), data=given)).path == unfinished
    with pytest.raises(InputError, match=r"with the order of data\.classes \['10', '9'\], not \['9', '10'\]: resume"):
        check_run(replace(config(), data=replace(given, classes=None)))


def test_a_longer_training_goes_on_with_a_warning(unfinished, caplog):
    assert check_run(config(epochs=20)).path == unfinished
    assert "train.epochs is now 20 instead of 10" in caplog.text


def test_a_finished_run_is_not_touched(unfinished):
    write_json({}, unfinished / "metrics.json")
    with pytest.raises(InputError, match=r"toy contains a finished run.*--run\.name.*--run\.restart"):
        check_run(config(epochs=10))


def test_a_run_whose_page_was_not_written_is_not_finished(unfinished):
    write_json({}, unfinished / "metrics.json")
    write_text("", unfinished / STATE)
    assert check_run(config(epochs=10)).path == unfinished


def test_what_is_no_run_is_not_touched(unfinished):
    (unfinished / "config.yaml").rename(unfinished / "study.yaml")
    with pytest.raises(InputError, match="contains files but no run"):
        check_run(config(epochs=10))


def test_folders_without_files_are_no_run(unfinished):
    """Of a run that ended before it wrote its configuration."""
    RunFolder(unfinished, write=True).check_writable("")
    (unfinished / "config.yaml").unlink()
    assert check_run(config()).path == unfinished
    (unfinished / "trackers").mkdir()
    write_text("", unfinished / "trackers/events")  # a tracker begins before the configuration is written
    assert check_run(config()).path == unfinished
    write_text("", unfinished / "figures/photos/other.txt")
    with pytest.raises(InputError, match="contains files but no run"):
        check_run(config())


def test_other_photos_labels_or_folds_are_refused(unfinished, accelerator):
    write_csv(FOLDS, unfinished / "folds.csv")
    with occupied_run(RunFolder(unfinished, write=True), False, FOLDS, accelerator):
        pass
    other = FOLDS.assign(fold=[1, -1])
    refused = pytest.raises(InputError, match="have changed since submissions/toy was started")
    with refused, occupied_run(RunFolder(unfinished, write=True), False, other, accelerator):
        pass
    assert (unfinished / "folds.csv").exists()


def test_a_restart_throws_away_what_was_there(unfinished, accelerator):
    (unfinished / "fold_0").mkdir()
    with occupied_run(RunFolder(unfinished, write=True), True, FOLDS, accelerator):
        assert sorted(path.name for path in unfinished.iterdir()) == [LOCK, "figures"]


def test_what_fails_can_go_on_and_what_ends_cannot(unfinished, accelerator):
    write_text("", unfinished / STATE)
    with pytest.raises(RuntimeError), occupied_run(RunFolder(unfinished, write=True), False, FOLDS, accelerator):
        raise RuntimeError
    assert (unfinished / STATE).exists()
    with occupied_run(RunFolder(unfinished, write=True), False, FOLDS, accelerator):
        pass
    assert not (unfinished / STATE).exists()


def test_while_a_run_is_occupied_nobody_else_may_enter(unfinished, accelerator, monkeypatch):
    monkeypatch.setattr("trunkfold.training.resume.PATIENCE", 0.1)
    refused = pytest.raises(InputError, match="another process uses submissions/toy")
    with (
        FileLock(unfinished / LOCK),
        refused,
        occupied_run(RunFolder(unfinished, write=True), False, FOLDS, accelerator),
    ):
        pass


def small_disk(tmp_path: Path, megabytes: float) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only an administrator of Linux can make a small disk")
    return folder


@pytest.mark.slow
def test_on_a_full_disk_a_run_ends_with_an_error_and_goes_on_when_there_is_room(unharmed, tmp_path):
    """The disk is filled up, but for some kilobytes, when the first state has been written."""
    disk = small_disk(tmp_path, megabytes=20)
    try:
        write_competition(disk / "input")
        process = start(disk, KilledAtFile(STATE, times=2, before=False))
        process.join()
        whole = (disk / "submissions/toy" / STATE).read_bytes()
        with (disk / "filler").open("wb") as filler:
            filler.write(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 200_000))
        process = start(disk)
        process.join()
        said = (disk / "said.txt").read_text()
        assert process.exitcode == 2, said
        assert "error: cannot write submissions/toy/" in said
        assert "No space left on device" in said
        assert "Traceback" not in said
        assert (disk / "submissions/toy" / STATE).read_bytes() == whole
        (disk / "filler").unlink()
        finish(disk)
        assert content(disk) == content(unharmed)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
