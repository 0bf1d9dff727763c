"""Processes are set up for large runs."""

import resource

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from trunkfold.config.schema import TrainConfig
from trunkfold.errors import InputError
from trunkfold.images.workers import PhotoLoader
from trunkfold.training import accelerator as process
from trunkfold.training.accelerator import check_agreement, choose_precision, describe_device, start_process


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


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp16"), ((8, 0), "bf16")])
def test_the_precision_is_the_devices(monkeypatch, capability, precision):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *device: capability)
    assert choose_precision("auto", torch.device("cuda")) == precision
    assert choose_precision("bf16", torch.device("cuda")) == "bf16"


@pytest.mark.parametrize(
    ("found", "precision"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, "bf16"),
        ({"avx512_f": True, "avx512_bf16": False}, "no"),
        ({"architecture": "aarch64"}, "no"),
        (None, "no"),
    ],
)
def test_a_processor_with_instructions_for_bf16_uses_it(monkeypatch, found, precision):
    """None: PyTorch cannot tell."""
    monkeypatch.delattr("torch.cpu.get_capabilities", raising=False)
    if found is not None:
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda: found, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == precision
    for wanted in ("no", "bf16"):
        assert choose_precision(wanted, torch.device("cpu")) == wanted


def test_without_cuda_a_run_uses_the_cpu_even_on_apple_silicon(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("accelerate.state.is_mps_available", lambda *_: True)
    accelerator = start_process(TrainConfig(mixed_precision="no"))
    assert accelerator.device.type == "cpu"
    assert describe_device(accelerator) == "CPU, float32"


def test_processes_that_have_other_groups_or_photos_stop(monkeypatch):
    keys = ["a", "a"]
    monkeypatch.setattr(process, "gather_object", lambda own: own + keys)
    check_agreement(None, "a")
    with pytest.raises(InputError, match="machines have different photos, labels, groups or folds"):
        check_agreement(None, "b")


def test_a_gpu_that_accelerate_was_told_to_leave_alone_decides_nothing(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *device: (7, 5))
    monkeypatch.setattr("torch.cpu.get_capabilities", dict, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    accelerator = start_process(TrainConfig())
    assert (accelerator.device.type, accelerator.mixed_precision) == ("cpu", "no")
    photos = PhotoLoader([torch.zeros(2, 2, 3, dtype=torch.uint8)], [[0]], 0, accelerator.device)
    assert not photos.pin_memory
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        start_process(TrainConfig(mixed_precision="fp16"))
