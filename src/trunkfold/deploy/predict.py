"""Streaming prediction of photos with a finished run; memory does not depend on their number."""

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from trunkfold.cores import usable_cores
from trunkfold.data.photos import UnreadablePhotoError, encode_jpeg, read_photo
from trunkfold.deploy.finished import FinishedRun
from trunkfold.errors import InputError, first_few
from trunkfold.evaluation.calibration import scale
from trunkfold.evaluation.predictions import average
from trunkfold.files import write_bytes
from trunkfold.images.batches import to_tensor
from trunkfold.images.views import VIEWS, render
from trunkfold.model.device_memory import PREDICTING, in_pieces
from trunkfold.model.embeddings import pool_features
from trunkfold.model.ensemble import predict
from trunkfold.model.features import through_trunk
from trunkfold.model.gradcam import heat_maps
from trunkfold.model.half_precision import on_device
from trunkfold.output.thumbnails import overlay
from trunkfold.split.dataset import side_to_keep

SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm", ".pgm"]
)
STEM_BYTES = 200  # of a photo's name in that of its heat map; file names have at most 255, also while being written
BATCH = 64  # photos per batch; the next batch is decoded during prediction


@dataclass(frozen=True)
class Predicted:
    """Predictions of a batch of photos.

    Attributes:
        probabilities: Mean over tails and views, as in test_probabilities.csv; shape (photos, classes).
        embeddings: Unit vectors of shape (photos, width).
        rows: Label, name, confidence, novelty, unlike_training and probabilities of each photo, see `predict_files`.
    """

    probabilities: np.ndarray
    embeddings: np.ndarray
    rows: list[dict]


class Predictor:
    """A finished run on a device.

    Attributes:
        run: The finished run.
        side: Short side in pixels to which `read_photo` reduces photos.
        batch_size: Photos per batch.
    """

    def __init__(self, run: FinishedRun, accelerator: Accelerator) -> None:
        self.run, self.accelerator = run, accelerator
        self.trunk = on_device(accelerator, run.trunk)
        self.tails = [on_device(accelerator, tail) for tail in run.tails]
        self.size = run.config.data.image_size
        self.side, self.batch_size = side_to_keep(self.size), run.config.predict.batch_size or BATCH

    @torch.no_grad()
    def predict(self, photos: Sequence[np.ndarray]) -> Predicted:
        """Predict decoded photos, uint8 arrays of shape (height, width, 3), in one batch.

        Raises:
            InputError: The predictions are not finite.
        """
        rows, members = np.arange(len(photos)), np.ones((len(photos), len(self.tails)), bool)
        views = self.run.config.predict.views
        compute = partial(through_trunk, self.accelerator, self.trunk)
        features = {view: in_pieces(compute, self._shown(photos, view), PREDICTING) for view in {*views, "plain"}}
        found = predict(self.accelerator, self.tails, members, [[(rows, features[view])] for view in views])
        probabilities = average(found, members)
        if not np.isfinite(probabilities).all():
            name = self.run.folder.name
            raise InputError(
                f"the predictions of {name} are not finite: set train.mixed_precision to no in its config.yaml, or "
                "choose another --run"
            )
        embeddings = pool_features(features["plain"]).cpu().numpy()
        known = self.run.known
        novelty = np.full(len(photos), np.nan) if known is None else known.novelty(embeddings)
        calibrated = scale(probabilities, self.run.metrics.temperature)
        rows = [self._row(*values) for values in zip(probabilities, calibrated, novelty, strict=True)]
        return Predicted(probabilities, embeddings, rows)

    def explain(self, photos: Sequence[np.ndarray], predicted: Predicted) -> list[np.ndarray]:
        """Overlay each photo with a Grad-CAM heat map of its most probable class.

        Args:
            photos: See `predict`.
            predicted: Their predictions.

        Returns:
            uint8 arrays of shape (height, width, 3).
        """
        members = np.ones((len(photos), len(self.tails)), bool)
        shown, targets = self._shown(photos, "plain"), torch.as_tensor(predicted.probabilities.argmax(1))
        heats = heat_maps(self.accelerator, self.trunk, self.tails, shown, targets, members)
        return [overlay(photo, heat) for photo, heat in zip(photos, heats, strict=True)]

    def _shown(self, photos: Sequence[np.ndarray], view: str) -> torch.Tensor:
        shown = [to_tensor(render(photo, VIEWS[view], self.size)) for photo in photos]
        return torch.stack(shown).permute(0, 3, 1, 2)

    def _row(self, probabilities: np.ndarray, calibrated: np.ndarray, novelty: float) -> dict:
        # The most probable class, since decoding for macro F1 would depend on the other photos.
        classes, best = self.run.classes, probabilities.argmax()
        label = list(classes)[best]
        return {
            "label": label,
            "name": classes[label],
            "confidence": float(calibrated[best]),
            "novelty": None if np.isnan(novelty) else float(novelty),
            "unlike_training": None if np.isnan(novelty) else bool(novelty > 1),
            "probabilities": dict(zip(classes.values(), calibrated.tolist(), strict=True)),
        }


