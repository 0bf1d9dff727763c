"""Errors in data-loader workers name the photo, and killed workers end the run with a clear message."""

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from trunkfold.errors import InputError, exit_on_input_error
from trunkfold.images.augmentation import Augmentation
from trunkfold.images.batches import FoldBalancedBatches, TrainingPhotos, ViewedPhotos
from trunkfold.images.views import VIEWS
from trunkfold.images.workers import DeadWorkerError, PhotoError, PhotoLoader, worker_deaths_explained

ROWS, PLANTED, CPU = 12, 7, torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (ROWS, 20, 30, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def _broken_pools_end_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Collect iterators whose workers failed: torch waits 5 s for each worker, in whichever test collects them."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    yield
    gc.collect()


class Planted(list):
    """Photos of which one kills the process that reads it, or cannot be read."""

    paths = [f"photo {row}.png" for row in range(ROWS)]

    def __init__(self, kills: bool) -> None:
        super().__init__(PIXELS)
        self.kills = kills

    def __getitem__(self, row):
        if row == PLANTED and self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if row == PLANTED:
            raise OSError("Input/output error")
        return super().__getitem__(row)


def load_all(kind: str, photos: Planted, workers: int, accelerator) -> None:
    if kind == "training":
        shown = TrainingPhotos(photos, np.arange(ROWS) % 2, Augmentation("none", 32), 0)
        loader = PhotoLoader(shown, FoldBalancedBatches(np.arange(ROWS) % 3, 3, 0, accelerator), workers, CPU)
    else:
        pairs = [range(row, row + 2) for row in range(0, ROWS, 2)]
        loader = PhotoLoader(ViewedPhotos(photos, VIEWS["plain"], 20), pairs, workers, CPU)
    for _ in loader:
        pass


@pytest.mark.parametrize("kind", ["training", "view"])
def test_a_killed_worker_is_an_error_that_says_what_to_do(accelerator, kind):
    with pytest.raises(DeadWorkerError) as error, worker_deaths_explained():
        load_all(kind, Planted(kills=True), 2, accelerator)
    for what in ("DataLoader worker (pid", "--data.workers 0", "--train.batch_size", "/dev/shm"):
        assert what in str(error.value)


def lose_connection(loader: PhotoLoader) -> None:
    """Raise what torch's queue raises while a worker dies, a moment before the signal of its death."""
    before = multiprocessing.active_children()
    batches = iter(loader)  # kept by this frame, as torch's own is by the traceback
    next(batches)
    (worker,) = set(multiprocessing.active_children()).difference(before)
    threading.Timer(0.1, worker.kill).start()
    raise EOFError


def test_a_connection_that_ends_before_the_signal_of_a_death_is_a_dead_worker():
    loader = PhotoLoader(ViewedPhotos(PIXELS, VIEWS["plain"], 20), [[0]] * 4, 1, CPU)
    with pytest.raises(DeadWorkerError, match="killed by signal"), worker_deaths_explained():
        lose_connection(loader)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["training", "view"])
def test_a_photo_that_fails_is_named_in_one_sentence(accelerator, kind, workers):
    with pytest.raises(PhotoError) as error:
        load_all(kind, Planted(kills=False), workers, accelerator)
    expected = f"photo {PLANTED}.png cannot be prepared for the model: OSError: Input/output error"
    assert str(error.value) == expected


@pytest.mark.parametrize("kind", [RuntimeError, OSError])
def test_other_errors_stay_what_they_are(monkeypatch, kind):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(kind, match="another"), worker_deaths_explained():
        raise kind("another error")


@pytest.mark.parametrize("kind", [DeadWorkerError, PhotoError])
def test_every_process_reports_its_own_workers(monkeypatch, capsys, kind):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit), exit_on_input_error():
        raise InputError("found by all")
    assert "process 1: found by all" in capsys.readouterr().err
    with pytest.raises(SystemExit), exit_on_input_error():
        raise kind("killed")
    assert "killed" in capsys.readouterr().err
