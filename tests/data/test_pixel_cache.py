"""Photos are decoded once for all runs and processes, until the content of a file changes."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trunkfold.data import pixel_cache as cache
from trunkfold.data.photos import read_photo
from trunkfold.data.pixel_cache import load_photos
from trunkfold.errors import InputError

SIDE = 24


@pytest.fixture
def paths(tmp_path, monkeypatch) -> list[str]:
    """Ten photos of different sizes and shapes, in blocks of four."""
    monkeypatch.setattr(cache, "BLOCK", 4)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    files = [tmp_path / "photos" / f"{number}.png" for number in range(10)]
    for number, file in enumerate(files):
        Image.fromarray(rng.integers(0, 256, (20 + 3 * number, 50 - 2 * number, 3), np.uint8)).save(file)
    return [str(file) for file in files]


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that were decoded, in no order."""
    names: list[str] = []

    def record(path, side):
        names.append(Path(path).name)
        return read_photo(path, side)

    monkeypatch.setattr(cache, "read_photo", record)
    return names


def assert_equal_photos(pixels, paths):
    assert len(pixels) == len(paths)
    for photo, path in zip(pixels, paths, strict=True):
        np.testing.assert_array_equal(photo, read_photo(path, SIDE))


def test_every_row_holds_its_photo_as_it_is_decoded(paths, tmp_path):
    photos = load_photos(paths, SIDE, tmp_path / "cache")
    assert photos.unreadable == {}
    assert_equal_photos(photos.pixels, paths)
    assert len({photo.shape for photo in photos.pixels}) > 5
    for wrong in (10, -1, -10):
        with pytest.raises(IndexError):
            photos.pixels[wrong]


def test_a_second_run_decodes_nothing(paths, tmp_path, decoded):
    load_photos(paths, SIDE, tmp_path / "cache")
    assert sorted(decoded) == sorted(Path(path).name for path in paths)
    decoded.clear()
    assert_equal_photos(load_photos(paths, SIDE, tmp_path / "cache").pixels, paths)
    assert decoded == []


def test_a_photo_is_known_by_its_content_alone(paths, tmp_path, decoded):
    """Moved, renamed and touched photos are not decoded again; one changed byte is seen, size and date or not."""
    first = load_photos(paths, SIDE, tmp_path / "cache").pixels
    decoded.clear()
    moved = [shutil.copy(path, tmp_path / f"moved {number}.png") for number, path in enumerate(paths)]
    assert load_photos(moved, SIDE, tmp_path / "cache").pixels.folder == first.folder
    assert decoded == []
    times = os.stat(paths[5]).st_atime_ns, os.stat(paths[5]).st_mtime_ns
    content = bytearray(Path(paths[5]).read_bytes())
    other = Image.fromarray(255 - read_photo(paths[5]))
    for level in range(10):  # until the other picture's file is no longer than this one
        other.save(paths[5], compress_level=level)
        if os.path.getsize(paths[5]) <= len(content):
            break
    with open(paths[5], "ab") as file:
        file.write(b"\0" * (len(content) - os.path.getsize(paths[5])))
    os.utime(paths[5], ns=times)
    assert os.path.getsize(paths[5]) == len(content)
    assert_equal_photos(load_photos(paths, SIDE, tmp_path / "cache").pixels, paths)
    assert "5.png" in decoded


def test_other_sizes_and_other_photos_have_caches_of_their_own(paths, tmp_path):
    sizes = [load_photos(paths, side, tmp_path / "cache").pixels for side in (SIDE, 10)]
    assert min(sizes[1][0].shape[:2]) == 10
    assert_equal_photos(load_photos(paths, SIDE, tmp_path / "cache").pixels, paths)
    assert_equal_photos(load_photos(paths[::-1], SIDE, tmp_path / "cache").pixels, paths[::-1])


