"""Comparison of two aligned photos by a network's local features, which noise, blur and light change little.

Pixels and SIFT features show whether two photos agree in detail, cells whether they show the same thing in each place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from trunkfold.copies.alignment import Alignment
from trunkfold.copies.likeness import look_up
from trunkfold.copies.record import CHANNELS, GRID, plain_areas_of

REGION = 4  # cells: side of a region
FEWEST = 8  # cells of a region that allow a comparison
SAMPLE = 2000  # photos that determine the statistics


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel over the cells of all photos: float32 of shape (CHANNELS,)."""

    mean: np.ndarray
    deviation: np.ndarray


def measure_cells(records: Sequence[np.ndarray]) -> Statistics:
    """Measure what the cells of photos have in common, which is no evidence."""
    chosen = np.random.default_rng(0).permutation(len(records))[:SAMPLE]
    sums = np.zeros((2, CHANNELS))
    for place in chosen:
        cells = records[place]["cells"][0].astype(np.float64)
        sums += cells.mean((0, 1)), (cells**2).mean((0, 1))
    mean, square = sums / max(len(chosen), 1)
    return Statistics(mean.astype(np.float32), np.sqrt((square - mean**2).clip(1e-6)).astype(np.float32))


def least_alike(one: np.ndarray, other: np.ndarray, alignment: Alignment, statistics: Statistics) -> float:
    """Compare the cells of one photo with the other photo's where the alignment puts them.

    Copies are alike everywhere, also if hardly in detail; of two photos of one background, the objects differ.

    Args:
        one: A scalar of `trunkfold.copies.record.RECORD`.
        other: A scalar of another photo.
        alignment: Lays `one` over `other`.
        statistics: See `measure_cells`.

    Returns:
        Mean similarity in the region that differs most, -1 to 1; 0 if plain areas leave too little to compare.
    """
    places = _map_cells(alignment, one["size"], other["size"])
    inside = ((places > -0.5) & (places < GRID - 0.5)).all(2)
    inside &= ~_covered(one, alignment.mirrored) & ~(look_up(_covered(other).astype(np.float32), places) > 0.5)
    count = _sum(inside)
    if count.max() < FEWEST:
        return 0.0
    first, second = standardize(one, statistics, alignment.mirrored), standardize(other, statistics)
    second = np.dstack([look_up(part, places) for part in np.array_split(second, CHANNELS // 4, axis=2)])
    lengths = np.linalg.norm(first, axis=2) * np.linalg.norm(second, axis=2)
    similarity = (first * second).sum(2) / lengths.clip(1e-6)
    regions = (_sum(similarity * inside) / count.clip(1))[count >= FEWEST]
    return float(regions.min(initial=1))


def standardize(record: np.ndarray, statistics: Statistics, mirrored: bool = False) -> np.ndarray:
    """Return a photo's cells without what cells have in common: float32 of shape (GRID, GRID, CHANNELS)."""
    return (record["cells"][int(mirrored)] - statistics.mean) / statistics.deviation


def centres(size: np.ndarray) -> np.ndarray:
    """Return the centres of the cells in pixels of a photo of this size: float32 of shape (GRID, GRID, 2), x and y."""
    rows, columns = np.mgrid[:GRID, :GRID] + 0.5
    return (np.stack([columns, rows], axis=2) * size / GRID - 0.5).astype(np.float32)


def _map_cells(alignment: Alignment, size: np.ndarray, other_size: np.ndarray) -> np.ndarray:
    """Return where each cell is in the other photo's grid: float32 of shape (GRID, GRID, 2), x and y."""
    there = cv2.perspectiveTransform(centres(size), alignment.map)
    return ((there + 0.5) * GRID / other_size - 0.5).astype(np.float32)


def _covered(record: np.ndarray, mirrored: bool = False) -> np.ndarray:
    """Return the cells that are mostly plain: bool of shape (GRID, GRID)."""
    plain = plain_areas_of(record, mirrored).astype(np.float32)
    return cv2.resize(plain, (GRID, GRID), interpolation=cv2.INTER_AREA) > 0.5


def _sum(grid: np.ndarray) -> np.ndarray:
    """Return the sum over the region around each cell."""
    options = {"normalize": False, "borderType": cv2.BORDER_CONSTANT}
    return cv2.boxFilter(grid.astype(np.float32), -1, (REGION, REGION), **options)
