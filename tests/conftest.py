"""Fixtures shared by several tests."""

import gc
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a test process takes one core

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from toys import leave_out_figures, write_competition


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the tests with the longest time limits first, so that no process works alone at the end."""
    items.sort(key=lambda item: -max((mark.args[0] for mark in item.iter_markers("timeout")), default=0))


def pytest_collection_finish() -> None:
    """Keep what the imports made out of later garbage collections: millions of objects, and training collects often."""
    gc.freeze()


@pytest.fixture
def competition(tmp_path: Path) -> Path:
    """A fresh toy competition: 90 labelled photos of 30 sources, 12 unlabelled ones of 4; three classes."""
    return write_competition(tmp_path / "input")


@pytest.fixture(autouse=True)
def _fresh_accelerate_state() -> Iterator[None]:
    """Accelerate refuses a second precision in one process, and a study mutes the log; a command has one to itself.

    Afterwards too: fixtures of a whole module are set up before this one.
    """
    logging.getLogger("trunkfold").setLevel(logging.NOTSET)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_figures(monkeypatch)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium or Chrome."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'"
    )
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip("there is no Chromium or Chrome on the PATH")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()