def test_unreadable_photos_are_black_and_told_every_time(paths, tmp_path):
    Path(paths[2]).write_text("<html>404</html>")
    Path(paths[4]).write_bytes(Path(paths[4]).read_bytes()[:200])
    Path(paths[9]).unlink()
    for _ in range(2):
        photos = load_photos(paths, SIDE, tmp_path / "cache")
        assert {row: reason.split(" (")[0] for row, reason in photos.unreadable.items()} == {
            2: "not an image",
            4: "image file is truncated",
            9: "missing",
        }
        for row in photos.unreadable:
            assert photos.pixels[row].shape == (SIDE, SIDE, 3)
            assert not photos.pixels[row].any()
        np.testing.assert_array_equal(photos.pixels[8], read_photo(paths[8], SIDE))


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files"), OSError(12, "Cannot allocate")])
@pytest.mark.parametrize("place", ["PIL.Image.open", "pathlib.Path.read_bytes"])
def test_what_the_machine_lacks_for_a_moment_is_not_kept_as_unreadable(paths, tmp_path, monkeypatch, place, error):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(InputError, match="cannot be decoded now .*: free memory or allow more open"):
            load_photos(paths, SIDE, tmp_path / "cache")
    assert list(tmp_path.glob("cache/*/*.npy")) == []
    assert load_photos(paths, SIDE, tmp_path / "cache").unreadable == {}


def test_a_name_that_is_too_long_is_no_error_of_the_cache(paths, tmp_path):
    long = str(tmp_path / f"{'a' * 300}.png")
    assert load_photos([paths[0], long], SIDE, tmp_path / "cache").unreadable == {1: "File name too long"}


def test_a_photo_that_was_mended_is_read(paths, tmp_path):
    good = Path(paths[0]).read_bytes()
    Path(paths[0]).unlink()
    assert load_photos(paths, SIDE, tmp_path / "cache").unreadable == {0: "missing"}
    Path(paths[0]).write_bytes(good)
    photos = load_photos(paths, SIDE, tmp_path / "cache")
    assert photos.unreadable == {}
    assert_equal_photos(photos.pixels, paths)


def test_an_interrupted_decoding_goes_on_where_it_was(paths, tmp_path, monkeypatch, decoded):
    record = cache.read_photo

    def interrupt(path, side):
        if Path(path).name == "6.png":
            raise KeyboardInterrupt
        return record(path, side)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "read_photo", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_photos(paths, SIDE, tmp_path / "cache")
    decoded.clear()
    assert_equal_photos(load_photos(paths, SIDE, tmp_path / "cache").pixels, paths)
    assert sorted(decoded) == [f"{number}.png" for number in range(4, 10)]


def test_pixels_cannot_be_written_to(paths, tmp_path):
    photo = load_photos(paths, SIDE, tmp_path / "cache").pixels[0]
    with pytest.raises(ValueError, match="read-only"):
        photo[0, 0] = 0


def test_another_process_is_sent_names_and_not_the_photos(paths, tmp_path):
    pixels = load_photos(paths, SIDE, tmp_path / "cache").pixels
    sent = pickle.dumps(pixels)
    assert len(sent) < 500 + sum(map(len, paths)) + 10 * len(paths)
    assert_equal_photos(pickle.loads(sent), paths)


BUILDER = """
import sys, time
from trunkfold.data import pixel_cache as cache
read = cache.read_photo
def slow(path, side):
    time.sleep(0.2)
    print("decoded", path, flush=True)
    return read(path, side)
cache.read_photo = slow
cache.load_photos(sys.argv[2:], 24, __import__("pathlib").Path(sys.argv[1]))
"""


def test_of_two_builders_one_decodes_and_a_killed_one_does_not_block_the_next(paths, tmp_path):
    def start() -> subprocess.Popen:
        words = [sys.executable, "-c", BUILDER, str(tmp_path / "cache"), *paths]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed = start()
    assert killed.stdout.readline().startswith("decoded")
    killed.kill()
    killed.wait()
    builders = [start(), start()]
    output = "".join(builder.communicate()[0] for builder in builders)
    assert all(builder.returncode == 0 for builder in builders)
    assert sorted(re.findall(r"\d+\.png", output)) == sorted(Path(path).name for path in paths)


def test_a_folder_that_cannot_be_written_to_is_named_with_its_option(paths, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write to .*file.*: choose another --cache\.dir"):
        load_photos(paths, SIDE, tmp_path / "file")


def test_a_full_disk_is_told_and_leaves_no_half_block(paths, tmp_path, monkeypatch):
    def full(file, array):
        file.write(b"half")
        raise OSError(f"{array.size} requested and 4 written")  # what NumPy says then

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(InputError, match=r"requested and 4 written.*choose another --cache\.dir"):
            load_photos(paths, SIDE, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] == [".lock"]
    assert_equal_photos(load_photos(paths, SIDE, tmp_path / "cache").pixels, paths)  # the lock was given back
