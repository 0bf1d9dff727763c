"""The state of a training as one file: numbers and texts as JSON beside the tensors of a safetensors file."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from trunkfold.errors import InputError
from trunkfold.files import whole_file

NESTED, DIGEST = "nested", "digest"  # in the file's metadata


def write_state(state: object, path: Path) -> None:
    """Write nested dicts, lists and tuples of tensors, numbers, texts and None; the old file stays until the new one is
    complete and was read back.

    Raises:
        TypeError: Something else is in it.
        InputError: Nothing can be written there, or the disk is full.
    """
    tensors: dict[str, torch.Tensor] = {}
    nested = json.dumps(_pack(state, tensors))
    with whole_file(path) as partial:
        partial.write_bytes(save(tensors, {NESTED: nested, DIGEST: _digest(nested, tensors)}))
        read_state(partial)


def read_state(path: Path) -> object:
    """What `write_state` wrote, its tensors on the CPU.

    Raises:
        InputError: The file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata[DIGEST] != _digest(metadata[NESTED], tensors):
            raise ValueError("its digest is another")
        return _unpack(json.loads(metadata[NESTED]), tensors)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): begin the run anew with --run.restart true") from error


def _pack(value: object, tensors: dict[str, torch.Tensor]) -> object:
    """The value as JSON knows it: what JSON has no word for is a list that begins with its kind."""
    if isinstance(value, torch.Tensor):
        tensors[str(len(tensors))] = value.detach().cpu().contiguous()
        return ["tensor", str(len(tensors) - 1)]
    if isinstance(value, dict):
        return ["dict", *([key, _pack(item, tensors)] for key, item in value.items())]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *(_pack(item, tensors) for item in value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a state cannot hold {type(value).__name__}")


def _unpack(value: object, tensors: dict[str, torch.Tensor]) -> object:
    if not isinstance(value, list):
        return value
    kind, *items = value
    if kind == "tensor":
        return tensors[items[0]]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in items}
    values = [_unpack(item, tensors) for item in items]
    return tuple(values) if kind == "tuple" else values


def _digest(nested: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.blake2b(nested.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
