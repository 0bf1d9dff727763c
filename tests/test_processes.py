"""Several processes predict the same as one, for any number of photos, and end if one of them dies or hangs."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forked import run_ranks
from toys import SOURCE, in_new_folder, run_command, write_competition

from trunkfold.files import locked_folder

pytestmark = pytest.mark.usefixtures("without_figures")  # runs of module fixtures have them
SMALL = {
    "data.classes": "null",
    "data.image_size": "32",
    "data.workers": "0",
    "model.name": "test_convnext",
    "model.pretrained": "false",
    "split.folds": "3",
    "train.epochs": "2",
    "train.mixed_precision": "no",  # bf16 rounds sums of other batches differently
    "run.name": "one",
}
ENDED = 60  # seconds after a death


def launch(processes: int, script: str | Path, *words: str, folder: Path) -> subprocess.Popen:
    """Start a script in several processes; what they print is in the folder's log.txt."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    command += ["--main_process_port", "0", str(SOURCE / script), *words]
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def words(options: dict[str, object]) -> list[str]:
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def wait_for(true: Callable[[], object], seconds: float) -> float:
    """Seconds until something is true."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds
        time.sleep(0.05)
    return time.monotonic() - started


def ranks(launcher: int) -> dict[int, int]:
    """Process id by rank of the processes that a launcher started."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_text().split("\0")
        except (OSError, ValueError):
            continue
        if parent == launcher:
            found |= {int(value[5:]): int(entry.name) for value in variables if value.startswith("RANK=")}
    return found


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_toy(folder: Path) -> dict[str, object]:
    """Options of a training on 93 labelled photos, which no 2 or 3 processes can share; 2 unlabelled ones."""
    root = write_competition(folder / "input", sources=31, unlabelled_sources=1)
    test = pd.read_csv(root / "test/test/test.csv")[:2]
    test.to_csv(root / "test/test/test.csv", index=False)
    (root / "sample_submission.csv").unlink()
    return {**SMALL, "data.root": root, "split.groups": root / "groups.csv"}


@pytest.fixture
def toy(workplace: Path) -> dict[str, object]:
    return write_toy(workplace)


UNEVEN = {"train.batch_size": 15, "predict.batch_size": 7, "train.ema_decay": 0.9}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one process has trained and submitted the run "one"."""
    with in_new_folder(tmp_path_factory, "alone") as folder:
        run_command("train_folds.py", *words({**write_toy(folder), **UNEVEN}))
        run_command("make_submission.py", "--run", "submissions/one")
    return folder


@contextmanager
def launched(*args: object, **options: object) -> Iterator[subprocess.Popen]:
    """What `launch` starts, and in the end no more of it."""
    process = launch(*args, **options)
    try:
        yield process
    finally:
        for pid in [*ranks(process.pid).values(), process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_predict_what_one_does_also_where_nothing_divides(alone, processes):
    """Batches of 5 photos a fold, passes of 7, and fewer unlabelled photos than three processes."""
    root, several = alone / "input", f"{processes} processes"
    options = {**SMALL, "data.root": root, "split.groups": root / "groups.csv", **UNEVEN}
    chosen = {**options, "run.name": several, "cache.dir": f"submissions/cache of {several}"}
    said = run_ranks(processes, alone, "train_folds.py", *words(chosen))
    assert said.count("epoch 1/2") == 1  # one process speaks
    run_ranks(processes, alone, "make_submission.py", "--run", f"submissions/{several}")
    for name in ("oof", "holdout", "test_probabilities"):
        one, found = (pd.read_csv(alone / f"submissions/{run}/{name}.csv") for run in ("one", several))
        assert one["image_id"].tolist() == found["image_id"].tolist()
        columns = [column for column in one if column.startswith("p_")]
        np.testing.assert_allclose(found[columns], one[columns], atol=1e-4)
    assert len(found) == 2
    losses = [pd.read_csv(alone / f"submissions/{run}/history.csv")["train_loss"] for run in ("one", several)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


PIECES = """
import copy
import numpy as np, torch
from trunkfold.model.backbone import build_backbone
from trunkfold.config.schema import ModelConfig, TrainConfig
from trunkfold.images.batches import FoldBalancedBatches
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.accelerator import start_process

