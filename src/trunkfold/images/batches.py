"""Fold-balanced training batches, and datasets of photos."""

import functools
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import Dataset

from trunkfold.config.schema import DataConfig
from trunkfold.cores import cores_of_process, local_processes, usable_cores
from trunkfold.errors import InputError, counted
from trunkfold.images.augmentation import Augmentation
from trunkfold.images.views import View, render
from trunkfold.images.workers import PIECE, photo_named
from trunkfold.split.folds import ONLY_LEARNED

logger = logging.getLogger(__name__)
SHARED = Path("/dev/shm")
BYTES_PER_PIXEL = 6  # float16 features of an empty trunk; photos take 3
cv2.setNumThreads(0)  # photos are too small for several threads, and threads of forked workers can deadlock


class FoldBalancedBatches:
    """Batches with equal numbers of photos of each fold; with a single fold, batches of its training photos.

    Each fold is an endless stream of shuffled passes over its photos: nothing is dropped at the end of an epoch, and no
    photo (or group) is repeated within a pass. The stream is a function of the seed, so that each process can compute
    its share of any batch independently.

    Iterating yields this process's batches of the next epoch as lists of (row, visit), with `rows_per_fold` rows of
    each fold in order of folds; `visit` is the number of earlier visits of the row.

    Attributes:
        folds: Number of folds and tails.
        rows_per_fold: Rows of each fold in this process's share of a batch.
        batch_rows_learned: Photos of a batch, over all processes, that each tail trains on.
        epoch: Number of started epochs.
    """

    def __init__(
        self,
        fold_of_row: np.ndarray,
        batch_size: int,
        seed: int,
        accelerator: Accelerator,
        group_of_row: np.ndarray | None = None,
    ) -> None:
        """Plan the batches.

        Args:
            fold_of_row: Fold of each row, -1 for held-out rows, -2 for rows that are only trained on; shape (rows,).
            batch_size: Photos per batch over all processes, a multiple of the number of folds.
            accelerator: Accelerator whose processes share each batch.
            group_of_row: Group of each row, to visit one row per group and pass, a different one each time; None
                visits all rows.

        Raises:
            InputError: The batch size is smaller than folds x processes.
        """
        groups = np.arange(len(fold_of_row)) if group_of_row is None else group_of_row
        self.folds = int(fold_of_row.max()) + 1
        parts = range(self.folds) if self.folds > 1 else [ONLY_LEARNED]
        self.rows_of_part = [_Groups(groups, fold_of_row == part) for part in parts]
        self.batch_rows_per_fold = batch_size // len(parts)
        self.places = range(accelerator.process_index, self.batch_rows_per_fold, accelerator.num_processes)
        if self.batch_rows_per_fold < accelerator.num_processes:
            raise InputError(
                f"train.batch_size {batch_size} is too small for {self.folds} folds on {accelerator.num_processes} "
                f"processes: use at least {self.folds * accelerator.num_processes}"
            )
        self.rows_per_fold = len(self.places)
        self.batch_rows_learned = self.batch_rows_per_fold * max(self.folds - 1, 1)
        self.seed = seed
        self.epoch = self.first_step = 0
        self._orders: dict[int, tuple[int, np.ndarray]] = {}  # current pass of each fold
        learning = sum(map(len, self.rows_of_part))
        self.steps = max(1, round(learning / (self.batch_rows_per_fold * len(parts))))

    def __len__(self) -> int:
        return self.steps

    def begin(self, epoch: int, step: int) -> None:
        """Set the epoch (counted from 1) and the step at which the next iteration starts."""
        self.epoch, self.first_step = epoch - 1, step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        begun, done, self.epoch, self.first_step = self.epoch, self.first_step, self.epoch + 1, 0
        for step in range(begun * self.steps + done, (begun + 1) * self.steps):
            first = step * self.batch_rows_per_fold
            yield [self._draw(part, first + place) for part in range(len(self.rows_of_part)) for place in self.places]

    def _draw(self, part: int, position: int) -> tuple[int, int]:
        number, place = divmod(position, len(self.rows_of_part[part]))  # number of the pass
        group = self._order(part, number)[place]
        rows = self.rows_of_part[part][group]
        # Groups start at different copies; otherwise the first epoch would contain only first copies.
        return int(rows[(group + number) % len(rows)]), number // len(rows)

    def _order(self, part: int, number: int) -> np.ndarray:
        if self._orders.get(part, (None, None))[0] != number:
            order = np.random.default_rng([self.seed, part, number]).permutation(len(self.rows_of_part[part]))
            self._orders[part] = number, order
        return self._orders[part][1]


