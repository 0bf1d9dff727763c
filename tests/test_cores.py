"""The number of threads follows the user, the launcher and the machine; results and errors keep their order."""

import os
import subprocess
import sys
import time

import pytest

from trunkfold.cores import cores_of_process, in_threads, thread_count


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkfold.cores.cpu_count", lambda: 8)
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)


def test_each_process_of_a_machine_has_its_share_of_the_cores(monkeypatch):
    assert (cores_of_process(), thread_count()) == (8, 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert (cores_of_process(), thread_count()) == (2, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "9")
    assert (cores_of_process(), thread_count()) == (1, 1)


@pytest.mark.parametrize(("chosen", "threads"), [("1", 1), ("3", 3), ("5,2", 5), ("", 8), ("0", 8), ("many", 8)])
def test_omp_num_threads_is_respected(monkeypatch, chosen, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    assert thread_count() == threads


@pytest.mark.parametrize(("chosen", "threads"), [(None, 8), ("1", 1), ("2", 2)])
def test_the_launchers_own_omp_num_threads_is_not_the_users(chosen, threads):
    """`accelerate launch` sets it to 1 where the user did not set it."""
    ours = (
        "import joblib; joblib.cpu_count = lambda: 8; from trunkfold.cores import thread_count; print(thread_count())"
    )
    launcher = (
        "import os, subprocess, sys; "
        f"more = dict(ACCELERATE_MIXED_PRECISION='no', OMP_NUM_THREADS={chosen or '1'!r}); "
        f"print(subprocess.check_output([sys.executable, '-c', {ours!r}], env=os.environ | more, text=True))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {} if chosen is None else {"OMP_NUM_THREADS": chosen}
    found = subprocess.check_output([sys.executable, "-c", launcher], env=environment, text=True)
    assert int(found) == threads


@pytest.mark.parametrize("threads", [1, 4])
def test_results_come_in_the_order_of_the_items_and_errors_are_raised(monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))

    def slowest_first(item: int) -> int:
        time.sleep(0.01 * (3 - item))
        return 10 // item

    assert in_threads(slowest_first, [1, 2, 3]) == [10, 5, 3]
    with pytest.raises(ZeroDivisionError):
        in_threads(slowest_first, [1, 0])
