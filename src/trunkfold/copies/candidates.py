"""Candidate pairs of copies: photos with similar embeddings."""

from collections.abc import Sequence

import numpy as np
from tqdm.contrib.concurrent import thread_map

NEIGHBOURS = 16  # candidates per photo; more find little, and chance look-alikes
ROWS = 256  # photos processed at once


def find_candidates(records: Sequence[np.ndarray], embeddings: np.ndarray, workers: int) -> np.ndarray:
    """Find the most similar photos of each photo.

    Args:
        records: One `trunkfold.copies.record.RECORD` per photo.
        embeddings: Their projected embeddings, of shape (photos, dimensions).
        workers: Number of threads.

    Returns:
        int of shape (pairs, 3): sorted index pairs into `records`, smaller index first, and their rank: how many photos
        are more similar to one of the two, whichever has fewer. Photos without features are in no pair.
    """
    featured = np.flatnonzero([record["count"] > 0 for record in records])
    embeddings, count = embeddings[featured], min(NEIGHBOURS, len(featured) - 1)

    def neighbours(start: int) -> np.ndarray:
        similarity = embeddings[start : start + ROWS] @ embeddings.T
        rows = np.arange(len(similarity))[:, None]
        similarity[rows, start + rows] = -np.inf  # with itself
        columns = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        columns = columns[rows, np.argsort(-similarity[rows, columns], axis=1, kind="stable")]
        return np.stack(np.broadcast_arrays(featured[start + rows], featured[columns], np.arange(count)), axis=2)

    starts = range(0, len(featured) if count > 0 else 0, ROWS)
    found = thread_map(neighbours, starts, max_workers=workers, leave=False, desc="similar photos")
    return _unique(np.concatenate([np.empty((0, 3), int), *(block.reshape(-1, 3) for block in found)]))


def _unique(pairs: np.ndarray) -> np.ndarray:
    """Sort the indices of each pair, and the pairs, each with its lowest rank."""
    pairs[:, :2].sort(axis=1)
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    return pairs[np.unique(pairs[:, :2], axis=0, return_index=True)[1]]