class _Groups:
    """Rows by group, stored in two flat arrays, as one array per group would take 100 times the memory."""

    def __init__(self, group_of_row: np.ndarray, chosen: np.ndarray) -> None:
        rows = np.flatnonzero(chosen)
        self.rows = rows[np.argsort(group_of_row[rows], kind="stable")]
        self.bounds = np.r_[0, np.flatnonzero(np.diff(group_of_row[self.rows])) + 1, len(rows)]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, group: int) -> np.ndarray:
        return self.rows[self.bounds[group] : self.bounds[group + 1]]


class TrainingPhotos(Dataset):
    """Augmented photos by (row, visit): uint8 tensors of shape (size, size, 3), and the class index."""

    def __init__(self, pixels: Sequence[np.ndarray], targets: np.ndarray, augment: Augmentation, seed: int) -> None:
        self.pixels, self.targets, self.augment, self.seed = pixels, targets, augment, seed

    def __getitem__(self, draw: tuple[int, int]) -> tuple[torch.Tensor, int]:
        row, visit = draw
        seed = int(np.random.SeedSequence([self.seed, row, visit]).generate_state(1)[0])
        with photo_named(self.pixels, row):
            return to_tensor(self.augment(self.pixels[row], seed)), int(self.targets[row])


class ViewedPhotos(Dataset):
    """A view of photos by row: uint8 tensors of shape (side, side, 3)."""

    def __init__(self, pixels: Sequence[np.ndarray], view: View, size: int) -> None:
        self.pixels, self.view, self.size = pixels, view, size

    def __getitem__(self, row: int) -> torch.Tensor:
        with photo_named(self.pixels, row):
            return to_tensor(render(self.pixels[row], self.view, self.size))


def choose_workers(data: DataConfig, accelerator: Accelerator) -> int:
    """Return the number of data-loader workers per process.

    If `data.workers` is None, this is the process's share of the cores with a GPU, and 0 on a CPU. The number is
    limited, with a warning, by the share of the cores and of shared memory, since workers are killed if it is full.
    """
    cores, processes, wanted = cores_of_process(), local_processes(), data.workers
    if wanted is None:
        wanted = cores if accelerator.device.type == "cuda" else 0
    room = math.inf  # on systems without this limit
    if SHARED.is_dir():  # each worker holds two pieces
        room = shutil.disk_usage(SHARED).free // (processes * 2 * PIECE * BYTES_PER_PIXEL * data.image_size**2)
    for most, reason in (
        (cores, f"there are {counted(usable_cores(), 'usable core')}"),
        (room, f"{SHARED} is too small for more (enlarge it with docker run --shm-size 2g)"),
    ):
        if wanted > most:
            _warn_of_workers(wanted, most, reason, processes)
            wanted = most
    return wanted


@functools.cache  # warn once per run, not once per loader
def _warn_of_workers(wanted: int, most: int, reason: str, processes: int) -> None:
    share = f", shared by {processes} processes" if processes > 1 else ""
    logger.warning("data.workers %d is reduced to %d: %s%s", wanted, most, reason, share)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Convert pixels to a tensor, sharing memory if it is writable."""
    return torch.from_numpy(np.require(pixels, requirements="W"))
