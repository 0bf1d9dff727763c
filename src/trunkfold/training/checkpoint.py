"""The state of a training: when it is saved, when the training has to stop, and its file.

The file holds numbers and texts as JSON beside the tensors of a safetensors file.
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
from trunkfold.errors import InputError, OutOfTime
from trunkfold.files import whole_file

NESTED, DIGEST = "nested", "digest"  # in the file's metadata
ANOTHER = "give this one another --run.name, or begin anew with --run.restart true"


class Checkpoint:
    """A file with the state of a training: written now and then, and read when the same training begins again."""

    def __init__(self, path: Path, accelerator: Accelerator, config: TrainConfig, photos: str, started: float) -> None:
        """Read what there is to go on from.

        Args:
            path: The file.
            accelerator: Its first process writes.
            config: How often to save, and how many hours there are.
            photos: Key of the photos that are learned from; a state of others is refused.
            started: When they began, on the monotonic clock.
        """
        self.path, self.accelerator, self.photos = path, accelerator, photos
        self.minutes, self.hours, self.started = config.save_minutes, config.max_hours, started
        self.saved = self.looked = time.monotonic()
        self.longest_gap = self.longest_save = 0.0

    def read(self) -> dict | None:
        """The state that was saved last; None where there is none.

        Raises:
            InputError: The file is damaged, or was made with other photos.
        """
        main = self.accelerator.is_main_process  # the others may be on machines without the run's folder
        (state,) = broadcast_object_list([read_state(self.path) if main and self.path.exists() else None])
        if state is not None and state["photos"] != self.photos:
            raise InputError(f"the photos are not those that {self.path.parent} was begun with: {ANOTHER}")
        return state

    def look(self) -> tuple[bool, bool]:
        """Whether it is time to save, and whether to stop; of several processes, the first one's word counts.

        To stop in time, there have to be two more of the longest saving and of the longest gap between two looks.
        """
        now = time.monotonic()
        self.longest_gap, self.looked = max(self.longest_gap, now - self.looked), now
        needed = 2 * (self.longest_gap + self.longest_save)
        stop = self.hours is not None and now - self.started + needed > 3600 * self.hours
        return stop or now - self.saved >= 60 * self.minutes, stop

    def write(self, make_state: Callable[[], dict]) -> None:
        """Save a state; all processes have to call it, and the first one writes."""
        begun, state = time.monotonic(), {"photos": self.photos, **make_state()}
        if self.accelerator.is_main_process:
            write_state(state, self.path)
        self.saved = self.looked = time.monotonic()
        self.longest_save = max(self.longest_save, self.saved - begun)

    def stop(self, epoch: int) -> None:
        """End the training, which can be continued.

        Raises:
            OutOfTime: Always.
        """
        raise OutOfTime(
            f"stopped in epoch {epoch}, before train.max_hours {self.hours:g} are over; all is saved: "
            "the same command goes on"
        )


def random_state(accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """Where the random numbers of all processes stand: a row for each of them."""
    states = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    return {name: accelerator.gather(state[None].to(accelerator.device)) for name, state in states.items()}


def restore_random_state(accelerator: Accelerator, states: dict[str, torch.Tensor]) -> None:
    """Go on with the numbers of `random_state`, unless now there are more processes or another device than then."""
    place = accelerator.process_index
    if place < len(states["cpu"]):
        # Copies, because PyTorch reads a state from where its memory begins, even that of a row.
        torch.set_rng_state(states["cpu"][place].cpu().clone())
        if "cuda" in states and accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"][place].cpu().clone(), accelerator.device)


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
