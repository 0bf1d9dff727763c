"""Mean and standard deviation are those of all pixels, not averages over photos."""

import numpy as np
import pytest

from trunkfold.images.views import measure_normalization


def test_they_are_numpys_over_all_pixels_of_the_chosen_photos():
    rng = np.random.default_rng(0)
    pixels = [rng.integers(low, low + 100, (16, 16, 3), np.uint8) for low in (0, 40, 100, 150)]
    found = measure_normalization(pixels, np.array([0, 2, 3]), size=16)
    every = np.concatenate([pixels[row].reshape(-1, 3) for row in (0, 2, 3)]) / 255
    assert found.mean == pytest.approx(every.mean(0), abs=1e-6)
    assert found.std == pytest.approx(every.std(0), abs=1e-6)


def test_channels_keep_their_order_and_large_photos_count_as_much_as_small_ones():
    red = np.full((10, 40, 3), (255, 51, 0), np.uint8)
    dark = np.zeros((200, 100, 3), np.uint8)
    found = measure_normalization([red, dark], np.arange(2), size=32)
    assert found.mean == pytest.approx([0.5, 0.1, 0])
    assert found.std == pytest.approx([0.5, 0.1, 1 / 255], abs=1e-6)
