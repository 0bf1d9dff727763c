"""Caches are kept apart by a version per algorithm: output that changes on a fixed input needs another version.

Where one of these tests fails, raise the VERSION that it names and store what it prints.
"""

import numpy as np
import pytest
from PIL import Image

from trunkfold.data import pixel_cache
from trunkfold.data.photos import read_photo
from trunkfold.images.augmentation import make_augmentation
from trunkfold.images.views import VIEWS, render
from trunkfold.model import features

TOLERANCE = 1.5  # grey levels: decoders and interpolation round differently between platforms
DECODED = {
    1: {
        "palette.png": [
            np.float64(82.4),
            np.float64(129.9),
            np.float64(93.6),
            np.float64(141.6),
            np.float64(98.7),
            np.float64(124.2),
            np.float64(111.0),
            np.float64(7.8),
        ],
        "plain.png": [
            np.float64(80.4),
            np.float64(131.0),
            np.float64(92.7),
            np.float64(143.8),
            np.float64(98.6),
            np.float64(124.2),
            np.float64(111.4),
            np.float64(9.0),
        ],
        "turned.jpg": [
            np.float64(92.7),
            np.float64(80.3),
            np.float64(143.8),
            np.float64(131.0),
            np.float64(98.6),
            np.float64(124.2),
            np.float64(111.4),
            np.float64(8.8),
        ],
        "packed": [1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7, 7, 7, 7, 7, 7, 9, 9, 9],
    }
}
SHOWN = {
    1: {
        "plain": [
            np.float64(79.8),
            np.float64(130.4),
            np.float64(92.1),
            np.float64(143.2),
            np.float64(98.6),
            np.float64(124.2),
            np.float64(111.3),
            np.float64(15.1),
        ],
        "hflip": [
            np.float64(130.4),
            np.float64(79.8),
            np.float64(143.2),
            np.float64(92.1),
            np.float64(98.6),
            np.float64(124.2),
            np.float64(111.3),
            np.float64(15.1),
        ],
        "larger": [
            np.float64(79.7),
            np.float64(130.3),
            np.float64(92.0),
            np.float64(143.1),
            np.float64(98.5),
            np.float64(124.0),
            np.float64(111.2),
            np.float64(20.4),
        ],
        "larger_hflip": [
            np.float64(130.3),
            np.float64(79.7),
            np.float64(143.1),
            np.float64(92.0),
            np.float64(98.5),
            np.float64(124.0),
            np.float64(111.2),
            np.float64(20.4),
        ],
        "smaller": [
            np.float64(79.8),
            np.float64(130.4),
            np.float64(92.1),
            np.float64(143.2),
            np.float64(98.6),
            np.float64(124.2),
            np.float64(111.4),
            np.float64(9.2),
        ],
        "smaller_hflip": [
            np.float64(130.4),
            np.float64(79.8),
            np.float64(143.2),
            np.float64(92.1),
            np.float64(98.6),
            np.float64(124.2),
            np.float64(111.4),
            np.float64(9.2),
        ],
        "centre": [
            np.float64(85.9),
            np.float64(126.3),
            np.float64(96.4),
            np.float64(137.3),
            np.float64(98.8),
            np.float64(124.3),
            np.float64(111.4),
            np.float64(18.4),
        ],
        "centre_hflip": [
            np.float64(126.3),
            np.float64(85.9),
            np.float64(137.3),
            np.float64(96.4),
            np.float64(98.8),
            np.float64(124.3),
            np.float64(111.4),
            np.float64(18.4),
        ],
        "top_left": [
            np.float64(73.9),
            np.float64(113.7),
            np.float64(83.5),
            np.float64(124.0),
            np.float64(88.7),
            np.float64(109.2),
            np.float64(98.4),
            np.float64(18.5),
        ],
        "top_right": [
            np.float64(94.1),
            np.float64(134.1),
            np.float64(103.6),
            np.float64(144.6),
            np.float64(109.1),
            np.float64(129.2),
            np.float64(119.0),
            np.float64(18.5),
        ],
        "bottom_left": [
            np.float64(79.0),
            np.float64(118.6),
            np.float64(88.3),
            np.float64(129.4),
            np.float64(88.6),
            np.float64(119.3),
            np.float64(103.6),
            np.float64(18.4),
        ],
        "bottom_right": [
            np.float64(99.1),
            np.float64(139.2),
            np.float64(108.3),
            np.float64(149.6),
            np.float64(108.8),
            np.float64(139.3),
            np.float64(124.1),
            np.float64(18.4),
        ],
        "standard 0": [
            np.float64(73.8),
            np.float64(104.7),
            np.float64(83.1),
            np.float64(115.0),
            np.float64(82.5),
            np.float64(106.0),
            np.float64(94.0),
            np.float64(11.4),
        ],
        "standard 1": [
            np.float64(133.2),
            np.float64(94.8),
            np.float64(140.3),
            np.float64(101.2),
            np.float64(104.0),
            np.float64(130.9),
            np.float64(117.2),
            np.float64(11.9),
        ],
        "standard 2": [
            np.float64(132.5),
            np.float64(87.5),
            np.float64(136.7),
            np.float64(91.4),
            np.float64(98.7),
            np.float64(125.2),
            np.float64(112.0),
            np.float64(11.9),
        ],
        "strong 0": [
            np.float64(72.1),
            np.float64(97.4),
            np.float64(78.3),
            np.float64(104.6),
            np.float64(78.8),
            np.float64(97.5),
            np.float64(88.1),
            np.float64(11.4),
        ],
        "strong 1": [
            np.float64(140.4),
            np.float64(113.6),
            np.float64(140.3),
            np.float64(114.2),
            np.float64(121.5),
            np.float64(137.9),
            np.float64(122.0),
            np.float64(1.3),
        ],
        "strong 2": [
            np.float64(135.6),
            np.float64(90.0),
            np.float64(132.0),
            np.float64(86.2),
            np.float64(97.1),
            np.float64(124.9),
            np.float64(110.9),
            np.float64(12.2),
        ],
        "seed 0": [
            np.float64(129.3),
            np.float64(79.5),
            np.float64(141.1),
            np.float64(90.8),
            np.float64(99.5),
            np.float64(125.2),
            np.float64(105.8),
            np.float64(15.6),
        ],
        "seed 1": [
            np.float64(111.2),
            np.float64(85.3),
            np.float64(114.9),
            np.float64(91.5),
            np.float64(86.8),
            np.float64(109.8),
            np.float64(105.5),
            np.float64(13.3),
        ],
        "seed 2": [
            np.float64(82.0),
            np.float64(138.6),
            np.float64(94.8),
            np.float64(152.1),
            np.float64(104.7),
            np.float64(133.4),
            np.float64(112.6),
            np.float64(18.5),
        ],
    }
}


