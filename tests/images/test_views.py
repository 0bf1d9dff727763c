"""A view shows a region of the photo; mirroring twice is the identity, and the plain view is the whole photo."""

from dataclasses import replace

import numpy as np
import pytest

from trunkfold.errors import InputError
from trunkfold.images.views import VIEWS, View, check_views, render

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", VIEWS)
def test_mirroring_twice_is_the_identity(name):
    view = VIEWS[name]
    mirrored = render(PHOTO, replace(view, mirror=not view.mirror), 64)
    np.testing.assert_array_equal(mirrored[:, ::-1], render(PHOTO, view, 64))
    assert not np.array_equal(mirrored, render(PHOTO, view, 64))


def test_hflip_is_the_plain_view_mirrored():
    np.testing.assert_array_equal(render(PHOTO, VIEWS["hflip"], 64), render(PHOTO, VIEWS["plain"], 64)[:, ::-1])


def test_the_plain_view_is_the_whole_photo_as_it_is():
    square = PHOTO[:, :60]
    np.testing.assert_array_equal(render(square, VIEWS["plain"], 60), square)


def test_the_plain_view_keeps_the_corners_of_a_long_photo():
    photo = np.zeros((20, 200, 3), np.uint8)
    photo[:10, :20], photo[10:, -20:] = 255, 255
    shown = render(photo, VIEWS["plain"], 20)
    assert shown[0, 0].tolist() == shown[-1, -1].tolist() == [255] * 3
    assert shown[-1, 0].tolist() == shown[0, -1].tolist() == [0] * 3


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("top_left", slice(0, 40), slice(0, 40)),
        ("top_right", slice(0, 40), slice(10, 50)),
        ("bottom_left", slice(10, 50), slice(0, 40)),
        ("bottom_right", slice(10, 50), slice(10, 50)),
        ("centre", slice(5, 45), slice(5, 45)),
    ],
)
def test_a_crop_is_the_part_that_its_name_says(name, rows, columns):
    photo = PHOTO[:50, :50]
    np.testing.assert_array_equal(render(photo, VIEWS[name], 40), photo[rows, columns])


@pytest.mark.parametrize(("name", "side"), [("plain", 224), ("larger", 256), ("smaller", 192), ("centre", 224)])
def test_scaled_views_have_sides_that_the_model_divides(name, side):
    assert render(PHOTO, VIEWS[name], 224).shape == (side, side, 3)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)], ids=str)
def test_a_photo_of_a_pixels_width_is_shown_through_every_view(name, shape):
    shown = render(np.full((*shape, 3), 77, np.uint8), VIEWS[name], 32)
    assert shown.dtype == np.uint8
    assert shown.shape[0] == shown.shape[1] >= 32
    assert (shown == 77).all()


@pytest.mark.parametrize("box", [(0.6, 0.6, 1.0, 1.0), (0.0, 0.0, 0.3, 0.3)])
def test_a_part_is_never_empty(box):
    shown = render(np.full((1, 1, 3), 77, np.uint8), View(box=box), 32)
    np.testing.assert_array_equal(shown, np.full((32, 32, 3), 77))


def test_a_scale_never_goes_below_the_models_stride():
    assert render(PHOTO, View(strides=-9), 64).shape == (32, 32, 3)


def test_an_unknown_view_is_named_beside_the_known_ones():
    check_views(list(VIEWS))
    with pytest.raises(
        InputError, match=r"predict.views: there is no view upside_down; the nearest is .* of plain, hflip, "
    ):
        check_views(["plain", "upside_down"])
