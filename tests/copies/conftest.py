"""What tests of single steps of the search share."""

import pytest
from drawn_photos import draw_car, draw_source, record_of

from trunkfold.copies.cells import Statistics, measure_cells


@pytest.fixture(scope="package")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    """Of the cells of twelve drawn photos."""
    folder = tmp_path_factory.mktemp("cells")
    return measure_cells([record_of(draw(seed), folder) for draw in (draw_source, draw_car) for seed in range(6)])
