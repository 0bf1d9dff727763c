"""Batch sizes that fit are found by trial, equal in all processes; errors suggest options to lower."""

import threading
from types import SimpleNamespace

import pytest
import torch

from trunkfold.errors import MemoryFullError
from trunkfold.model.device_memory import fewest_pieces, first_that_fits, in_pieces, told_of_memory


@pytest.fixture(autouse=True)
def _no_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failed try collects garbage, which takes half a second here and frees nothing."""
    monkeypatch.setattr("gc.collect", lambda: 0)


def holds(most: int, tried: list[int] | None = None):
    """A device's memory that holds so many rows."""

    def attempt(rows: int) -> int:
        if tried is not None:
            tried.append(rows)
        if rows > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return rows

    return attempt


def test_the_largest_batch_is_the_first_that_fits():
    tried = []
    found = first_that_fits(holds(100, tried), 512, "lower it")
    assert tried == sorted(tried, reverse=True)
    assert 50 <= found == tried[-1] <= 100
    assert first_that_fits(lambda size: size, 512, "lower it") == 512


def test_where_not_even_one_fits_the_error_says_what_to_do():
    with pytest.raises(MemoryFullError, match=r"out of memory \(CUDA.*2 GiB\): lower it"):
        first_that_fits(holds(0), 8, "lower it")


def test_an_error_that_is_not_of_memory_is_not_taken_for_one():
    def attempt(size: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        first_that_fits(attempt, 8, "lower it")
    with pytest.raises(RuntimeError, match="shapes"):
        first_that_fits(attempt, 1, "lower it")
    with pytest.raises(RuntimeError, match="shapes"), told_of_memory("lower it"):
        attempt(1)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_a_full_memory_that_the_driver_or_its_libraries_found_is_one_too(words):
    def attempt(size: int) -> int:
        if size > 4:
            raise RuntimeError(words)
        return size

    assert first_that_fits(attempt, 8, "lower it") == 4
    with pytest.raises(MemoryFullError, match="lower it"), told_of_memory("lower it"):
        attempt(5)


def test_what_does_not_fit_is_computed_in_pieces():
    seen = []

    def double(batch: torch.Tensor) -> torch.Tensor:
        holds(3, seen)(len(batch))
        return 2 * batch

    assert in_pieces(double, torch.arange(8), "lower it").tolist() == list(range(0, 16, 2))
    assert seen[-3:] == [3, 3, 2]


def test_a_cpus_error_of_memory_is_one_too():
    with pytest.raises(MemoryFullError, match="lower it"), told_of_memory("lower it"):
        torch.empty(2**60)


def alone(rows: int, most: int) -> int:
    process = SimpleNamespace(device=torch.device("cpu"), gather=lambda tensor: tensor)
    return fewest_pieces(process, rows, holds(most))


@pytest.mark.parametrize(
    ("rows", "most", "pieces"),
    [(8, 8, 1), (8, 99, 1), (8, 7, 2), (8, 4, 2), (8, 3, 3), (8, 2, 4), (8, 1, 8), (5, 2, 3), (1, 1, 1), (7, 4, 2)],
)
def test_a_batch_is_divided_into_no_more_pieces_than_needed(rows, most, pieces):
    assert alone(rows, most) == pieces


def in_processes(rows: list[int], most: list[int]) -> list[object]:
    """What each process finds, or the error that it ends with."""
    barrier, told, found = threading.Barrier(len(rows)), {}, [None] * len(rows)

    def run(rank: int) -> None:
        def gather(tensor: torch.Tensor) -> torch.Tensor:
            told[rank] = tensor
            barrier.wait(60)
            return torch.cat([told[other] for other in range(len(rows))])

        process = SimpleNamespace(device=torch.device("cpu"), gather=gather)
        try:
            found[rank] = fewest_pieces(process, rows[rank], holds(most[rank]))
        except MemoryFullError as error:
            found[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_processes_agree_on_what_the_smallest_memory_holds():
    assert in_processes([3, 2], [3, 2]) == [1, 1]
    assert in_processes([8, 8], [8, 4]) == [2, 2]
    assert in_processes([6, 5, 5], [99, 2, 3]) == [3, 3, 3]


def test_where_one_of_the_processes_cannot_hold_anything_all_end():
    first, second = in_processes([4, 4], [4, 0])
    assert "another process" in first
    assert "2 GiB" in second
    for name in ("train.batch_size", "data.image_size", "model.tune_stages", "train.mixed_precision"):
        assert name in first
        assert name in second
