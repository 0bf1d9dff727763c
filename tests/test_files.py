"""Files are written atomically."""

import os

import pandas as pd
import pytest

from trunkfold.errors import InputError, WriteError
from trunkfold.files import locked_folder, whole_file, whole_folder, write_csv, write_text


def fail_amid_writing(path):
    with whole_file(path) as partial:
        partial.write_text("half of the ne")
        raise OSError("disk full")


def test_a_file_is_replaced_when_all_is_written(tmp_path):
    write_text("old", tmp_path / "a.txt")
    write_text("new é", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new é"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_old_file_stays_when_writing_fails(tmp_path):
    write_text("old", tmp_path / "a.txt")
    with pytest.raises(WriteError, match=r"cannot write .*a\.txt \(disk full\)"):
        fail_amid_writing(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_no_file_appears_when_writing_fails(tmp_path):
    with pytest.raises(WriteError, match="disk full"):
        fail_amid_writing(tmp_path / "a.txt")
    assert os.listdir(tmp_path) == []


def test_a_new_folder_is_complete_or_absent(tmp_path):
    new = tmp_path / "below/new"
    with whole_folder(new) as partial:
        (partial / "file").touch()
        assert not new.exists()
    assert os.listdir(new.parent) == ["new"]
    assert new.stat().st_mode == new.parent.stat().st_mode
    with (
        pytest.raises(InputError, match=r"cannot write to .* \(disk full\): choose another"),
        whole_folder(tmp_path / "a"),
    ):
        raise OSError(28, "disk full")
    assert os.listdir(tmp_path) == ["below"]


def test_only_write_errors_amid_a_locked_folder_suggest_another_folder(tmp_path):
    """Not those of a data-loader worker that died, for example."""
    with pytest.raises(ConnectionResetError), locked_folder(tmp_path / "cache", "--cache.dir"):
        raise ConnectionResetError
    refused = pytest.raises(InputError, match="disk full.*; or choose another --cache.dir")
    with refused, locked_folder(tmp_path / "cache", "--cache.dir"):
        fail_amid_writing(tmp_path / "a.txt")


def test_probabilities_keep_eight_digits(tmp_path):
    write_csv(pd.DataFrame({"image_id": ["007"], "p": [1 / 3]}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "image_id,p\n007,0.33333333\n"
