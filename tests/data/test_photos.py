"""Any image file is decoded to upright RGB; other files are reported by name."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from trunkfold.data.photos import Photos, missing_photos, read_photo

ORANGE, TEAL, WHITE = (230, 120, 20), (10, 130, 140), (255, 255, 255)


def two_halves(width: int = 24, height: int = 16) -> Image.Image:
    """Left half orange, right half teal."""
    pixels = np.full((height, width, 3), ORANGE, np.uint8)
    pixels[:, width // 2 :] = TEAL
    return Image.fromarray(pixels)


def assert_halves(pixels: np.ndarray, left=ORANGE, right=TEAL, tolerance: int = 6) -> None:
    """Colours well inside the halves; JPEG and WebP smear the edge between them."""
    assert pixels.dtype == np.uint8
    assert pixels.shape[2:] == (3,)
    height, width = pixels.shape[:2]
    for place, colour in ((width // 6, left), (width - 1 - width // 6, right)):
        np.testing.assert_allclose(pixels[height // 2, place].astype(int), colour, atol=tolerance)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_jpeg_png_and_webp_keep_their_colours(name, tmp_path):
    two_halves().save(tmp_path / name, quality=95)
    assert_halves(read_photo(tmp_path / name))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_grey_becomes_three_equal_channels(name, tmp_path):
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / name)
    np.testing.assert_array_equal(read_photo(tmp_path / name), np.full((8, 8, 3), 90))


def test_black_and_white_of_one_bit_becomes_0_and_255(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_transparent_pixels_lie_on_white(tmp_path):
    image = two_halves().convert("RGBA")
    alpha = np.full((16, 24), 255, np.uint8)
    alpha[:, 12:] = 0
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "a.png")
    assert_halves(read_photo(tmp_path / "a.png"), ORANGE, WHITE, tolerance=0)


def test_half_transparent_grey_is_mixed_with_white(tmp_path):
    Image.merge("LA", [Image.new("L", (4, 4), 100), Image.new("L", (4, 4), 51)]).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_photo(tmp_path / "a.png"), 0.2 * 100 + 0.8 * 255, atol=1)


def test_cmyk_becomes_rgb(tmp_path):
    two_halves().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert_halves(read_photo(tmp_path / "a.jpg"))


@pytest.mark.parametrize(("transparency", "right"), [(None, TEAL), (1, WHITE), (b"\xff\x00", WHITE)])
def test_a_palettes_colours_are_looked_up_and_its_transparent_one_is_white(transparency, right, tmp_path):
    image = Image.fromarray(np.repeat([[0, 1]], [12, 12], axis=1).astype(np.uint8).repeat(16, 0), "P")
    image.putpalette([*ORANGE, *TEAL])
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert_halves(read_photo(tmp_path / "a.png"), ORANGE, right, tolerance=0)


def test_sixteen_bits_of_grey_are_scaled_not_clipped(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 51400, 65535]], np.uint16))
    assert read_photo(tmp_path / "a.png")[0, :, 0].tolist() == [0, 200, 255]


def test_sixteen_bits_of_colour_are_scaled_not_clipped(tmp_path):
    wide = np.array(two_halves()).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), wide[..., ::-1])
    assert_halves(read_photo(tmp_path / "a.png"), tolerance=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation, tmp_path):
    """The file holds what a camera held that way saw: turning it as EXIF says gives the scene."""
    upright = np.full((16, 24, 3), WHITE, np.uint8)
    upright[:8, :12], upright[:8, 12:], upright[8:, :12] = ORANGE, TEAL, (60, 60, 60)  # no two corners alike
    seen = {
        1: lambda image: image,
        2: ImageOps.mirror,
        3: lambda image: image.rotate(180),
        4: ImageOps.flip,
        5: lambda image: ImageOps.mirror(image.rotate(-90, expand=True)),
        6: lambda image: image.rotate(90, expand=True),
        7: lambda image: ImageOps.mirror(image.rotate(90, expand=True)),
        8: lambda image: image.rotate(-90, expand=True),
    }[orientation](Image.fromarray(upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.jpg"):
        seen.save(tmp_path / name, exif=exif, quality=95)
        pixels = read_photo(tmp_path / name)
        assert pixels.shape == (16, 24, 3)
        np.testing.assert_allclose(pixels[2::12, 3::18].astype(int), upright[2::12, 3::18], atol=20)


def test_damaged_exif_data_do_not_spoil_the_pixels(tmp_path):
    two_halves().save(tmp_path / "a.png", exif=b"Exif\0\0no such thing")
    assert_halves(read_photo(tmp_path / "a.png"), tolerance=0)


@pytest.mark.parametrize(
    ("size", "reduced"),
    [
        ((400, 200), (100, 50)),  # the short side becomes 50
        ((200, 400), (50, 100)),
        ((40, 30), (40, 30)),  # never enlarged
        ((1, 1), (1, 1)),
        ((3000, 60), (200, 4)),  # no longer than four times the side
        ((2000, 1), (200, 1)),
    ],
    ids=str,
)
def test_the_short_side_is_reduced_to_what_is_kept(size, reduced, tmp_path):
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", size, ORANGE).save(tmp_path / name, quality=95)
        assert read_photo(tmp_path / name).shape == (size[1], size[0], 3)
        pixels = read_photo(tmp_path / name, side=50)
        assert pixels.shape == (reduced[1], reduced[0], 3)
        np.testing.assert_allclose(pixels.astype(int), np.broadcast_to(ORANGE, pixels.shape), atol=4)


def test_pixels_can_be_written_to_as_tensors_want(tmp_path):
    two_halves().save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").flags.writeable


def bad_files(folder: Path) -> dict[str, str]:
    """Name and reason of a file of each kind that is no photo."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    noise.save(folder / "cut.jpg")
    noise.save(folder / "cut.png")
    for name in ("cut.jpg", "cut.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:2000])
    (folder / "page.jpg").write_text("<html><body>404</body></html>")
    (folder / "nothing.jpg").touch()
    (folder / "folder.jpg").mkdir()
    return {
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "page.jpg": "not an image",
        "nothing.jpg": r"empty \(0 bytes\)",
        "folder.jpg": "missing",
        "absent.jpg": "missing",
    }


def test_a_file_that_is_no_photo_is_an_error_with_the_reason(tmp_path):
    for name, reason in bad_files(tmp_path).items():
        with pytest.raises(ValueError, match=reason):
            read_photo(tmp_path / name)


def test_a_file_that_cannot_be_looked_up_is_an_error_with_the_systems_reason(tmp_path, monkeypatch):
    long = str(tmp_path / f"{'a' * 300}.png")
    with pytest.raises(ValueError, match="^File name too long$"):
        read_photo(long)
    assert missing_photos([long]).unreadable == {0: "missing"}

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)  # as in a folder of another user
    with pytest.raises(ValueError, match="^Permission denied$"):
        read_photo(tmp_path / "a.png")


