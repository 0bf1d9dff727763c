"""Benchmarks for GPUs run on a simulated one, and print its name."""

import json
import sys
from pathlib import Path

import pytest
from pretended_gpu import PretendedGpu, needs_pretended_gpu

BENCHMARKS = Path(__file__).parent / "benchmarks"
SMALL = ["--model", "test_convnext", "--size", "64", "--folds", "3", "--batch", "12"]


@pytest.fixture
def run_benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def run(name: str, *args: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *SMALL, *map(str, args)])
        with PretendedGpu():
            __import__(name).main()

    return run


@pytest.mark.slow
@needs_pretended_gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_bench_lockstep_runs_on_a_gpu_and_names_it(run_benchmark, tmp_path, capsys, precision):
    run_benchmark("bench_lockstep", "--pairs", 1, "--precision", precision, "--json", tmp_path / "found.json")
    assert "a pretended GPU" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["device"] == "a pretended GPU"
    assert len(found["results"]) == 3


@pytest.mark.slow
@needs_pretended_gpu
def test_bench_epoch_runs_on_a_gpu_and_names_it(run_benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    machine = __import__("machine")
    monkeypatch.setattr(machine, "peak_operations", lambda *_: 1e12)  # a product of 8,192 rows, and of 2 GB
    monkeypatch.setattr(machine, "peak_bytes", lambda *_: 1e12)
    monkeypatch.setattr(__import__("bench_epoch"), "PEERS", {})  # timm's loader opens a stream of the card
    options = ["--model", "test_convnext", "--size", 32, "--photos", 108, "--rounds", 1, "--epochs", 1, "--workers", 0]
    options += ["--precision", "bf16", "--work", tmp_path / "work", "--json", tmp_path / "found.json"]
    run_benchmark("bench_epoch", *options)
    assert "a pretended GPU" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["machine"]["name"] == "a pretended GPU"
    assert list(found["ways"]) == ["trunkfold, all folds in lockstep", "trunkfold, cached views"]
    assert {part["name"] for part in found["parts"]} >= {"trunk, forward", "tails, backward", "validation"}