class SmallMemory(torch.nn.Module):
    def __init__(self, trunk, most):
        super().__init__()
        self.trunk, self.most = trunk, most

    def forward(self, photos):
        if len(photos) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return self.trunk(photos)

sgd = {"optimizer": "sgd", "tail_lr": 0.1, "clip_grad": None}  # clipping would hide the scale
train = TrainConfig(epochs=4, batch_size=15, mixed_precision="no", **sgd)
accelerator = start_process(train)
backbone = build_backbone(ModelConfig(name="test_convnext", pretrained=False, scale=1.0), 4)
whole, divided = (
    Lockstep(accelerator, train, copy.deepcopy(backbone), FoldBalancedBatches(np.arange(30) % 3, 15, 0, accelerator))
    for _ in range(2)
)
divided.trunk, divided.pieces = SmallMemory(divided.trunk, [3, 6][accelerator.process_index]), None
torch.manual_seed(accelerator.process_index)
rows = 3 * divided.batches.rows_per_fold
for _ in range(3):
    photos, targets = torch.randint(0, 256, (rows, 3, 64, 64), dtype=torch.uint8), torch.randint(0, 4, (rows,))
    torch.testing.assert_close(divided.step(photos, targets), whole.step(photos, targets), rtol=1e-5, atol=1e-6)
for found, expected in zip(divided.learning, whole.learning, strict=True):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(accelerator.reduce(found.detach().clone(), "mean"), found.detach())
print(f"{rows} photos in {divided.pieces} pieces", flush=True)
accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_that_stopped_in_time_go_on_to_the_same_end(toy, workplace):
    """Stochastic depth draws other numbers in each process, and each goes on with its own."""
    options = {**toy, "train.batch_size": 15, "model.drop_path": 0.3}
    for name, hours in (("whole", ["null"]), ("stopped", ["1e-6", "null"])):
        for limit in hours:
            chosen = {**options, "run.name": name, "train.max_hours": limit}
            said = run_ranks(2, workplace, "train_folds.py", *words(chosen))
    assert "resuming the unfinished run" in said
    for table in ("oof", "holdout"):
        whole, stopped = (pd.read_csv(workplace / f"submissions/{run}/{table}.csv") for run in ("whole", "stopped"))
        pd.testing.assert_frame_equal(whole, stopped, rtol=1e-4)


def test_processes_learn_from_pieces_what_they_learn_from_whole_batches(workplace):
    """One with 3 photos of each fold, of which one fits, and one with 2, which it learns from one by one."""
    (workplace / "pieces.py").write_text(PIECES)
    log = run_ranks(2, workplace, workplace / "pieces.py")
    assert "9 photos in 3 pieces" in log
    assert "6 photos in 3 pieces" in log
    assert log.count("train.batch_size 15 is too large for the memory of cpu") == 1


ENDING = """
from trunkfold.config.schema import TrainConfig
from trunkfold.training.accelerator import end_processes, start_process
accelerator = start_process(TrainConfig())
print("process", accelerator.process_index, "ends")
end_processes(accelerator)
print("shutting down", flush=True)
"""


def test_several_processes_end_without_the_shutdown_of_the_interpreter_and_say_all(workplace):
    (workplace / "ending.py").write_text(ENDING)
    said = run_ranks(2, workplace, workplace / "ending.py")
    assert "process 0 ends" in said
    assert "process 1 ends" in said
    assert "shutting down" not in said


