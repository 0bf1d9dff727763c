"""A state is restored unchanged or reported as damaged; the previous one is kept until then."""

import math

import pytest
import torch

from trunkfold.errors import InputError
from trunkfold.training.checkpoint import read_state, write_state

STATE = {
    "epoch": 3,
    "history": [{"loss": 0.1 + 0.2, "lr": 1e-300, "name": "tail"}, {}],
    "optimizer": {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(3, 4).T}, 1: {}},
    "betas": (0.9, (0.99, None)),
    "flags": [True, False, None, "", "ü\n"],
    "odd": [
        math.inf,
        -math.inf,
        torch.zeros(0),
        torch.arange(5, dtype=torch.uint8),
        torch.ones(2, dtype=torch.bfloat16),
    ],
}


def same(one, two) -> bool:
    """Equal in values, types, and the types of what is nested."""
    if type(one) is not type(two):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def test_a_state_comes_back_as_it_was(tmp_path):
    write_state(STATE, tmp_path / "state")
    assert same(read_state(tmp_path / "state"), STATE)


def test_not_a_number_comes_back(tmp_path):
    write_state([math.nan], tmp_path / "state")
    assert math.isnan(read_state(tmp_path / "state")[0])


def test_any_damaged_byte_is_seen(tmp_path):
    write_state(STATE, tmp_path / "state")
    whole = (tmp_path / "state").read_bytes()
    for place in range(0, len(whole), 7):
        (tmp_path / "state").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"state is damaged.*--run\.restart"):
            read_state(tmp_path / "state")


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00.", b"<html></html>", b"\x00" * 8])
def test_what_is_no_state_is_refused(tmp_path, content):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(InputError, match="state is damaged"):
        read_state(tmp_path / "state")


def test_a_part_of_a_state_is_refused(tmp_path):
    write_state(STATE, tmp_path / "state")
    whole = (tmp_path / "state").read_bytes()
    for length in range(0, len(whole), 50):
        (tmp_path / "state").write_bytes(whole[:length])
        with pytest.raises(InputError, match="state is damaged"):
            read_state(tmp_path / "state")


def test_what_does_not_read_back_does_not_replace_the_last_state(tmp_path, monkeypatch):
    write_state(["old"], tmp_path / "state")
    monkeypatch.setattr("trunkfold.training.checkpoint._digest", lambda *_: str(torch.rand(1)))
    with pytest.raises(InputError, match="damaged"):
        write_state(["new"], tmp_path / "state")
    monkeypatch.undo()
    assert read_state(tmp_path / "state") == ["old"]


def test_only_what_can_come_back_is_taken(tmp_path):
    with pytest.raises(TypeError, match="cannot contain set"):
        write_state({"a": {1}}, tmp_path / "state")
