"""Photos in which SIFT finds too little in common are aligned by a network's local features."""

import cv2
import numpy as np
import pytest
from drawn_photos import crop, draw_car, draw_source, mirror, record_of, ruined, with_object

from trunkfold.copies import evidence as scoring
from trunkfold.copies.alignment import FEWEST_INLIERS, Alignment, align
from trunkfold.copies.cell_alignment import FEWEST_CELLS, align_cells
from trunkfold.copies.evidence import Evidence, compare, compare_aligned
from trunkfold.copies.likeness import compare_pixels

CELL = 16  # pixels of a photo of 256 x 192: a side of a cell is 16 x 12
WRONG = Alignment(False, FEWEST_INLIERS, np.array([[0.5, 0, 60], [0, 0.5, 20], [0, 0, 1]]))


def error(found: Alignment, expected: np.ndarray) -> float:
    """Return the median distance in pixels between two maps of one photo."""
    points = np.mgrid[40:220:30, 40:160:30].reshape(2, -1).T[:, None].astype(np.float32)
    apart = cv2.perspectiveTransform(points, found.map) - cv2.perspectiveTransform(points, expected)
    return float(np.median(np.linalg.norm(apart, axis=2)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_ruined_copy_is_laid_where_it_belongs(seed, mirrored, statistics, tmp_path):
    photo = draw_source(seed)
    share = 0.8  # of the area
    copy = ruined(crop(mirror(photo) if mirrored else photo, share, x=0.0), seed)
    one, other = record_of(photo, tmp_path), record_of(copy, tmp_path)
    found = align_cells(one, other, statistics)
    assert found.mirrored == mirrored
    assert found.inliers >= FEWEST_CELLS
    assert error(found, np.diag([share**-0.5, share**-0.5, 1])) < CELL


def test_photos_of_different_sources_are_hardly_ever_aligned(statistics, tmp_path):
    records = [record_of(draw(seed), tmp_path) for draw in (draw_source, draw_car) for seed in (20, 21, 22)]
    pairs = [(one, other) for one in range(3) for other in range(3, 6)] + [(0, 1), (0, 2), (1, 2)]
    found = [align_cells(records[one], records[other], statistics) for one, other in pairs]
    assert sum(alignment is not None for alignment in found) <= 2


def test_the_alignment_by_which_photos_agree_best_counts(statistics, tmp_path, monkeypatch):
    photo = draw_source(3)
    one, other = record_of(photo, tmp_path), record_of(ruined(photo), tmp_path)
    monkeypatch.setattr(scoring, "align", lambda *_: WRONG)
    evidence, alignment = compare_aligned(one, other, statistics)
    assert error(alignment, np.eye(3)) < CELL
    monkeypatch.setattr(scoring, "align_cells", lambda *_: None)
    wrong, alignment = compare_aligned(one, other, statistics)
    assert alignment is WRONG
    assert evidence.strength > wrong.strength + 3
    monkeypatch.setattr(scoring, "align", lambda *_: None)
    assert compare_aligned(one, other, statistics) == (Evidence(), None)


def test_cells_are_not_asked_where_features_are_clear(statistics, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "align_cells", lambda *_: pytest.fail("cells were aligned"))
    one, other = (record_of(pixels, tmp_path) for pixels in (draw_source(3), mirror(draw_source(3))))
    assert compare(one, other, statistics).inliers == align(one, other).inliers


def test_cells_are_not_asked_about_two_photos_of_one_background(statistics, tmp_path, monkeypatch):
    """Their features fit, so no other alignment would make them agree."""
    monkeypatch.setattr(scoring, "align_cells", lambda *_: pytest.fail("cells were aligned"))
    background = draw_source(3)
    one, other = (record_of(with_object(background, seed, 0.3), tmp_path) for seed in (100, 101))
    assert compare(one, other, statistics).strength < 0


@pytest.mark.parametrize("size", [(2000, 40), (40, 2000)])
def test_narrow_photos_are_compared_without_local_displacements(size, tmp_path):
    """A thumbnail of three pixels is too narrow for optical flow."""
    record = record_of(np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8), tmp_path)
    assert compare_pixels(record, record, Alignment(False, FEWEST_CELLS, np.eye(3))).overlap == 1


def test_photos_without_details_are_not_compared(statistics, tmp_path):
    """Their cells are all alike."""
    plain = [record_of(np.full((192, 256, 3), grey, np.uint8), tmp_path) for grey in (90, 91)]
    assert compare(*plain, statistics) == Evidence()
