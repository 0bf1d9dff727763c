"""The contact sheet shows the photos, followed by augmented versions."""

import cv2
import numpy as np
import pytest
from PIL import Image

from trunkfold.images.augmentation import Augmentation
from trunkfold.images.contact_sheet import GAP, LARGEST, SHOWN, draw_sheet

RED, BLUE = (200, 8, 8), (8, 8, 200)


def plain(colour: tuple[int, int, int], height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def centres(path, lines: int) -> np.ndarray:
    """Colour in the middle of each picture: shape (lines, 1 + SHOWN, 3)."""
    sheet = np.asarray(Image.open(path))
    side = (sheet.shape[0] - GAP) // lines - GAP
    margin = sheet.shape[1] - (SHOWN + 1) * (side + GAP)
    rows = [GAP + line * (side + GAP) + side // 2 for line in range(lines)]
    columns = [margin + column * (side + GAP) + side // 2 for column in range(SHOWN + 1)]
    return sheet[np.ix_(rows, columns)]


def test_each_line_holds_its_photo_and_then_seven_augmented_ones(tmp_path):
    photos = [plain((0, 0, 0), 5, 5), plain(RED, 100, 200), plain(BLUE, 200, 100)]
    (tmp_path / "sheet.png").write_bytes(draw_sheet(photos, [2, 1], ["blue", "red"], lambda pixels, seed: 255 - pixels))
    shown = centres(tmp_path / "sheet.png", 2).astype(int)
    np.testing.assert_allclose(shown[:, 0], [BLUE, RED], atol=3)
    np.testing.assert_allclose(shown[:, 1:], 255 - np.array([[BLUE] * SHOWN, [RED] * SHOWN]), atol=3)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_every_picture_has_a_seed_of_its_own(tmp_path):
    seeds = []

    def augment(pixels, seed):
        seeds.append(seed)
        return pixels

    (tmp_path / "sheet.png").write_bytes(draw_sheet([plain(RED, 9, 9)] * 3, range(3), ["a", "b", "c"], augment))
    assert len(set(seeds)) == 3 * SHOWN


def test_the_same_photos_give_the_same_file(tmp_path):
    photos = [np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)]
    for name in ("one.png", "other.png"):
        (tmp_path / name).write_bytes(draw_sheet(photos, [0], ["x"], Augmentation("standard", 64)))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


@pytest.mark.parametrize("lines", [1, 6, 12])
def test_the_sheet_is_small_and_its_pictures_do_not_grow_beyond_what_the_model_sees(tmp_path, lines):
    photos = [textured(seed) for seed in range(lines)]
    names = [f"class {line}" for line in range(lines)]
    (tmp_path / "sheet.png").write_bytes(draw_sheet(photos, range(lines), names, Augmentation("standard", 224)))
    assert (tmp_path / "sheet.png").stat().st_size < 1_000_000
    height, width = np.asarray(Image.open(tmp_path / "sheet.png")).shape[:2]
    assert height <= GAP + lines * (LARGEST + GAP)
    assert 600 < width < 1800


def textured(seed: int) -> np.ndarray:
    """Clouds with some grain: as hard to compress as a photo."""
    rng = np.random.default_rng(seed)
    clouds = sum(cv2.resize(rng.normal(0, 40, (side, side, 3)), (300, 256)) for side in (4, 16, 64))
    return (128 + clouds + rng.normal(0, 4, (256, 300, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1), (1, 1)])
def test_photos_of_any_shape_are_shown(tmp_path, shape):
    (tmp_path / "sheet.png").write_bytes(draw_sheet([plain(RED, *shape)], [0], ["x"], Augmentation("none", 32)))
    whole = np.asarray(Image.open(tmp_path / "sheet.png"))[:, : -SHOWN * (LARGEST + GAP)].astype(int)
    assert (abs(whole - RED) <= 3).all(2).any()


def test_a_long_name_fits_before_the_pictures(tmp_path):
    for name in ("x", "a class with quite a long name"):
        (tmp_path / f"{name[0]}.png").write_bytes(
            draw_sheet([plain(RED, 9, 9)], [0], [name], lambda pixels, seed: pixels)
        )
    short, long = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "xa")
    assert long.shape[1] > short.shape[1] + 100
    dark = (long.max(2) < 100).nonzero()[1]  # the letters
    assert dark.max() < long.shape[1] - (SHOWN + 1) * (LARGEST + GAP)
