"""Code in separate processes that start fast: forks of a server that has already imported torch."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from toys import leave_out_figures, run_command

STARTING = multiprocessing.get_context("forkserver")
STARTING.set_forkserver_preload(
    [*("trunkfold.report.page", "trunkfold.training.setup", "trunkfold.training.loop", "trunkfold.output.outputs")]
    + ["trunkfold.tuning.objective", "trunkfold.tuning.page", "trunkfold.tuning.study"]
)
SAID = "said.txt"  # in the folder: what all its commands printed


def without_figures() -> None:
    """Leave out what takes two thirds of a toy run, in this process."""
    leave_out_figures(pytest.MonkeyPatch())


def start(
    folder: Path,
    script: str,
    *words: object,
    environment: Mapping[str, str] | None = None,
    prepare: Callable = without_figures,
) -> multiprocessing.Process:
    """Start a command in `folder`; `prepare` is called in its process first."""
    process = STARTING.Process(target=_run, args=(folder, script, words, dict(environment or {}), prepare))
    process.start()
    return process


def run_ranks(processes: int, folder: Path, script: str, *words: object, seconds: float = 120) -> str:
    """Run a command as `accelerate launch --num_processes` would, and return what all its processes printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    before = len(_said(folder))
    environments = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    ranks = [start(folder, script, *words, environment=environment) for environment in environments]
    for rank in ranks:
        rank.join(seconds)
    codes = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
    said = _said(folder)[before:]
    assert codes == [0] * processes, said
    return said


def _said(folder: Path) -> str:
    return (folder / SAID).read_text() if (folder / SAID).exists() else ""


def _run(folder: Path, script: str, words: tuple, environment: dict[str, str], prepare: Callable) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    os.dup2(os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    prepare()
    run_command(script, *words)
