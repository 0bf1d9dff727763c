"""Labelled photos of a finished run: held-out ones to evaluate exports, training photos to calibrate int8."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from trunkfold.cores import usable_cores
from trunkfold.data.photos import UnreadablePhotoError, read_photo
from trunkfold.data.tables import find_table
from trunkfold.deploy.finished import FinishedRun
from trunkfold.errors import InputError, first_few
from trunkfold.evaluation.predictions import class_indices
from trunkfold.images.views import VIEWS, render
from trunkfold.split.dataset import side_to_keep
from trunkfold.split.folds import HELD_OUT, learned_from

BATCH = 32


@dataclass(frozen=True)
class PlainPhotos:
    """Photos preprocessed for an exported model, and their classes.

    Attributes:
        paths: File of each photo.
        targets: Class index of each photo.
        size: Side of the plain view in pixels.
    """

    paths: list[Path]
    targets: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, size: int = BATCH) -> Iterator[np.ndarray]:
        """Yield the plain views in order, as uint8 arrays of shape (up to `size`, 3, side, side)."""
        with ThreadPoolExecutor(usable_cores()) as pool:
            for start in range(0, len(self.paths), size):
                shown = pool.map(self._plain, self.paths[start : start + size])
                yield np.ascontiguousarray(np.stack(list(shown)).transpose(0, 3, 1, 2))

    def _plain(self, path: Path) -> np.ndarray:
        try:
            return render(read_photo(path, side_to_keep(self.size)), VIEWS["plain"], self.size)
        except UnreadablePhotoError as error:
            raise InputError(f"{path} cannot be read: {error}") from error


def held_out_photos(run: FinishedRun) -> PlainPhotos:
    """Return the held-out photos.

    Raises:
        InputError: The run has no hold-out, or photos are missing.
    """
    photos = _photos(run, run.folds[run.folds["fold"] == HELD_OUT])
    if not len(photos):
        raise InputError(f"{run.folder} has no hold-out (split.holdout 0), so the export's loss cannot be measured")
    return photos


def calibration_photos(run: FinishedRun, count: int) -> PlainPhotos:
    """Return up to `count` randomly chosen training photos.

    Raises:
        InputError: Some of them are missing.
    """
    table = run.folds[learned_from(run.folds["fold"].to_numpy())]
    return _photos(run, table.iloc[np.random.default_rng(0).permutation(len(table))[:count]])


def images_folder(run: FinishedRun) -> Path:
    """Return the folder of the labelled photos.

    Raises:
        InputError: The folder does not exist.
    """
    return find_table(run.config.data.root, "train.csv").parent / "images"


def _photos(run: FinishedRun, table: pd.DataFrame) -> PlainPhotos:
    folder = images_folder(run)
    paths = [folder / name for name in table["filename"]]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"{len(missing)} labelled photos of {run.folder} are missing: {first_few(missing)}")
    return PlainPhotos(paths, class_indices(table["label"], run.classes), run.config.data.image_size)
