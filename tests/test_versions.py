"""Cache keys contain the version of each algorithm: it must increase if the output for a fixed input changes.

If one of these tests fails, increase the VERSION that it names, and store the printed values.
"""

from dataclasses import astuple

import numpy as np
import pytest
from drawn_photos import (
    blur,
    crop,
    draw_source,
    foggy,
    jpeg,
    mirror,
    noise,
    record_of,
    rotate,
    ruined,
    solarized,
)
from PIL import Image

from trunkfold.copies import candidates, search
from trunkfold.copies.candidates import find_candidates
from trunkfold.copies.cells import measure_cells
from trunkfold.copies.embedding import project
from trunkfold.copies.evidence import Evidence, compare
from trunkfold.copies.grouping import join
from trunkfold.data import pixel_cache
from trunkfold.data.photos import read_photo
from trunkfold.images.augmentation import Augmentation
from trunkfold.images.views import VIEWS, render
from trunkfold.model import features

TOLERANCE = 1.5  # grey levels: decoders and interpolation round differently between platforms
DECODED = {
    1: {
        "palette.png": [82.4, 129.9, 93.6, 141.6, 98.7, 124.2, 111.0, 7.8],
        "plain.png": [80.4, 131.0, 92.7, 143.8, 98.6, 124.2, 111.4, 9.0],
        "turned.jpg": [92.7, 80.3, 143.8, 131.0, 98.6, 124.2, 111.4, 8.8],
        "packed": [1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7, 7, 7, 7, 7, 7, 9, 9, 9],
    }
}
SHOWN = {
    1: {
        "plain": [79.8, 130.4, 92.1, 143.2, 98.6, 124.2, 111.3, 15.1],
        "hflip": [130.4, 79.8, 143.2, 92.1, 98.6, 124.2, 111.3, 15.1],
        "larger": [79.7, 130.3, 92.0, 143.1, 98.5, 124.0, 111.2, 20.4],
        "larger_hflip": [130.3, 79.7, 143.1, 92.0, 98.5, 124.0, 111.2, 20.4],
        "smaller": [79.8, 130.4, 92.1, 143.2, 98.6, 124.2, 111.4, 9.2],
        "smaller_hflip": [130.4, 79.8, 143.2, 92.1, 98.6, 124.2, 111.4, 9.2],
        "centre": [85.9, 126.3, 96.4, 137.3, 98.8, 124.3, 111.4, 18.4],
        "centre_hflip": [126.3, 85.9, 137.3, 96.4, 98.8, 124.3, 111.4, 18.4],
        "top_left": [73.9, 113.7, 83.5, 124.0, 88.7, 109.2, 98.4, 18.5],
        "top_right": [94.1, 134.1, 103.6, 144.6, 109.1, 129.2, 119.0, 18.5],
        "bottom_left": [79.0, 118.6, 88.3, 129.4, 88.6, 119.3, 103.6, 18.4],
        "bottom_right": [99.1, 139.2, 108.3, 149.6, 108.8, 139.3, 124.1, 18.4],
        "standard 0": [73.8, 104.7, 83.1, 115.0, 82.5, 106.0, 94.0, 11.4],
        "standard 1": [133.2, 94.8, 140.3, 101.2, 104.0, 130.9, 117.2, 11.9],
        "standard 2": [132.5, 87.5, 136.7, 91.4, 98.7, 125.2, 112.0, 11.9],
        "strong 0": [72.1, 97.4, 78.3, 104.6, 78.8, 97.5, 88.1, 11.4],
        "strong 1": [140.4, 113.6, 140.3, 114.2, 121.5, 137.9, 122.0, 1.3],
        "strong 2": [135.6, 90.0, 132.0, 86.2, 97.1, 124.9, 110.9, 12.2],
        "seed 0": [129.3, 79.5, 141.1, 90.8, 99.5, 125.2, 105.8, 15.6],
        "seed 1": [111.2, 85.3, 114.9, 91.5, 86.8, 109.8, 105.5, 13.3],
        "seed 2": [82.0, 138.6, 94.8, 152.1, 104.7, 133.4, 112.6, 18.5],
    }
}
SEARCHED = {
    7: {
        "photo 0": [283.0, 256.0, 192.0, 158.06, 92.62, 25.61, 106.07, 6.66, 9.35],
        "photo 1": [321.0, 256.0, 192.0, 133.96, 108.55, 27.1, 105.27, 6.68, 9.55],
        "photo 2": [266.0, 256.0, 192.0, 151.78, 109.49, 25.36, 106.03, 6.68, 9.47],
        "photo 3": [276.0, 256.0, 192.0, 95.07, 93.13, 25.61, 106.07, 6.66, 9.35],
        "photo 4": [279.0, 256.0, 192.0, 148.95, 107.72, 26.73, 108.26, 6.66, 8.78],
        "photo 5": [255.0, 256.0, 192.0, 148.93, 95.22, 25.46, 104.55, 6.68, 9.21],
        "photo 6": [133.0, 256.0, 192.0, 150.94, 93.22, 26.11, 105.09, 6.68, 8.17],
        "photo 7": [500.0, 256.0, 192.0, 126.48, 100.57, 28.56, 106.63, 6.78, 6.17],
        "photo 8": [287.0, 256.0, 192.0, 150.42, 108.69, 25.29, 106.1, 6.67, 9.83],
        "photo 9": [453.0, 256.0, 192.0, 130.93, 104.77, 26.07, 66.91, 6.66, 8.7],
        "similarity": [0.66, 0.39, 0.39, 0.34, 0.59, 0.85, 0.23, 0.53, -0.1, -0.16],
        "candidates": [
            0.0,
            3.0,
            0.0,
            6.0,
            1.0,
            4.0,
            1.0,
            9.0,
            2.0,
            5.0,
            2.0,
            8.0,
            3.0,
            6.0,
            5.0,
            8.0,
            6.0,
            7.0,
            7.0,
            9.0,
        ],
        "copies (0, 3)": [225.0, 1.0, 1.0, 1.0, 0.0, 8.0],
        "copies (0, 6)": [72.0, 1.0, 1.0, 0.73, 0.0, 8.0],
        "copies (1, 4)": [137.0, 0.8, 1.0, 0.63, 0.0, 7.24],
        "copies (1, 9)": [11.0, 1.0, 1.0, 0.49, 0.0, 5.62],
        "copies (2, 5)": [152.0, 0.92, 1.0, 0.68, 0.0, 7.59],
        "copies (2, 8)": [191.0, 1.0, 1.0, 0.93, 0.0, 8.0],
        "copies (3, 6)": [64.0, 0.99, 1.0, 0.73, 0.0, 8.0],
        "copies (5, 8)": [154.0, 0.92, 1.0, 0.7, 0.0, 7.8],
        "copies (6, 7)": [0.0, 0.0, 0.0, 0.0, 0.0, -1.0],
        "copies (7, 9)": [11.0, 0.65, 0.32, -0.04, 0.0, -6.0],
        "groups": [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0],
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
    numbers = *quarters, *values.mean((0, 1)), np.abs(np.diff(values, axis=1)).mean()
    return [round(float(number), 1) for number in numbers]


def assert_as_stored(
    found: dict[str, list[float]], stored: dict[int, dict], version: int, name: str, **tolerance: float
) -> None:
    tolerance = tolerance or {"abs": TOLERANCE}
    assert version in stored, f"store the output of {name} {version}: {found}"
    assert found.keys() == stored[version].keys()
    for what, numbers in found.items():
        same = numbers == pytest.approx(stored[version][what], **tolerance)
        assert same, f"{what} changed: raise {name} and store {found}"


def test_decoding_changes_with_its_version_alone(tmp_path):
    picture = Image.fromarray(photo())
    picture.save(tmp_path / "plain.png")
    picture.quantize(64).save(tmp_path / "palette.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # shot with the camera on its side
    picture.save(tmp_path / "turned.jpg", exif=turned, quality=95)
    found = {path.name: sketch(read_photo(path, 32)) for path in sorted(tmp_path.iterdir())}
    packed = pixel_cache._pack([np.full((1, 2, 3), 7, np.uint8), np.full((1, 1, 3), 9, np.uint8)])
    found["packed"] = packed.tolist()
    assert_as_stored(found, DECODED, pixel_cache.VERSION, "trunkfold.data.pixel_cache.VERSION")


def test_views_and_augmentations_change_with_their_version_alone():
    found = {name: sketch(render(photo(), view, 64)) for name, view in VIEWS.items()}
    for preset in ("standard", "strong", "seed"):
        augment = Augmentation(preset, 64)
        found |= {f"{preset} {seed}": sketch(augment(photo(), seed)) for seed in range(3)}
    assert_as_stored(found, SHOWN, features.VERSION, "trunkfold.model.features.VERSION")


def test_the_search_for_copies_changes_with_its_version_alone(tmp_path, monkeypatch):
    for name in ("BY_WORDS", "BY_EMBEDDING"):
        monkeypatch.setattr(candidates, name, 1)  # of so few photos, all would be candidates
    sources = [draw_source(seed, 160, 120) for seed in range(3)]
    pictures = [*sources, mirror(sources[0]), jpeg(crop(sources[1], 0.8)), rotate(sources[2]), blur(noise(sources[0]))]
    pictures.append(ruined(ruined(mirror(sources[1])), 1))  # aligned by cells
    pictures += [foggy(sources[2]), solarized(sources[1])]
    records = [record_of(picture, tmp_path) for picture in pictures]
    found = {
        f"photo {place}": [
            float(record["count"]),
            *record["size"].tolist(),
            *record["points"][: record["count"]].mean(0).tolist(),
            float(record["descriptors"][: record["count"]].mean()),
            float(record["thumbnails"].mean()),
            float(100 * record["embedding"].std()),
            float(record["cells"].astype(np.float32).std()),
        ]
        for place, record in enumerate(records)
    }
    embeddings, statistics = project([record["embedding"] for record in records]), measure_cells(records)

    def look(one: int, other: int) -> Evidence:
        return compare(records[one], records[other], statistics)

    pairs = [tuple(pair) for pair in find_candidates(records, embeddings, 1)[:, :2].tolist()]
    links = {pair: look(*pair) for pair in pairs}
    found["similarity"] = [float(embeddings[one] @ embeddings[other]) for one, other in pairs]
    found["candidates"] = [float(number) for pair in pairs for number in pair]
    found |= {f"copies {pair}": [*map(float, astuple(one)), one.log_odds] for pair, one in links.items()}
    groups = join(range(len(records)), links, look)
    found["groups"] = [float(number) for number, group in enumerate(groups) for _ in group.members]
    found = {what: [round(number, 2) for number in numbers] for what, numbers in found.items()}
    assert_as_stored(found, SEARCHED, search.VERSION, "trunkfold.copies.search.VERSION", rel=0.05, abs=0.05)


def test_an_unstored_version_and_other_output_are_both_refused():
    with pytest.raises(AssertionError, match="store the output of X 2"):
        assert_as_stored({"a": [1.0]}, {1: {"a": [1.0]}}, 2, "X")
    with pytest.raises(AssertionError, match="a changed: raise X"):
        assert_as_stored({"a": [1.0]}, {1: {"a": [5.0]}}, 1, "X")