def photo() -> np.ndarray:
    """Noise over a slope, so that place, side, sharpness and colour all show: uint8 of shape (90, 120, 3)."""
    noise = np.random.default_rng(0).integers(0, 100, (90, 120, 3))
    slope = np.linspace(0, 100, 120)[None, :, None] + np.linspace(0, 50, 90)[:, None, None] * [0, 1, 0.5]
    return (noise + slope).astype(np.uint8)


def sketch(pixels: np.ndarray) -> list[float]:
    """Means of the quarters and of the colours, and the contrast between neighbours, of uint8 (height, width, 3)."""
    values = pixels.astype(float)
    rows, columns = (np.array_split(np.arange(length), 2) for length in pixels.shape[:2])
    quarters = [values[np.ix_(row, column)].mean() for row in rows for column in columns]
    return [*quarters, *values.mean((0, 1)), np.abs(np.diff(values, axis=1)).mean()]


def assert_as_stored(found: dict[str, list[float]], stored: dict[int, dict], version: int, name: str) -> None:
    assert version in stored, f"store the output of {name} {version}: {found}"
    assert found.keys() == stored[version].keys()
    for what, numbers in found.items():
        same = numbers == pytest.approx(stored[version][what], abs=TOLERANCE)
        assert same, f"{what} changed: raise {name} and store {found}"


def test_decoding_changes_with_its_version_alone(tmp_path):
    picture = Image.fromarray(photo())
    picture.save(tmp_path / "plain.png")
    picture.quantize(64).save(tmp_path / "palette.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # shot with the camera on its side
    picture.save(tmp_path / "turned.jpg", exif=turned, quality=95)
    found = {path.name: [round(x, 1) for x in sketch(read_photo(path, 32))] for path in sorted(tmp_path.iterdir())}
    packed = pixel_cache._pack([np.full((1, 2, 3), 7, np.uint8), np.full((1, 1, 3), 9, np.uint8)])
    found["packed"] = packed.tolist()
    assert_as_stored(found, DECODED, pixel_cache.VERSION, "trunkfold.data.pixel_cache.VERSION")


def test_views_and_augmentations_change_with_their_version_alone():
    found = {name: sketch(render(photo(), view, 64)) for name, view in VIEWS.items()}
    for preset in ("standard", "strong", "seed"):
        augment = make_augmentation(preset, 64)
        found |= {f"{preset} {seed}": sketch(augment(photo(), seed)) for seed in range(3)}
    found = {name: [round(x, 1) for x in numbers] for name, numbers in found.items()}
    assert_as_stored(found, SHOWN, features.VERSION, "trunkfold.model.features.VERSION")


def test_an_unstored_version_and_other_output_are_both_refused():
    with pytest.raises(AssertionError, match="store the output of X 2"):
        assert_as_stored({"a": [1.0]}, {1: {"a": [1.0]}}, 2, "X")
    with pytest.raises(AssertionError, match="a changed: raise X"):
        assert_as_stored({"a": [1.0]}, {1: {"a": [5.0]}}, 1, "X")
