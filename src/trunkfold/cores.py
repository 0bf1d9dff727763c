"""Cores available to this process, and a thread pool that uses them."""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psutil
from joblib import cpu_count

Item, Result = TypeVar("Item"), TypeVar("Result")
LOCAL_SIZES = "LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"


def usable_cores() -> int:
    """Return the number of cores this process may use, limited by CPU affinity and a container's quota."""
    return cpu_count()


def local_processes() -> int:
    """Return the number of processes launched on this machine."""
    return next((int(os.environ[name]) for name in LOCAL_SIZES if name in os.environ), 1)


def cores_of_process() -> int:
    """Return this process's share of the machine's cores."""
    return max(1, usable_cores() // local_processes())


def thread_count() -> int:
    """Return the number of threads to use: OMP_NUM_THREADS if the user set it, otherwise this process's cores."""
    chosen = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if chosen == "1" and "ACCELERATE_MIXED_PRECISION" in os.environ and not _launcher_was_given("OMP_NUM_THREADS"):
        chosen = ""  # `accelerate launch` sets it to 1 by default
    return int(chosen) if chosen.isdigit() and int(chosen) else cores_of_process()


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function for each item, on all cores of this process.

    PyTorch's threads synchronize within each operation by spinning, which makes them several times slower if another
    program uses a core. Here, each thread processes whole items with single-threaded operations, so threads wait only
    at the end. Results are independent of the number of threads if the items are.

    Args:
        function: Called in other threads, which do not inherit PyTorch's `no_grad` and `autocast`.
        items: Largest first, or all of similar size.

    Returns:
        The results in the order of the items. The first error is raised in the calling thread.
    """
    items, threads = list(items), thread_count()
    if threads == 1 or len(items) == 1:
        return [function(item) for item in items]
    return list(_pool(threads).map(function, items))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="compute")


@functools.cache
def _launcher_was_given(variable: str) -> bool:
    try:
        return variable in psutil.Process().parent().environ()
    except (AttributeError, OSError, psutil.Error):
        return False
