"""What is kept of a photo: the same whichever way it is mirrored or stored, and never an error."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_photos import draw_source, foggy, mirror, nearly_black, record_of
from PIL import Image

from trunkfold.copies.descriptors import describe_photo, strengthen
from trunkfold.copies.plain_areas import plain_areas
from trunkfold.copies.record import (
    FEATURES,
    MIRRORED,
    RECORD,
    THUMBNAIL,
    plain_areas_of,
    points_of,
    root_descriptors,
    thumbnails_of,
)
from trunkfold.errors import InputError


def plain(width: int, height: int, grey: int = 90) -> np.ndarray:
    return np.full((height, width, 3), grey, np.uint8)


def noisy(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def found_again(features: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Distance in pixels to a feature of `others` with nearly the same descriptor, infinite where there is none."""
    (points, descriptors), (other_points, other_descriptors) = features, others
    distance = np.linalg.norm(points[:, None] - other_points, axis=2)
    distance[descriptors @ other_descriptors.T < 0.97] = np.inf
    return distance.min(1)


def described_both_ways(width: int, height: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    picture = draw_source(0, width, height)
    return record_of(picture, folder), record_of(mirror(picture), folder)


SIZES = pytest.mark.parametrize(("width", "height"), [(320, 240), (255, 181), (90, 120)])


@SIZES
def test_mirroring_what_was_described_is_describing_the_mirrored_photo(width, height, tmp_path):
    record, turned = described_both_ways(width, height, tmp_path)
    own = points_of(turned), root_descriptors(turned)
    distance = found_again(own, (points_of(record, mirrored=True), root_descriptors(record, mirrored=True)))
    assert len(distance) > 50
    assert (distance < 1).mean() > 0.85
    unmirrored = found_again(own, (points_of(record, mirrored=True), root_descriptors(record)))
    assert (unmirrored < 1).mean() < 0.2
    np.testing.assert_allclose(
        thumbnails_of(record, mirrored=True).astype(int), thumbnails_of(turned).astype(int), atol=2
    )


@SIZES
def test_mirroring_is_right_to_a_tenth_of_a_pixel(width, height, tmp_path):
    """SIFT's places are a quarter of a pixel too far right and down, unless it enlarges precisely."""
    record, turned = described_both_ways(width, height, tmp_path)
    own = points_of(turned), root_descriptors(turned)
    distance = found_again(own, (points_of(record, mirrored=True), root_descriptors(record, mirrored=True)))
    assert np.median(distance) < 0.1


def test_mirroring_twice_changes_nothing():
    np.testing.assert_array_equal(MIRRORED[MIRRORED], np.arange(128))


def test_descriptors_are_of_unit_length_and_points_within_the_photo(tmp_path):
    record = record_of(draw_source(1), tmp_path)
    np.testing.assert_allclose(np.linalg.norm(root_descriptors(record), axis=1), 1, atol=1e-5)
    for mirrored in (False, True):
        points = points_of(record, mirrored)
        assert (points >= -0.5).all()
        assert (points <= record["size"] - 0.5).all()


@pytest.mark.parametrize("way", [foggy, nearly_black], ids=lambda way: way.__name__)
def test_a_faint_photo_has_nearly_as_many_features_as_a_clear_one(way, tmp_path):
    pixels = draw_source(0)
    clear, faint = record_of(pixels, tmp_path), record_of(way(pixels), tmp_path)
    assert faint["count"] > 0.7 * clear["count"] > 100
    assert clear["digest"] != faint["digest"]


def test_only_the_contrast_of_faint_photos_is_stretched():
    pixels = draw_source(0)
    assert strengthen(pixels) is pixels
    assert np.ptp(strengthen(foggy(pixels))) == 255
    blank = np.full((90, 120, 3), 90, np.uint8)
    blank[::2, ::2] += 1
    assert strengthen(blank) is blank


def test_a_blank_photo_has_no_features(tmp_path):
    record = record_of(plain(120, 80), tmp_path)
    assert record["count"] == 0
    assert root_descriptors(record).shape == root_descriptors(record, mirrored=True).shape == (0, 128)
    assert points_of(record, mirrored=True).shape == (0, 2)
    assert any(record["digest"].tobytes())  # it can be read all the same


@pytest.mark.parametrize(
    ("shape", "size", "thumbnail"),
    [
        ((320, 240), (256, 192), (96, 128)),
        ((240, 320), (192, 256), (128, 96)),
        ((8, 8), (32, 32), (32, 32)),  # enlarged four times at most
        ((2000, 40), (256, 5), (2, 128)),
        ((40, 2000), (5, 256), (128, 2)),
        ((1, 1), (4, 4), (4, 4)),
        ((3000, 1), (256, 1), (1, 128)),
    ],
    ids=str,
)
def test_every_shape_of_photo_fits_into_the_record(shape, size, thumbnail, tmp_path):
    record = record_of(noisy(*shape), tmp_path)
    assert tuple(record["size"]) == size
    assert thumbnails_of(record).shape == (*thumbnail, 2)
    assert thumbnails_of(record, mirrored=True).shape == (*thumbnail, 2)
    assert len(points_of(record)) == record["count"]


@SIZES
def test_plain_areas_are_those_of_the_thumbnails_mirrored_or_not(width, height, tmp_path):
    picture = noisy(width, height)
    picture[:, : width // 3] = 90
    record = record_of(picture, tmp_path)
    left, right = plain_areas_of(record), plain_areas_of(record, mirrored=True)
    np.testing.assert_array_equal(left, plain_areas(thumbnails_of(record)))
    np.testing.assert_array_equal(right, plain_areas(thumbnails_of(record, mirrored=True)))
    assert left[:, 0].all()
    assert right[:, -1].all()
    assert not left[:, -1].any()


def test_a_photo_full_of_features_keeps_as_many_as_there_is_room_for(tmp_path):
    record = record_of(noisy(256, 256), tmp_path)
    assert record["count"] == FEATURES
    assert len(root_descriptors(record)) == FEATURES


def test_a_file_that_is_no_photo_is_all_zero(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    (tmp_path / "nothing.jpg").touch()
    noise = Image.fromarray(noisy(64, 64))
    noise.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    for name in ("page.jpg", "nothing.jpg", "cut.png", "absent.jpg"):
        record = describe_photo(tmp_path / name)
        assert record.dtype == RECORD
        assert not any(record.tobytes())


def test_records_are_of_one_size_whatever_the_photo(tmp_path):
    records = [record_of(picture, tmp_path) for picture in (noisy(256, 256), plain(8, 8), plain(2000, 40))]
    records.append(describe_photo(tmp_path / "absent.png"))
    assert {len(record.tobytes()) for record in records} == {RECORD.itemsize}
    assert np.array(records, RECORD).shape == (4,)
    assert RECORD["thumbnails"].shape == (THUMBNAIL, THUMBNAIL, 2)


def test_the_digest_tells_pixels_not_files(tmp_path: Path):
    pixels = draw_source(2)
    for name in ("one.png", "again.bmp"):
        Image.fromarray(pixels).save(tmp_path / name)
    cv2.imwrite(str(tmp_path / "packed.png"), pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    shutil.copy(tmp_path / "one.png", tmp_path / "copy.png")
    digests = {describe_photo(tmp_path / name)["digest"].tobytes() for name in ("one.png", "again.bmp", "packed.png")}
    assert digests == {describe_photo(tmp_path / "copy.png")["digest"].tobytes()}
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "packed.png").read_bytes()
    pixels[3, 5] ^= 1
    assert record_of(pixels, tmp_path)["digest"].tobytes() not in digests


def test_the_digest_tells_shapes_of_the_same_bytes(tmp_path):
    wide, high = record_of(plain(12, 8), tmp_path), record_of(plain(8, 12), tmp_path)
    assert wide["digest"].tobytes() != high["digest"].tobytes()


def test_describing_twice_gives_the_same_bytes(tmp_path):
    assert record_of(draw_source(3), tmp_path).tobytes() == record_of(draw_source(3), tmp_path).tobytes()


def test_a_photo_that_memory_is_too_small_for_is_not_recorded_as_unreadable(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    Path(tmp_path / "a.png").write_bytes(b"photo")
    with pytest.raises(InputError, match="MemoryError"):
        describe_photo(tmp_path / "a.png")
