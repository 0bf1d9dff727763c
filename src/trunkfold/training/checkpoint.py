"""Training checkpoints: when to save, when to stop, and the file format.

The format is safetensors, with numbers and strings as JSON in its metadata.
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from trunkfold.config.schema import TrainConfig
from trunkfold.errors import InputError
from trunkfold.files import whole_file

NESTED, DIGEST = "nested", "digest"  # keys of the file's metadata
ANOTHER = "choose another --run.name, or start from scratch with --run.restart true"


class Checkpoint:
    """A file with the training state, written periodically and read to resume."""

    def __init__(self, path: Path, accelerator: Accelerator, config: TrainConfig, photos: str, started: float) -> None:
        """Set up the schedule of checkpoints.

        Args:
            accelerator: Accelerator whose first process writes.
            photos: Key of the training photos; states with another key are rejected.
            started: Start of the time limit, on the monotonic clock.
        """
        self.path, self.accelerator, self.photos = path, accelerator, photos
        self.minutes, self.hours, self.started = config.save_minutes, config.max_hours, started
        self.saved = self.looked = time.monotonic()
        self.longest_gap = self.longest_save = 0.0

    def read(self) -> dict | None:
        """Read the last saved state; None if there is none.

        Raises:
            InputError: The file is damaged, or was written for different photos.
        """
        main = self.accelerator.is_main_process  # other machines may not have the run's folder
        (state,) = broadcast_object_list([read_state(self.path) if main and self.path.exists() else None])
        if state is not None and state["photos"] != self.photos:
            raise InputError(f"the photos have changed since {self.path.parent} was started: {ANOTHER}")
        return state

    def look(self) -> tuple[bool, bool]:
        """Return whether to save and whether to stop; the first process decides.

        Training stops early enough to allow for twice the longest save plus twice the longest gap between two calls of
        this method or of `write`.
        """
        now = self._end_gap()
        needed = 2 * (self.longest_gap + self.longest_save)
        stop = self.hours is not None and now - self.started + needed > 3600 * self.hours
        return stop or now - self.saved >= 60 * self.minutes, stop

    def write(self, make_state: Callable[[], dict]) -> None:
        """Save a state; all processes must call this, and the first one writes."""
        begun, state = self._end_gap(), {"photos": self.photos, **make_state()}
        if self.accelerator.is_main_process:
            write_state(state, self.path)
        self.saved = self.looked = time.monotonic()
        self.longest_save = max(self.longest_save, self.saved - begun)

    def _end_gap(self) -> float:
        """Return the time, and keep the gap since the last call if it is the longest."""
        now = time.monotonic()
        self.longest_gap, self.looked = max(self.longest_gap, now - self.looked), now
        return now


def random_state(accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """Return the states of the random generators of all processes, one row per process."""
    states = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    return {name: accelerator.gather(state[None].to(accelerator.device)) for name, state in states.items()}


def restore_random_state(accelerator: Accelerator, states: dict[str, torch.Tensor]) -> None:
    """Restore the result of `random_state`, as far as processes and device are unchanged."""
    place = accelerator.process_index
    if place < len(states["cpu"]):
        # Copies, because PyTorch ignores the storage offset of a row.
        torch.set_rng_state(states["cpu"][place].cpu().clone())
        if "cuda" in states and accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"][place].cpu().clone(), accelerator.device)


def write_state(state: object, path: Path) -> None:
    """Write nested dicts, lists and tuples of tensors, numbers, strings and None.

    The previous file is replaced only after the new one has been read back.

    Raises:
        TypeError: The state contains another type.
        InputError: The file cannot be written, or the disk is full.
    """
    tensors: dict[str, torch.Tensor] = {}
    nested = json.dumps(_pack(state, tensors))
    with whole_file(path) as partial:
        partial.write_bytes(save(tensors, {NESTED: nested, DIGEST: _digest(nested, tensors)}))
        read_state(partial)


def read_state(path: Path) -> object:
    """Read the result of `write_state`, with tensors on the CPU.

    Raises:
        InputError: The file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata[DIGEST] != _digest(metadata[NESTED], tensors):
            raise ValueError("its digest differs")
        return _unpack(json.loads(metadata[NESTED]), tensors)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): start from scratch with --run.restart true") from error


def _pack(value: object, tensors: dict[str, torch.Tensor]) -> object:
    """Convert a value to JSON types; containers and tensors become lists that start with their type."""
    if isinstance(value, torch.Tensor):
        tensors[str(len(tensors))] = value.detach().cpu().contiguous()
        return ["tensor", str(len(tensors) - 1)]
    if isinstance(value, dict):
        return ["dict", *([key, _pack(item, tensors)] for key, item in value.items())]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *(_pack(item, tensors) for item in value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a state cannot contain {type(value).__name__}")


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
