"""Frames, bars and cut-outs are plain, and what was photographed is not."""

import numpy as np
import pytest
from drawn_photos import noise

from trunkfold.copies.plain_areas import INFLUENCE, SIDE, plain_areas

TEXTURE = np.random.default_rng(0).integers(60, 200, (96, 128)).astype(np.uint8)


def thumbnails(grey: np.ndarray) -> np.ndarray:
    return np.dstack([grey, grey])


def test_a_cut_out_is_plain_with_the_windows_that_show_its_border():
    grey = TEXTURE.copy()
    grey[30:60, 40:80] = 128
    plain = plain_areas(thumbnails(grey))
    expected = np.zeros_like(plain)
    reach = INFLUENCE // 2
    expected[30 - reach : 60 + reach, 40 - reach : 80 + reach] = True
    np.testing.assert_array_equal(plain, expected)


@pytest.mark.parametrize("part", [np.s_[:12], np.s_[-12:], np.s_[:, :12]], ids=["top", "bottom", "left"])
def test_bars_are_plain(part):
    grey = TEXTURE.copy()
    grey[part] = 0
    assert plain_areas(thumbnails(grey))[part].all()


def test_rounding_does_not_make_an_area_textured():
    grey = TEXTURE.copy()
    grey[30:60, 40:80] = 128 + np.random.default_rng(1).integers(0, 2, (30, 40))
    assert plain_areas(thumbnails(grey))[30:60, 40:80].all()


def test_small_areas_slopes_and_grain_are_not_plain():
    small = TEXTURE.copy()
    small[30 : 30 + SIDE - 1, 40:80] = 128
    slope = np.linspace(0, 255, 128).round().astype(np.uint8)[None].repeat(96, axis=0)
    grain = noise(np.full((96, 128, 3), 120, np.uint8), 3)[..., 0]
    for grey in (TEXTURE, small, slope, grain):
        assert not plain_areas(thumbnails(grey)).any()


def test_an_area_is_plain_only_if_both_channels_are():
    one = TEXTURE.copy()
    one[30:60, 40:80] = 128
    assert not plain_areas(np.dstack([one, TEXTURE])).any()
