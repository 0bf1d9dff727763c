"""A loader process that dies is told with the photo that it held, wherever the death is noticed."""

import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from trunkfold.errors import InputError, exit_on_input_error
from trunkfold.images.augmentation import make_augmentation
from trunkfold.images.batches import FoldBalancedBatches, TrainingPhotos, ViewedPhotos, training_loader
from trunkfold.images.views import VIEWS
from trunkfold.images.workers import DeadWorkerError, PhotoLoader, photos_named
from trunkfold.model.features import KeptViews

ROWS, PLANTED = 12, 7
PAIRS, CPU = [range(row, row + 2) for row in range(0, ROWS, 2)], torch.device("cpu")


class Deadly(list):
    """Photos, or features, of which one kills the process that reads it."""

    def __getitem__(self, row):
        if row in (PLANTED, [PLANTED]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(row[0] if isinstance(row, list) else row)


PHOTOS = Deadly(np.random.default_rng(0).integers(0, 256, (ROWS, 20, 30, 3)).astype(np.uint8))
FEATURES = Deadly(torch.zeros(ROWS, 1, 4, 2, 2))
TARGETS = np.arange(ROWS) % 2


def training(photos: Dataset, accelerator) -> PhotoLoader:
    return training_loader(photos, FoldBalancedBatches(np.arange(ROWS) % 3, 3, 0, accelerator), 2, CPU)


LOADERS: dict[str, Callable] = {
    "training": lambda accelerator: training(
        TrainingPhotos(PHOTOS, TARGETS, make_augmentation("none", 32), 0), accelerator
    ),
    "kept views": lambda accelerator: training(KeptViews([FEATURES], TARGETS), accelerator),
    "view": lambda accelerator: PhotoLoader(
        ViewedPhotos(PHOTOS, np.arange(ROWS)[::-1], VIEWS["plain"], 20), 2, PAIRS, CPU
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_a_worker_that_is_killed_is_told_with_the_photo_it_held(accelerator, kind):
    names = [f"photo {row}.png" for row in range(ROWS)]
    with pytest.raises(DeadWorkerError) as error, photos_named(names):
        for _ in LOADERS[kind](accelerator):
            pass
    assert error.value.row == PLANTED
    assert f"the photo that it took up last is photo {PLANTED}.png (DataLoader worker (pid" in str(error.value)
    for what in ("--data.workers 0", "train.batch_size", "/dev/shm"):
        assert what in str(error.value)


def test_the_death_is_told_by_the_loader_and_not_out_of_what_runs_meanwhile():
    batches = iter(PhotoLoader(ViewedPhotos(PHOTOS, np.arange(PLANTED + 1), VIEWS["plain"], 20), 2, PAIRS[:4], CPU))
    next(batches)
    time.sleep(2)  # the worker dies now, and a step of the model would have been interrupted
    with pytest.raises(DeadWorkerError, match=f"row {PLANTED} "):
        list(batches)


def test_an_error_in_a_worker_stays_what_it_is(accelerator):
    broken = TrainingPhotos([None] * ROWS, TARGETS, make_augmentation("none", 32), 0)
    with pytest.raises((TypeError, AttributeError), match="in DataLoader worker process"):
        list(training(broken, accelerator))


def test_every_process_tells_of_its_own_workers(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit), exit_on_input_error():
        raise InputError("found by all")
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit), exit_on_input_error():
        raise DeadWorkerError("killed", 3)
    assert "in row 3" in capsys.readouterr().err


def test_a_worker_that_dies_before_its_first_photo_is_told_too():
    with pytest.raises(DeadWorkerError, match="before its first photo"), photos_named(["a"]):
        raise DeadWorkerError("killed", None)
