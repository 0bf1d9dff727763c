"""A process is given what a large run needs."""

import resource

import pytest
import torch
from accelerate import Accelerator

from trunkfold.config.schema import TrainConfig
from trunkfold.training import accelerator as process
from trunkfold.training.accelerator import start_process


@pytest.fixture
def few_open_files():
    """The limit that most systems have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_files_may_be_open_as_100_000_photos_need(few_open_files):
    start_process(TrainConfig())
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(few_open_files, 1 << 16), few_open_files)


def test_a_limit_that_is_high_enough_stays(few_open_files, monkeypatch):
    monkeypatch.setattr(process, "OPEN_FILES", 1000)
    start_process(TrainConfig())
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1024


def test_an_operation_has_one_thread():
    """The cores are shared by `trunkfold.cores.in_threads`."""
    threads = torch.get_num_threads()
    try:
        assert isinstance(start_process(TrainConfig()), Accelerator)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
