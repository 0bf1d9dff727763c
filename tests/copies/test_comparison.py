"""Processes compare pairs as threads do, and what goes wrong in them is one clear error."""

import os
import pickle
import signal
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from toys import SOURCE

from trunkfold.copies import comparison
from trunkfold.copies.cells import measure_cells
from trunkfold.copies.comparison import compare_pairs, start_workers
from trunkfold.copies.evidence import compare
from trunkfold.copies.record import MAPPED, RECORD, Records, _map
from trunkfold.errors import InputError


def test_records_are_those_of_the_files_here_and_in_other_processes(records):
    together = np.concatenate([np.load(file) for file in records._files])
    assert len(records) == len(together) == 8
    packed = pickle.dumps(records)
    assert len(packed) < RECORD.itemsize / 100  # the paths of the files
    for some in (records, pickle.loads(packed)):
        assert b"".join(record.tobytes() for record in some) == together.tobytes()
    assert records[4:7] == list(together[4:7])
    np.testing.assert_array_equal(records.embeddings(), together["embedding"])


def test_records_of_some_rows_are_numbered_by_these_rows(records):
    chosen = records.of([6, 1, 4])
    assert [record.tobytes() for record in chosen] == [records[row].tobytes() for row in (6, 1, 4)]
    assert len(chosen) == 3
    assert chosen.of([7])[0].tobytes() == records[7].tobytes()


def test_few_files_are_mapped_at_a_time(records):
    files = [Path(records._files[0]).with_name(f"one-{number}.npy") for number in range(20)]
    for file in files:
        np.save(file, np.array([records[0]], RECORD))
    assert len(Records(files).embeddings()) == 20
    assert _map.cache_info().currsize <= MAPPED


@pytest.mark.parametrize("processes", [True, False], ids=["processes", "threads"])
def test_workers_give_the_evidence_of_each_pair_in_order(processes, records, monkeypatch):
    monkeypatch.setattr(comparison, "PART", 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    pairs = list(combinations(range(8), 2))
    statistics = measure_cells(records)
    with start_workers(2, processes) as workers:
        elsewhere = workers.submit(os.getpid).result() != os.getpid()
        threads = workers.submit(os.getenv, "OMP_NUM_THREADS").result()
        found = compare_pairs(workers, records, pairs, statistics)
    assert elsewhere == processes
    assert not processes or threads == "1"
    assert found == [compare(records[one], records[other], statistics) for one, other in pairs]
    assert len({evidence.log_odds > 0 for evidence in found}) == 2


def test_no_pairs_are_no_evidence(records):
    with start_workers(2, True) as workers:
        assert compare_pairs(workers, records, [], measure_cells(records)) == []


def test_a_process_that_dies_is_one_error_which_says_what_to_do():
    with (
        pytest.raises(InputError, match="free memory, then rerun; finished blocks"),
        start_workers(2, True) as workers,
    ):
        workers.submit(signal.raise_signal, signal.SIGKILL).result()


def test_a_process_that_compares_does_not_import_torch():
    """It would take longer to start than to compare a thousand pairs."""
    code = "import sys, trunkfold.copies.comparison; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SOURCE)
    assert not {"torch", "pandas"} & set(imported.stdout.split())