def find_photos(words: Sequence[str]) -> list[Path]:
    """Expand files, folders (recursively) and glob patterns to photo files, without duplicates.

    Raises:
        InputError: A file does not exist, or a folder or pattern matches no photo; one message lists all of them.
    """
    found: dict[Path, None] = {}
    missing = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            paths = _photos_below(path)
        elif path.exists():
            paths = [path]
        else:
            paths = [Path(name) for name in sorted(glob.glob(word, recursive=True)) if Path(name).is_file()]
        if not paths:
            missing.append(f"{word} ({'a folder without photos' if path.is_dir() else 'not found'})")
        found.update(dict.fromkeys(paths))
    if missing:
        raise InputError(
            f"no photos in {first_few(missing)}: pass photo files, folders with files ending in "
            f"{', '.join(sorted(SUFFIXES))}, or patterns such as 'photos/*.jpg'"
        )
    return list(found)


def predict_files(predictor: Predictor, paths: Sequence[Path], heatmaps: Path | None = None) -> Iterator[dict]:
    """Predict photo files in order, decoding the next batch in the background.

    Args:
        heatmaps: Folder for Grad-CAM overlays; None writes none.

    Yields:
        One row per photo: path, label (of the most probable class), name, confidence (probability of the label),
        novelty (distance to the nearest training photo, relative to the threshold), unlike_training (novelty above 1),
        probabilities (calibrated, by class name), heatmap (file name), and problem (why the photo could not be read).
        Unknown values are None, such as novelty if the run has no embeddings.

    Raises:
        InputError: A heat map cannot be written.
    """
    starts = range(0, len(paths), predictor.batch_size)
    batches = [paths[start : start + predictor.batch_size] for start in starts]
    with ThreadPoolExecutor(usable_cores()) as pool, tqdm(total=len(paths), desc="predicting", unit="photo") as bar:
        decoding = (pool.map(partial(_decode, side=predictor.side), batch) for batch in batches)
        ahead = next(decoding, None)
        for start, batch in zip(starts, batches, strict=True):
            decoded, ahead = ahead, next(decoding, None)
            yield from _rows(predictor, start, batch, list(decoded), heatmaps)
            bar.update(len(batch))


def _rows(
    predictor: Predictor, start: int, paths: Sequence[Path], photos: Sequence[np.ndarray | str], heatmaps: Path | None
) -> list[dict]:
    """Return the rows of a batch of photos, or reasons why they cannot be decoded, that starts with photo `start`."""
    unknown = dict.fromkeys(["label", "name", "confidence", "novelty", "unlike_training", "probabilities", "heatmap"])
    problems = [photo if isinstance(photo, str) else None for photo in photos]
    rows = [{"path": str(path), **unknown, "problem": problem} for path, problem in zip(paths, problems, strict=True)]
    readable = [place for place, problem in enumerate(problems) if problem is None]
    if not readable:
        return rows
    shown = [photos[place] for place in readable]
    predicted = predictor.predict(shown)
    for place, row in zip(readable, predicted.rows, strict=True):
        rows[place] |= row
    if heatmaps is not None:
        for place, picture in zip(readable, predictor.explain(shown, predicted), strict=True):
            rows[place]["heatmap"] = _heatmap_name(start + place + 1, paths[place])
            write_bytes(encode_jpeg(picture, 90), heatmaps / rows[place]["heatmap"])
    return rows


def _heatmap_name(number: int, path: Path) -> str:
    """Return a file name that is unique by its number; the photo's name is cut to fit the limit of file systems."""
    return f"{number:06}-{os.fsencode(path.stem)[:STEM_BYTES].decode(errors='ignore')}.jpg"


def _decode(path: Path, side: int) -> np.ndarray | str:
    """Return the pixels, or the reason why the photo cannot be decoded."""
    try:
        return read_photo(path, side)
    except UnreadablePhotoError as error:
        return str(error)


def _photos_below(folder: Path) -> list[Path]:
    """Return the photo files in a folder and its subfolders, sorted by name, without hidden ones."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        kept = (name for name in sorted(files) if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES)
        found += [Path(place) / name for name in kept]
    return found
