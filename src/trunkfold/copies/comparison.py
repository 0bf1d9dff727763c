"""Comparison of many pairs of photos on all cores.

Each process that compares pairs imports this module, so it imports little.
"""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial

import numpy as np
from loky import ProcessPoolExecutor
from threadpoolctl import threadpool_limits

from trunkfold.copies.cells import Statistics
from trunkfold.copies.evidence import Evidence, compare
from trunkfold.copies.record import Records
from trunkfold.errors import InputError

PART = 100  # pairs that a worker compares at once
MANY = 1000  # pairs; to start processes takes as long as to compare a few hundred


@contextmanager
def start_workers(count: int, pairs: int) -> Iterator[Executor]:
    """Yield processes that compare many pairs, or threads that compare few.

    Threads start at once, but wait for Python's interpreter lock up to half of the time.

    Raises:
        InputError: A process died.
    """
    threads = count == 1 or pairs < MANY
    workers = ThreadPoolExecutor(count) if threads else ProcessPoolExecutor(count, initializer=_limit_threads)
    try:
        with workers:
            yield workers
    except BrokenProcessPool as error:
        raise InputError(
            "a process that compared photos died, probably for lack of memory: free memory, then rerun; "
            "finished blocks of the search are kept"
        ) from error


def compare_pairs(workers: Executor, records: Records, pairs: np.ndarray, statistics: Statistics) -> list[Evidence]:
    """Compare pairs of photos.

    Args:
        workers: See `start_workers`.
        records: Of all photos.
        pairs: int of shape (pairs, 2), indices of `records`.
        statistics: Of the cells of all photos.
    """
    parts = [pairs[start : start + PART] for start in range(0, len(pairs), PART)]
    return [found for part in workers.map(partial(_compare_part, records, statistics), parts) for found in part]


def _compare_part(records: Records, statistics: Statistics, pairs: np.ndarray) -> list[Evidence]:
    return [compare(records[one], records[other], statistics) for one, other in pairs]


def _limit_threads() -> None:
    threadpool_limits(1)
