"""A network's local features show where two aligned photos differ, whatever happened to their details."""

import numpy as np
import pytest
from drawn_photos import blur, crop, draw_source, mirror, noise, record_of, with_object

from trunkfold.copies.alignment import Alignment, align
from trunkfold.copies.cells import least_alike, measure_cells


@pytest.fixture
def compared(statistics, tmp_path):
    def compare(one: np.ndarray, other: np.ndarray) -> float:
        records = [record_of(pixels, tmp_path) for pixels in (one, other)]
        return least_alike(*records, align(*records), statistics)

    return compare


def test_a_photo_is_like_itself_and_its_mirror_image(compared):
    photo = draw_source(3)
    for same in (photo, mirror(photo)):
        assert compared(photo, same) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("way", [noise, blur, crop], ids=lambda way: way.__name__)
def test_copies_are_more_alike_than_photos_of_one_background(way, compared):
    for seed in range(3):
        background = draw_source(seed)
        copy = compared(background, way(background))
        one, other = (with_object(background, 100 + 2 * seed + number, 0.3) for number in range(2))
        look_alike = compared(one, other)
        assert copy > look_alike + 0.2


def test_what_a_plain_area_covers_is_no_difference(compared):
    photo = draw_source(4)
    covered = photo.copy()
    covered[60:160, 80:200] = 10, 200, 90
    assert compared(photo, covered) > 0.3
    grain = np.random.default_rng(0).integers(0, 256, (100, 120, 3)).astype(np.uint8)
    covered[60:160, 80:200] = grain
    assert compared(photo, covered) < 0.2


def test_nothing_is_known_where_all_is_covered(statistics, tmp_path):
    photo, plain = record_of(draw_source(4), tmp_path), record_of(np.full((240, 320, 3), 90, np.uint8), tmp_path)
    nowhere = Alignment(False, 4, np.array([[1.0, 0, 1000], [0, 1, 0], [0, 0, 1]]))
    for other, alignment in ((plain, Alignment(False, 4, np.eye(3))), (photo, nowhere)):
        assert least_alike(photo, other, alignment, statistics) == 0


def test_statistics_are_those_of_all_cells(tmp_path):
    records = [record_of(draw_source(seed), tmp_path) for seed in range(3)]
    cells = np.stack([record["cells"][0] for record in records]).astype(np.float64)
    found = measure_cells(records)
    np.testing.assert_allclose(found.mean, cells.mean((0, 1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.deviation, cells.std((0, 1, 2)), rtol=1e-3, atol=2e-3)
