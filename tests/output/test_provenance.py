"""Provenance is measured; unknown values are null."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from trunkfold.metrics import Sizes
from trunkfold.output.provenance import (
    commit,
    device_name,
    group_sizes,
    made_with,
    package_version,
    peak_memory,
    photo_sizes,
)


def git(folder: Path, *words: str) -> str:
    names = {f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, env=os.environ | names, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path) -> Path:
    (tmp_path / "module.py").write_text("first")
    (tmp_path / ".gitignore").write_text("ignored.py")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_commit_is_that_of_the_checkout_and_marked_when_files_differ_from_it(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert commit(checkout / "module.py") == head[:12]
    (checkout / "module.py").write_text("second")
    assert commit(checkout / "module.py") == head[:12] + "-dirty"


def test_tags_do_not_hide_the_commit(checkout):
    git(checkout, "tag", "-a", "v1", "-m", "v1")
    assert commit(checkout / "module.py") == git(checkout, "rev-parse", "HEAD")[:12]


def test_a_file_that_only_lies_in_a_checkout_has_no_commit(checkout, tmp_path_factory):
    (checkout / "ignored.py").write_text("installed here")
    assert commit(checkout / "ignored.py") is None
    outside = tmp_path_factory.mktemp("outside") / "module.py"
    outside.write_text("")
    assert commit(outside) is None


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit(checkout / "module.py") is None


def test_versions_are_those_that_are_installed():
    assert package_version("torch") == version("torch")
    assert package_version("no-such-package-here") is None


def test_the_device_is_named_with_its_cores():
    name = device_name(torch.device("cpu"))
    assert name.endswith(f", {os.cpu_count()} cores")
    assert len(name.partition(",")[0]) > 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells no peak")
def test_memory_is_the_peak_of_this_process():
    found = peak_memory(torch.device("cpu"))
    assert 0.05 < found.process < 1000
    assert found.gpu is None


def test_sizes_are_those_of_the_files(tmp_path):
    sizes = [(40, 30), (40, 30), (40, 30), (100, 10), (20, 50)]
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    paths = [*map(str, sorted(tmp_path.glob("*.png"))), str(tmp_path / "missing.png")]
    assert photo_sizes(paths) == Sizes(
        photos=5,
        width=[20, 40, 100],
        height=[10, 30, 50],
        frequent={"40 x 30": 3, "20 x 50": 1, "100 x 10": 1},
    )


def test_without_readable_files_there_are_no_sizes(tmp_path):
    assert photo_sizes([str(tmp_path / "missing.png")]).photos == 0


def test_only_the_heads_of_files_are_read(tmp_path):
    Image.new("RGB", (400, 300)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-900])  # its pixels are lost
    assert photo_sizes([str(tmp_path / "a.jpg")]).width == [400, 400, 400]


def test_groups_are_counted_by_size():
    assert group_sizes(pd.Series(list("aaabbbcd"))) == {"1": 2, "3": 2}


def test_all_of_it_for_a_competition(competition, accelerator):
    paths = sorted(map(str, competition.glob("train/train/images/*.png")))
    made = made_with(accelerator, paths, pd.Series(list("aab")))
    assert made.versions["peft"] == version("peft")
    assert made.processes == 1
    assert made.precision == "no"
    assert made.data.sizes.photos == 90
    assert made.data.group_sizes == {"1": 1, "2": 1}