def assert_ends_when_killed(process: subprocess.Popen, rank: int, folder: Path) -> None:
    """After the death of one process the others end, and the launcher with an error that names it."""
    started = ranks(process.pid)
    os.kill(started[rank], signal.SIGKILL)
    wait_for(lambda: process.poll() is not None, ENDED)
    assert process.returncode != 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in started.values())
    assert "Signal 9 (SIGKILL)" in (folder / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the processes in /proc")
def test_a_killed_process_ends_the_training_of_all(toy, workplace):
    """The first one, which the others wait for when they add up gradients."""
    options = {**toy, "train.batch_size": 6, "train.epochs": 10_000}
    with launched(2, "train_folds.py", *words(options), folder=workplace) as process:
        wait_for(lambda: "epoch 1/" in (workplace / "log.txt").read_text(), 240)
        assert_ends_when_killed(process, 0, workplace)


WAITS = """
from pathlib import Path
from trunkfold.config.schema import TrainConfig
from trunkfold.training.accelerator import start_process
from trunkfold.files import locked_folder

accelerator = start_process(TrainConfig())
accelerator.wait_for_everyone()
print("all are there", flush=True)
with locked_folder(Path("cache"), "--cache.dir"):
    print("never")
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the processes in /proc")
def test_a_killed_process_ends_the_others_also_where_they_wait_for_a_file(workplace):
    """Another program decodes photos for hours."""
    (workplace / "waits.py").write_text(WAITS)
    with (
        locked_folder(workplace / "cache", ""),
        launched(2, workplace / "waits.py", folder=workplace) as process,
    ):
        wait_for(lambda: (workplace / "log.txt").read_text().count("all are there") == 2, 240)
        assert_ends_when_killed(process, 1, workplace)
    assert "never" not in (workplace / "log.txt").read_text()


HANGS = """
import sys, time
from datetime import timedelta
from trunkfold.training import accelerator as process
from trunkfold.config.schema import TrainConfig

process.LONGEST_WAIT = timedelta(seconds=3)
accelerator = process.start_process(TrainConfig())
accelerator.wait_for_everyone()
print("all are there", flush=True)
if not accelerator.is_main_process:
    time.sleep(3600)
accelerator.wait_for_everyone()
"""


@pytest.mark.slow
def test_a_process_that_hangs_ends_all_after_the_longest_wait(workplace):
    (workplace / "hangs.py").write_text(HANGS)
    with launched(2, workplace / "hangs.py", folder=workplace) as process:
        wait_for(lambda: (workplace / "log.txt").read_text().count("all are there") == 2, 240)
        wait_for(lambda: process.poll() is not None, ENDED)
        assert process.returncode != 0
    assert "imeout" in (workplace / "log.txt").read_text() or "imed out" in (workplace / "log.txt").read_text()


def machine(rank: int, port: int, folder: Path, options: dict[str, object]) -> subprocess.Popen:
    """Start one process on one of two machines, for which two folders stand."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2"]
    command += ["--num_processes", "2", "--machine_rank", str(rank), "--rdzv_backend", "static"]
    command += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
    with (folder / "log.txt").open("w") as log:
        words_of_it = [str(SOURCE / "train_folds.py"), *words(options)]
        return subprocess.Popen([*command, *words_of_it], cwd=folder, stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture
def two_machines(toy, workplace: Path) -> list[Path]:
    """Two folders with the same photos, and nothing else."""
    folders = [workplace / "first", workplace / "second"]
    for folder in folders:
        shutil.copytree(toy["data.root"], folder / "input")
    return folders


def run_on(folders: list[Path], options: dict[str, object]) -> list[int]:
    """Exit codes of a training on machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [machine(rank, port, folder, options) for rank, folder in enumerate(folders)]
    try:
        return [process.wait(200) for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.mark.slow
def test_two_machines_without_a_common_disk_train_as_two_processes_of_one(toy, two_machines, workplace):
    options = {**toy, "train.batch_size": 15, "train.epochs": 1}
    with launched(2, "train_folds.py", *words(options), folder=workplace) as process:
        assert process.wait(200) == 0, (workplace / "log.txt").read_text()
    options |= {"data.root": "input", "split.groups": "input/groups.csv"}
    codes = run_on(two_machines, options)
    assert codes == [0, 0], "".join((folder / "log.txt").read_text() for folder in two_machines)
    for table in ("oof", "holdout", "history"):
        one, two = (pd.read_csv(folder / f"submissions/one/{table}.csv") for folder in (workplace, two_machines[0]))
        pd.testing.assert_frame_equal(
            one.drop(columns="seconds", errors="ignore"), two.drop(columns="seconds", errors="ignore")
        )
    assert not (two_machines[1] / "submissions/one").exists()


@pytest.mark.slow
def test_an_error_of_another_machine_is_printed_with_the_rank(toy, two_machines):
    shutil.rmtree(two_machines[1] / "input")
    options = {**toy, "train.batch_size": 15, "data.root": "input", "split.groups": "input/groups.csv"}
    assert 0 not in run_on(two_machines, options)
    assert "error of process 1: data.root input" in (two_machines[1] / "log.txt").read_text()
