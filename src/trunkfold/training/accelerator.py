"""Process setup: device, precision and seeds through Accelerate, and logging."""

import ctypes
import logging
import os
import sys
from contextlib import suppress
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object, parse_flag_from_env, set_seed

from trunkfold.config.schema import TrainConfig
from trunkfold.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # constants of malloc.h
# Longest legitimate wait for another process: after an interruption, it may have to compute features of 100,000 photos
# that the others already have, or wait for another run that computes them. (File locks, on which processes wait for the
# copy search and for decoding, have no timeout.) If a process dies, the others end at once; the timeout only matters
# if one hangs.
LONGEST_WAIT = timedelta(hours=2)
OPEN_FILES = 1 << 16
PRECISIONS = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def start_process(config: TrainConfig) -> Accelerator:
    """Seed all random generators, and set device and precision; without a CUDA device, the CPU is used.

    Returns:
        The accelerator. Only the first process logs warnings. All processes end with an error if one waits for more
        than two hours.

    Raises:
        InputError: The precision is not available on the device.
    """
    # Without CUDA, Accelerate would choose Apple's mps, which the training step does not support, and it uses gloo for
    # launched processes only if cpu=True.
    on_cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    AcceleratorState._reset_state()  # or Accelerate would refuse the precision of another run
    device = PartialState(cpu=on_cpu, timeout=LONGEST_WAIT).device  # before the precision, which depends on it
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=choose_precision(config.mixed_precision, device))
    if accelerator.device.type == "cpu":
        torch.set_num_threads(1)  # single-threaded operations, as `in_threads` distributes them over the cores
        _keep_freed_memory()
    _allow_open_files()
    set_seed(config.seed)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    if not accelerator.is_main_process:
        logging.getLogger("trunkfold").setLevel(logging.ERROR)
    return accelerator


def check_agreement(accelerator: Accelerator, key: str) -> None:
    """Raise an `InputError` in all processes unless the photos, labels, groups and folds of all have the same key.

    Machines without a shared disk search for copies by themselves, and one may lack the answers of a person: tails
    would then train on photos that the first process scores.
    """
    keys = gather_object([key])
    if len(set(keys)) > 1:
        raise InputError(
            "the machines have different photos, labels, groups or folds: copy the data and submissions/copies/ from "
            "the first machine to the others, or set split.groups to the same file"
        )


def end_processes(accelerator: Accelerator) -> None:
    """Wait for all processes, and end their connections; one of several processes exits here.

    An interpreter that shuts down while another thread of PyTorch releases a tensor is aborted
    (github.com/pytorch/pytorch/pull/179291). A launcher then reports a finished run as failed, and that of another
    machine waits for it. So connections end first, and with several processes, the shutdown is skipped.
    """
    several = accelerator.num_processes > 1
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if several:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def describe_device(accelerator: Accelerator) -> str:
    """Describe device and precision, such as "CPU, float32"."""
    device = "CPU" if accelerator.device.type == "cpu" else torch.cuda.get_device_name(accelerator.device)
    return f"{device}, {PRECISIONS[accelerator.mixed_precision]}"


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory of large tensors.

    By default, it returns the memory to the kernel, which then has to clear hundreds of megabytes in each step.
    """
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _allow_open_files() -> None:
    """Raise the soft limit of open files, often 1,024; 100,000 photos and their features need 1,200."""
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limit, and some systems deny the change
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < OPEN_FILES:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return the requested precision, or the one that `auto` selects for a device.

    Raises:
        InputError: fp16 without a GPU.
    """
    if wanted == "auto":
        if device.type == "cuda":
            # Turing GPUs such as the T4 only emulate bf16, several times slower than fp16.
            return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
        # AVX-512 has instructions for bf16, which other processors emulate slowly; old PyTorch cannot tell.
        return "bf16" if getattr(torch.cpu, "get_capabilities", dict)().get("avx512_bf16", False) else "no"
    if wanted == "fp16" and device.type != "cuda":
        raise InputError("train.mixed_precision fp16 needs a GPU: choose auto, no or bf16")
    return wanted
