"""Copies are told from photos that only share something: a background, a logo, a word."""

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from drawn_photos import (
    SHARED_PHOTOS,
    WAYS,
    brighter,
    crop,
    draw_car,
    draw_source,
    from_another_angle,
    jpeg,
    mirror,
    negative,
    noise,
    record_of,
    rotate,
    solarized,
    with_object,
    with_template,
)

from trunkfold.copies import evidence as scoring
from trunkfold.copies.cells import Statistics, measure_cells
from trunkfold.copies.descriptors import describe_photo
from trunkfold.copies.evidence import IDENTICAL, LIMITS, NOT_ALIGNED, Evidence, coefficients
from trunkfold.data.photos import read_photo
from trunkfold.demo.damages import draw_photo

SOURCES = 3


def compare(one: np.ndarray, other: np.ndarray) -> Evidence:
    return scoring.compare(one, other, statistics_of_drawn_photos())


@functools.cache
def statistics_of_drawn_photos() -> Statistics:
    with tempfile.TemporaryDirectory() as folder:
        return measure_cells(
            [record_of(draw(seed), Path(folder)) for draw in (draw_source, draw_car) for seed in range(9)]
        )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pixels and record of drawn scenes and drawn cars."""
    folder = tmp_path_factory.mktemp("sources")
    pictures = [draw(seed) for draw in (draw_source, draw_car) for seed in range(SOURCES)]
    return [(pixels, record_of(pixels, folder)) for pixels in pictures]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_copy_of_each_kind_is_known_whichever_way_round_it_is_asked(way, sources, tmp_path):
    for pixels, record in sources:
        copy = record_of(way(pixels), tmp_path)
        assert compare(record, copy).log_odds > 0
        assert compare(copy, record).log_odds > 0


@pytest.mark.parametrize("way", [mirror, rotate, noise, jpeg], ids=lambda way: way.__name__)
def test_copies_that_were_changed_little_are_beyond_doubt(way, sources, tmp_path):
    for pixels, record in sources:
        evidence = compare(record, record_of(way(pixels), tmp_path))
        assert evidence.log_odds > 4
        assert evidence.agreement > 0.97


def test_copies_of_one_source_by_several_ways_are_copies_of_each_other(sources, tmp_path):
    for pixels, _ in sources:
        one = record_of(jpeg(rotate(mirror(pixels), 6), 50), tmp_path)
        other = record_of(noise(brighter(crop(pixels, 0.8))), tmp_path)
        assert compare(one, other).log_odds > 0


def test_a_photo_in_another_size_or_shape_is_a_copy(sources, tmp_path):
    for pixels, record in sources:
        for size in ((160, 120), (800, 600), (240, 240)):
            resized = record_of(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), tmp_path)
            for evidence in (compare(record, resized), compare(resized, record)):
                assert evidence.log_odds > 0
                assert evidence.overlap > 0.9


@pytest.mark.parametrize(("way", "least"), [(negative, 0.98), (solarized, 0.8)], ids=["negative", "solarized"])
def test_copies_agree_whatever_happened_to_their_tones(way, least, sources, tmp_path):
    for place, (pixels, record) in enumerate(sources):
        copy = record_of(way(pixels), tmp_path)
        assert min(compare(record, copy).agreement, compare(copy, record).agreement) > least
        for _, other in sources[:place]:
            assert compare(other, copy).log_odds < 0


def test_different_sources_are_not_copies(sources):
    for place, (_, record) in enumerate(sources):
        for _, other in sources[:place]:
            assert compare(record, other).log_odds < 0


def test_the_overlap_is_the_share_that_was_kept(sources, tmp_path):
    for pixels, record in sources:
        for one, other in [(record, record_of(crop(pixels), tmp_path)), (record_of(crop(pixels), tmp_path), record)]:
            assert compare(one, other).overlap == pytest.approx(0.6, abs=0.05)


def test_a_crop_of_a_third_of_a_photo_is_a_copy_of_it(sources, tmp_path):
    for pixels, record in sources:
        assert compare(record, record_of(crop(pixels, 0.35), tmp_path)).log_odds > 0


@pytest.mark.parametrize("share", [0.2, 0.3])
@pytest.mark.parametrize("way", [None, mirror, noise, jpeg], ids=lambda way: way.__name__ if way else "as it is")
def test_one_background_with_another_object_is_another_source(way, share, tmp_path):
    for seed in range(SOURCES):
        background = draw_source(seed)
        one, other = (with_object(background, 100 + 2 * seed + number, share) for number in range(2))
        evidence = compare(record_of(one, tmp_path), record_of(way(other) if way else other, tmp_path))
        assert evidence.log_odds < 0


def test_a_shared_logo_alone_makes_no_copy(tmp_path):
    logo = draw_source(50, 80, 60)
    for seed in range(SOURCES):
        one, other = draw_source(seed), draw_source(seed + 20)
        one[20:80, 30:110] = logo
        other[150:210, 200:280] = logo
        evidence = compare(record_of(one, tmp_path), record_of(other, tmp_path))
        assert evidence.inliers >= 6  # it is found
        assert evidence.log_odds < 0


LOOK_ALIKES = {
    "two angles": lambda seed: (draw_source(seed), from_another_angle(draw_source(seed))),
    "two angles of a car": lambda seed: (draw_car(seed), from_another_angle(draw_car(seed), -0.15)),
    "before and after a repair": lambda seed: (
        draw_photo(2, 240, np.random.default_rng(seed)),
        from_another_angle(draw_photo(4, 240, np.random.default_rng(seed)), 0.15),
    ),
    "one parking lot": lambda seed: tuple(park(draw_source(90), seed + number) for number in (0, 50)),
    "one template": lambda seed: (with_template(draw_source(seed)), with_template(draw_source(seed + 50))),
}


def park(place: np.ndarray, seed: int) -> np.ndarray:
    """A car in front of a place, which stays visible above and beside it."""
    scene = place.copy()
    scene[90:225, 70:250] = cv2.resize(draw_car(seed), (180, 135), interpolation=cv2.INTER_AREA)
    return scene


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_different_photos_of_one_thing_are_no_copies(kind, tmp_path):
    for seed in range(SOURCES):
        one, other = (record_of(pixels, tmp_path) for pixels in LOOK_ALIKES[kind](seed))
        assert compare(one, other).log_odds < 0


def test_what_has_no_features_is_a_copy_of_nothing(sources, tmp_path):
    blank = record_of(np.full((60, 80, 3), 90, np.uint8), tmp_path)
    absent = describe_photo(tmp_path / "absent.png")
    for one in (blank, absent):
        for other in (blank, absent, sources[0][1]):
            assert compare(one, other) == compare(other, one) == Evidence()


@pytest.mark.parametrize("size", [(2000, 40), (40, 2000), (8, 8), (600, 1)], ids=str)
def test_photos_of_any_shape_can_be_compared(size, sources, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    record = record_of(pixels, tmp_path)
    assert compare(record, sources[0][1]).log_odds < 0
    compare(record, record_of(noise(pixels), tmp_path))  # whatever it says


def test_comparing_twice_gives_the_same_evidence(sources, tmp_path):
    copies = [(record, record_of(crop(noise(pixels)), tmp_path)) for pixels, record in sources]
    assert [compare(*pair) for pair in copies] == [compare(*pair) for pair in copies]


ALIGNED = Evidence(60, 0.9, 0.98, 0.4)


@pytest.mark.parametrize("weaker", [{"agreement": 0.6}, {"least_alike": -0.1}], ids=str)
def test_each_kind_of_evidence_counts(weaker):
    assert replace(ALIGNED, **weaker).strength < ALIGNED.strength


def test_overwhelming_evidence_of_one_kind_outweighs_weak_evidence_of_another():
    assert replace(ALIGNED, agreement=1.0, least_alike=0.1).log_odds > 0  # one region hidden, all else agrees
    assert replace(ALIGNED, agreement=0.85, least_alike=0.8).log_odds > 0  # noise


def test_photos_of_which_a_part_differs_clearly_are_no_copies():
    assert replace(ALIGNED, agreement=0.8, least_alike=0.0).log_odds < 0


def test_log_odds_are_limited_and_probabilities_follow_from_them():
    certain = replace(ALIGNED, agreement=1.0, least_alike=1.0)
    assert certain.strength > certain.log_odds == LIMITS[1]
    assert Evidence().log_odds == NOT_ALIGNED
    opposite = Evidence(30, 0.9, 0.1, -0.2)
    assert opposite.log_odds == LIMITS[0]
    for evidence in (certain, Evidence(), opposite, IDENTICAL, Evidence(verdict=-1)):
        assert 0 <= evidence.probability <= 1
        assert (evidence.probability > 0.5) == (evidence.log_odds > 0)


def test_a_verdict_is_beyond_all_evidence():
    assert IDENTICAL.log_odds > 100 * LIMITS[1]
    assert replace(ALIGNED, verdict=-1).log_odds < 100 * LIMITS[0]


def test_every_term_has_a_coefficient():
    assert coefficients().keys() - {"intercept"} == ALIGNED.terms().keys()


@pytest.mark.skipif(not SHARED_PHOTOS.exists(), reason=f"no real photos in {SHARED_PHOTOS}")
def test_real_photos_are_known_by_their_copies_and_told_from_others(tmp_path):
    truth = pd.read_csv(SHARED_PHOTOS.with_name("photos_truth.csv"), dtype=str)
    sources = [rows for _, rows in list(truth.groupby("source"))[:12]]
    records = []
    for rows in sources:
        files = [next(SHARED_PHOTOS.glob(f"{row.set}/**/images/{row.image_id}.*")) for row in rows.itertuples()]
        records.append([describe_photo(path) for path in files])
    alike = [
        compare(group[one], group[other]).log_odds > 0 for group in records for one, other in ((0, 1), (0, 2), (1, 2))
    ]
    assert np.mean(alike) >= 0.85
    first = [group[0] for group in records]
    assert not any(compare(one, other).log_odds > 0 for place, one in enumerate(first) for other in first[:place])
    pixels = read_photo(SHARED_PHOTOS / next(SHARED_PHOTOS.glob("train/**/images/*.jpg")))
    record = record_of(pixels, tmp_path)
    for way in WAYS:
        assert compare(record, record_of(way(pixels), tmp_path)).log_odds > 0, way.__name__
