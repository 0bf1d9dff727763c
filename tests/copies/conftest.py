"""What tests of single steps of the search share."""

import numpy as np
import pytest
from drawn_photos import crop, draw_car, draw_source, mirror, noise, record_of

from trunkfold.copies.cells import Statistics, measure_cells
from trunkfold.copies.record import RECORD, Records

BLOCK = 5  # records per file, of eight


@pytest.fixture(scope="package")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    """Of the cells of twelve drawn photos."""
    folder = tmp_path_factory.mktemp("cells")
    return measure_cells([record_of(draw(seed), folder) for draw in (draw_source, draw_car) for seed in range(6)])


@pytest.fixture(scope="package")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Of two drawn photos, each unchanged, mirrored, cropped and noisy, in two files."""
    folder = tmp_path_factory.mktemp("records")
    sources = [draw_source(seed, 160, 120) for seed in range(2)]
    described = [record_of(way(source), folder) for source in sources for way in (np.array, mirror, crop, noise)]
    files = []
    for start in range(0, len(described), BLOCK):
        files.append(folder / f"{start}.npy")
        np.save(files[-1], np.array(described[start : start + BLOCK], RECORD))
    return Records(files)
