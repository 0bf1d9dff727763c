"""Setup of a process: device, precision and seeds through Accelerate, and logging."""

import ctypes
import logging
import os
import sys
from contextlib import suppress
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env, set_seed

from trunkfold.config.schema import TrainConfig
from trunkfold.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
# Longest legitimate wait for another process: after an interruption, one may have to compute the features of 100,000
# photos that the others have, or wait for another run that computes them. Searching for copies and decoding are waited
# for at file locks, without a limit. A process that dies ends the others at once; only one that hangs takes this long.
LONGEST_WAIT = timedelta(hours=2)
OPEN_FILES = 1 << 16
PRECISIONS = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def start_process(config: TrainConfig) -> Accelerator:
    """Seed everything and set device and precision.

    Returns:
        The accelerator. Only the first process logs warnings, and all processes end with an error if one waits for
        more than two hours.

    Raises:
        InputError: The precision is not available on the device.
    """
    # Accelerate connects launched processes over gloo only if it knows that there is no GPU.
    no_gpu = "LOCAL_RANK" in os.environ and not torch.cuda.is_available()
    on_cpu = no_gpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    device = PartialState(cpu=on_cpu, timeout=LONGEST_WAIT).device  # before the precision, which depends on it
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=choose_precision(config.mixed_precision, device))
    if accelerator.device.type == "cpu":
        torch.set_num_threads(1)  # for each operation: `in_threads` shares the cores
        _keep_freed_memory()
    _allow_open_files()
    set_seed(config.seed)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    if not accelerator.is_main_process:
        logging.getLogger("trunkfold").setLevel(logging.ERROR)
    return accelerator


def describe_device(accelerator: Accelerator) -> str:
    """Describe device and precision, such as "CPU, float32"."""
    device = "CPU" if accelerator.device.type == "cpu" else torch.cuda.get_device_name(accelerator.device)
    return f"{device}, {PRECISIONS[accelerator.mixed_precision]}"


def _keep_freed_memory() -> None:
    """Let this process reuse the memory of large tensors.

    By default, glibc returns freed memory, and each step waits for the kernel to clear hundreds of megabytes.
    """
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _allow_open_files() -> None:
    """Raise the usual limit of 1,024 open files: 100,000 photos and their features need 1,200."""
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limit, and some systems refuse
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < OPEN_FILES:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return the requested precision, or the one `auto` selects for a device.

    Raises:
        InputError: fp16 without a GPU.
    """
    if wanted == "auto":
        if device.type != "cuda":
            return "no"
        # Turing cards such as the T4 only emulate bf16, several times slower than their fp16.
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if wanted == "fp16" and device.type != "cuda":
        raise InputError("train.mixed_precision fp16 needs a GPU: choose auto, no or bf16")
    return wanted
