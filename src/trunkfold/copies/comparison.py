"""Comparison of many pairs of photos on all cores.

Each process that compares pairs imports this module, so it imports little.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial

from loky import ProcessPoolExecutor

from trunkfold.copies.cells import Statistics
from trunkfold.copies.evidence import Evidence, Pair, compare
from trunkfold.copies.record import Records
from trunkfold.errors import InputError

PART = 100  # pairs that a worker compares at once


@contextmanager
def start_workers(count: int, processes: bool) -> Iterator[Executor]:
    """Yield processes of one thread each for long work, or threads for short work.

    Threads start at once, but wait for Python's interpreter lock up to half of the time.

    Args:
        count: Number of workers.
        processes: Whether to start processes, if there is more than one worker.

    Raises:
        InputError: A process died.
    """
    processes = processes and count > 1
    workers = ProcessPoolExecutor(count, env={"OMP_NUM_THREADS": "1"}) if processes else ThreadPoolExecutor(count)
    try:
        with workers:
            yield workers
    except BrokenProcessPool as error:
        raise InputError(
            "a process of the search for copies died, probably for lack of memory: free memory, then rerun; "
            "finished blocks of the search are kept"
        ) from error


def compare_pairs(workers: Executor, records: Records, pairs: Sequence[Pair], statistics: Statistics) -> list[Evidence]:
    """Compare pairs of photos.

    Args:
        workers: See `start_workers`.
        records: Of all photos.
        pairs: Indices of `records`.
        statistics: Of the cells of all photos.
    """
    parts = [pairs[start : start + PART] for start in range(0, len(pairs), PART)]
    return [found for part in workers.map(partial(_compare_part, records, statistics), parts) for found in part]


def _compare_part(records: Records, statistics: Statistics, pairs: Sequence[Pair]) -> list[Evidence]:
    return [compare(records[one], records[other], statistics) for one, other in pairs]