def test_an_error_without_words_is_told_by_its_kind(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    two_halves().save(tmp_path / "a.png")
    monkeypatch.setattr("trunkfold.data.photos._to_rgb", fail)
    with pytest.raises(ValueError, match="MemoryError"):
        read_photo(tmp_path / "a.png")


def test_unreadable_photos_are_told_by_reason_and_name():
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    photos = Photos(unreadable={0: "missing", 1: "image file is truncated", 2: "missing", 3: "empty (0 bytes)"})
    assert photos.describe_unreadable(names) == [
        "2 photos missing: a.jpg, c.jpg",
        "1 photo unreadable: b.jpg (image file is truncated)",
        "1 photo empty (0 bytes): d.jpg",
    ]


def test_of_many_unreadable_photos_the_first_twenty_are_named():
    names = [f"{number}.jpg" for number in range(23)]
    messages = Photos(unreadable=dict.fromkeys(range(23), "missing")).describe_unreadable(names)
    assert messages == ["23 photos missing: " + ", ".join(names[:20]) + " ... and 3 more"]


def test_good_photos_leave_nothing_to_report():
    assert Photos([np.zeros((2, 2, 3), np.uint8)]).describe_unreadable(["a.png"]) == []


def test_missing_photos_are_found_without_decoding_any(tmp_path):
    """A file that is no picture is there; what is wrong with it is for the decoder to say."""
    names = ["good.png", *bad_files(tmp_path)]
    two_halves().save(tmp_path / "good.png")
    photos = missing_photos([str(tmp_path / name) for name in names])
    assert len(photos.pixels) == 0
    assert photos.describe_unreadable(names) == ["2 photos missing: folder.jpg, absent.jpg"]
    assert missing_photos([str(tmp_path / "good.png")]).describe_unreadable(["good.png"]) == []
