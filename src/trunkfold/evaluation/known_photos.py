"""Novelty of a photo: its distance to the nearest training photo of a run.

Nearest neighbours among unit vectors detect out-of-distribution photos (Sun et al. 2022,
https://arxiv.org/abs/2204.06507) without assumptions about the training distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from trunkfold.errors import InputError
from trunkfold.run_folder import RunFolder
from trunkfold.split.folds import learned_from

FLAGGED = 0.01  # share of out-of-fold photos beyond the threshold
SCORED = 2000  # maximum number of out-of-fold photos to fit the threshold on
ROWS = 512  # photos per block of distances


@dataclass(frozen=True)
class KnownPhotos:
    """Embeddings of a run's training photos, and the distance beyond which a photo is novel.

    Attributes:
        embeddings: Unit vectors, float32 of shape (photos, width).
        rows: Row of each training photo in folds.csv.
        threshold: Distance exceeded by 1 % of the run's out-of-fold photos.
    """

    embeddings: np.ndarray
    rows: np.ndarray
    threshold: float

    def novelty(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the distance of unit vectors (photos, width) to the nearest training photo, in units of the threshold.

        Above 1 a photo is novel.
        """
        return _nearest(embeddings, self.embeddings) / self.threshold

    def nearest(self, embedding: np.ndarray, count: int) -> np.ndarray:
        """Return the rows in folds.csv of the most similar training photos, nearest first."""
        return self.rows[np.argsort(-self.embeddings @ embedding, kind="stable")[:count]]


def fit_threshold(embeddings: np.ndarray, folds: pd.DataFrame) -> float:
    """Compute the distance exceeded by 1 % of the out-of-fold photos.

    Like an unseen photo, each is compared only with training photos of other folds that are not its copies.
    Embeddings are unit vectors in the rows of `folds`.
    """
    fold_of_row, groups = folds["fold"].to_numpy(), pd.factorize(folds["group"])[0]
    scored, known = np.flatnonzero(fold_of_row >= 0), np.flatnonzero(learned_from(fold_of_row))
    if len(scored) > SCORED:
        scored = np.random.default_rng(0).choice(scored, SCORED, replace=False)
    vectors = embeddings.astype(np.float32)
    distances = _nearest(
        vectors[scored],
        vectors[known],
        lambda part: (
            (fold_of_row[scored[part], None] == fold_of_row[known]) | (groups[scored[part], None] == groups[known])
        ),
    )
    distances = distances[np.isfinite(distances)]
    return float(max(np.quantile(distances, 1 - FLAGGED), 1e-6)) if len(distances) else 2.0


def save_known_photos(run: RunFolder, embeddings: np.ndarray, folds: pd.DataFrame) -> None:
    """Write the embeddings of the labelled photos: float16 unit vectors in the rows of `folds`."""
    threshold = np.array(fit_threshold(embeddings, folds), np.float32)
    tensors = {"embeddings": np.ascontiguousarray(embeddings), "threshold": threshold}
    run.save(save(tensors), run.embeddings)


def load_known_photos(run: RunFolder, folds: pd.DataFrame) -> KnownPhotos | None:
    """Read the embeddings of the labelled photos; None for runs of earlier versions without this file.

    Raises:
        InputError: The file is damaged, or does not fit folds.csv.
    """
    path = run.embeddings
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        embeddings, threshold = tensors["embeddings"].astype(np.float32), float(tensors["threshold"])
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): copy the run's folder again") from error
    if embeddings.ndim != 2 or len(embeddings) != len(folds) or not threshold > 0:
        raise InputError(f"{path} does not match {run.folds}: copy the run's folder again")
    rows = np.flatnonzero(learned_from(folds["fold"].to_numpy()))
    return KnownPhotos(embeddings[rows], rows, threshold)


def _nearest(
    vectors: np.ndarray, known: np.ndarray, excluded: Callable[[slice], np.ndarray] | None = None
) -> np.ndarray:
    """Return the distance of each unit vector to the nearest known one; infinite if all are excluded."""
    distances = np.full(len(vectors), np.inf)
    for start in range(0, len(vectors), ROWS):
        part = slice(start, start + ROWS)
        similarity = vectors[part].astype(np.float32) @ known.T
        if excluded is not None:
            similarity[excluded(part)] = -np.inf
        distances[part] = np.sqrt(np.maximum(2 - 2 * similarity.max(1), 0))
    return distances
