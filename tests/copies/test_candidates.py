"""Of all pairs of photos few are looked at closely, and copies are among them."""

import warnings
from itertools import combinations

import numpy as np
import pytest
from drawn_photos import crop, draw_car, draw_source, grey, jpeg, mirror, noise, record_of, rotate

from trunkfold.copies import candidates
from trunkfold.copies.candidates import BRANCHES, BY_EMBEDDING, BY_WORDS, Vocabulary
from trunkfold.copies.embedding import project
from trunkfold.copies.record import RECORD

WAYS = [lambda pixels: pixels, lambda pixels: noise(mirror(pixels)), lambda pixels: jpeg(rotate(crop(pixels, 0.75), 5))]
SOURCES = 20
BLANK = np.full((60, 80, 3), 90, np.uint8)


def find_candidates(records, workers: int) -> np.ndarray:
    """Return the pairs without their ranks."""
    return find_ranked(records, workers)[:, :2]


def find_ranked(records, workers: int) -> np.ndarray:
    return candidates.find_candidates(records, project([record["embedding"] for record in records]), workers)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Three copies of each source, one after the other; not to be changed."""
    folder = tmp_path_factory.mktemp("records")
    sources = [draw(seed) for draw in (draw_source, draw_car) for seed in range(SOURCES // 2)]
    return np.array([record_of(way(pixels), folder) for pixels in sources for way in WAYS], RECORD)


@pytest.fixture(scope="module")
def pairs(records) -> np.ndarray:
    return find_candidates(records, 2)


def few_features(records: np.ndarray, count: int) -> np.ndarray:
    few = records.copy()
    few["count"] = np.minimum(few["count"], count)
    return few


def assert_well_formed(pairs: np.ndarray, photos: int) -> None:
    assert pairs.ndim == 2
    assert pairs.shape[1] == 2
    assert np.issubdtype(pairs.dtype, np.integer)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert (pairs >= 0).all()
    assert (pairs < photos).all()
    np.testing.assert_array_equal(pairs, np.unique(pairs, axis=0))


def test_copies_are_candidates_mirrored_or_not(pairs):
    found = set(map(tuple, pairs.tolist()))
    for source in range(SOURCES):
        for pair in combinations(range(3 * source, 3 * source + 3), 2):
            assert pair in found


def test_pairs_are_sorted_unique_and_of_two_photos(pairs, records):
    assert_well_formed(pairs, len(records))
    assert len(pairs) <= (BY_EMBEDDING + BY_WORDS) * len(records)


@pytest.mark.parametrize(("words", "similar"), [(2, 0), (0, 8)])
def test_a_few_neighbours_of_either_kind_suffice_for_copies(words, similar, records, monkeypatch):
    monkeypatch.setattr(candidates, "BY_WORDS", words)
    monkeypatch.setattr(candidates, "BY_EMBEDDING", similar)
    found = set(map(tuple, find_candidates(records, 2).tolist()))
    copies = [pair for first in range(0, len(records), 3) for pair in combinations(range(first, first + 3), 2)]
    assert len(found) <= (words + similar) * len(records)
    assert np.mean([pair in found for pair in copies]) > 0.9


def test_copies_are_the_closest_candidates(records):
    ranked = find_ranked(records, 2)
    assert ranked[:, 2].min() == 0
    assert ranked[:, 2].max() == max(BY_EMBEDDING, BY_WORDS) - 1
    copies = ranked[:, 0] // 3 == ranked[:, 1] // 3
    assert np.mean(ranked[copies, 2] < 2) > 0.95
    assert np.mean(ranked[~copies, 2] < 2) < 0.2


def test_a_pair_has_the_lowest_rank_of_those_it_was_found_with():
    found = candidates.unique_pairs(np.array([[3, 1, 4], [0, 2, 1]]), np.array([[1, 3, 2], [1, 0, 0], [3, 1, 5]]))
    assert found.tolist() == [[0, 1, 0], [0, 2, 1], [1, 3, 2]]


def test_the_number_of_threads_changes_nothing(records, pairs):
    np.testing.assert_array_equal(find_candidates(records, 1), pairs)


def test_photos_are_found_across_the_blocks_that_are_handled_at_once(records, pairs, monkeypatch):
    monkeypatch.setattr(candidates, "ROWS", 17)
    expected, found = (set(map(tuple, some.tolist())) for some in (pairs, find_candidates(list(records), 3)))
    assert len(expected ^ found) < 0.05 * len(expected)  # the last of a photo's neighbours depend on rounding


def test_global_random_numbers_change_nothing(records):
    np.random.seed(1)  # noqa: NPY002
    once = find_candidates(records[:12], 1)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(find_candidates(records[:12], 1), once)


@pytest.mark.parametrize("photos", [1, 2, 20])
def test_blank_photos_have_no_candidates(photos, tmp_path):
    blank = record_of(BLANK, tmp_path)
    found = find_candidates([blank] * photos, 1)
    assert found.shape == (0, 2)
    assert np.issubdtype(found.dtype, np.integer)


def test_no_photos_have_no_candidates():
    assert find_candidates([], 1).shape == (0, 2)


def test_one_photo_has_no_candidates(records):
    assert find_candidates(records[:1], 1).shape == (0, 2)


def test_blank_photos_among_others_are_nobodys_candidates(records, monkeypatch, tmp_path):
    monkeypatch.setattr(candidates, "ROWS", 10)  # so that a block has blank photos only
    blank = record_of(BLANK, tmp_path)
    found = find_candidates([*[blank] * 25, *records[:12]], 1)
    assert_well_formed(found, 37)
    assert found.min() == 25
    assert {(25, 26), (25, 27), (26, 27), (34, 35)} <= set(map(tuple, found.tolist()))


@pytest.mark.parametrize("count", [1, 3, 20])
def test_fewer_features_than_branches_will_do(count, records):
    few = few_features(records[:4], count)
    assert few["count"].sum() < BRANCHES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_well_formed(find_candidates(few, 1), 4)


@pytest.mark.parametrize("way", [noise, mirror, grey, rotate], ids=lambda way: way.__name__)
def test_two_copies_are_candidates_where_there_is_nothing_else(way, tmp_path):
    for pixels in (draw_source(0), draw_car(0)):
        copies = [record_of(copy, tmp_path) for copy in (pixels, way(pixels))]
        assert find_candidates(copies, 1).tolist() == [[0, 1]]


def test_copies_of_one_source_are_candidates_where_there_is_nothing_else(records):
    assert find_candidates(records[:3], 1).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_equal_photos_are_candidates(records, tmp_path):
    same = record_of(grey(draw_source(3)), tmp_path)
    found = set(map(tuple, find_candidates([*records[:9], same, same], 1).tolist()))
    assert (9, 10) in found


def test_words_of_a_feature_are_two_and_the_same_wherever_it_is():
    rng = np.random.default_rng(0)
    sample = np.abs(rng.normal(size=(3000, 128))).astype(np.float32)
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    vocabulary = Vocabulary(sample)
    words = vocabulary.words_of(sample)
    assert words.shape == (3000, 2)
    assert (words[:, 0] != words[:, 1]).all()
    assert words.min() >= 0
    assert words.max() < len(vocabulary) == BRANCHES**2
    alone = np.sort([vocabulary.words_of(row[None])[0] for row in sample[:50]], axis=1)
    np.testing.assert_array_equal(np.sort(words[:50], axis=1), alone)
