"""When the state of a training is saved, and when the training has to stop."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from trunkfold.config.schema import TrainConfig
from trunkfold.errors import InputError, OutOfTime
from trunkfold.training.states import read_state, write_state

STATE = "state.safetensors"  # in a run's folder, as long as it is not finished
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
