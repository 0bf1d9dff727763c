"""Augmentation is a function of photo and seed, with a fixed output size."""

import multiprocessing
import pickle

import numpy as np
import pytest

from trunkfold.errors import InputError
from trunkfold.images.augmentation import PRESETS, Augmentation

PHOTO = np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)
PHOTO.setflags(write=False)


@pytest.mark.parametrize("spec", ["standard", "strong", [{"GaussNoise": {"p": 1.0}}]], ids=str)
def test_the_same_seed_gives_the_same_pixels_whatever_came_between(spec):
    one, other = Augmentation(spec, 64), Augmentation(spec, 64)
    first = one(PHOTO, 5)
    one(PHOTO, 6)
    np.testing.assert_array_equal(first, one(PHOTO, 5))
    np.testing.assert_array_equal(first, other(PHOTO, 5))


def test_other_seeds_give_other_pixels():
    augment = Augmentation("standard", 64)
    assert len({augment(PHOTO, seed).tobytes() for seed in range(20)}) == 20


def test_a_worker_that_is_sent_the_augmentation_augments_the_same_way():
    augment = Augmentation("strong", 64)
    augment(PHOTO, 1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(augment))(PHOTO, 5), augment(PHOTO, 5))


def pixels_of_many_seeds() -> list[bytes]:
    augmentations = [Augmentation(spec, 64) for spec in ("standard", "strong")]
    return [augment(PHOTO, seed).tobytes() for augment in augmentations for seed in range(20)]


def test_another_process_gives_the_same_pixels():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(pixels_of_many_seeds) == pixels_of_many_seeds()


def test_the_transforms_draw_independently_of_each_other():
    """Each with a stream of its own from one seed, as albumentations would have it, would mirror both ways or none."""
    augment = Augmentation([{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}], 4)
    photo = np.zeros((4, 4, 3), np.uint8)
    photo[0, 0] = 255
    corners = np.sum([augment(photo, seed)[[0, 0, 3, 3], [0, 3, 0, 3], 0] > 0 for seed in range(1000)], axis=0)
    assert np.abs(corners - 250).max() < 4 * np.sqrt(1000 * 0.25 * 0.75)


def test_neighbouring_seeds_draw_independently():
    augment = Augmentation([{"GaussNoise": {"std_range": [0.0, 0.2], "p": 1.0}}], 32)
    grey = np.full((32, 32, 3), 128, np.uint8)
    strength = np.array([augment(grey, seed).std() for seed in range(1000)])
    assert abs(np.corrcoef(strength[1:], strength[:-1])[0, 1]) < 4 / np.sqrt(1000)


READERS = {"standard": "standard", "none": "none", "seed": "seed", "noise": [{"GaussNoise": {"p": 0.5}}]}


@pytest.mark.parametrize("spec", READERS.values(), ids=READERS)
@pytest.mark.parametrize("size", [64, 70])
def test_a_mapped_photo_is_only_read_and_what_comes_out_may_be_written_to(spec, size, tmp_path):
    square = PHOTO[:, :70]
    np.save(tmp_path / "photo.npy", square)
    photo = np.load(tmp_path / "photo.npy", mmap_mode="r")
    augment = Augmentation(spec, size)
    for pixels in (photo, square.copy(), PHOTO[:, :70]):
        before = pixels.copy()
        for seed in range(20):
            shown = augment(pixels, seed)
            assert (type(shown), shown.dtype, shown.shape) == (np.ndarray, np.uint8, (size, size, 3))
            assert shown.flags.c_contiguous
            shown[:] = 0
        np.testing.assert_array_equal(pixels, before)


def test_a_transform_that_writes_to_its_input_does_not_reach_the_photo(monkeypatch):
    def overwrite(self, img, **params):
        img[:] = 0
        return img

    monkeypatch.setattr("albumentations.ToGray.apply", overwrite)
    photo = PHOTO[:, :70].copy()
    assert not Augmentation([{"ToGray": {"p": 1.0}}], 70)(photo, 0).any()
    np.testing.assert_array_equal(photo, PHOTO[:, :70])


def test_none_only_resizes():
    augment = Augmentation("none", 70)
    np.testing.assert_array_equal(augment(PHOTO[:, :70], 0), PHOTO[:, :70])
    np.testing.assert_array_equal(augment(PHOTO, 0), augment(PHOTO, 1))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (48, 48), (200, 130)], ids=str)
def test_every_preset_gives_the_models_size_for_every_shape(preset, shape):
    augment = Augmentation(preset, 48)
    photo = np.resize(PHOTO, (*shape, 3))
    for seed in range(15):
        pixels = augment(photo, seed)
        assert (pixels.shape, pixels.dtype) == ((48, 48, 3), np.uint8)


def test_a_list_of_transforms_is_applied_in_its_order():
    mirrored = Augmentation([{"HorizontalFlip": {"p": 1.0}}], 70)
    np.testing.assert_array_equal(mirrored(PHOTO[:, :70], 0), PHOTO[:, :70][:, ::-1])
    turned = Augmentation([{"HorizontalFlip": {"p": 1.0}}, {"Transpose": {"p": 1.0}}], 70)
    np.testing.assert_array_equal(turned(PHOTO[:, :70], 0), PHOTO[:, :70][:, ::-1].transpose(1, 0, 2))


def test_a_transform_that_needs_the_size_is_given_it_and_lists_become_its_tuples():
    augment = Augmentation([{"RandomResizedCrop": {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]}}], 70)
    np.testing.assert_array_equal(augment(PHOTO[:, :70], 0), PHOTO[:, :70])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("strongest", "augment: there is no preset 'strongest'; the nearest is strong of none, standard, strong, seed"),
        (
            [{"HorizontalFlop": {}}],
            "augment: albumentations has no transform 'HorizontalFlop'; the nearest is HorizontalFlip",
        ),
        ([{"Compose": {"transforms": []}}], "has no transform 'Compose'"),
        ([{"HorizontalFlip": {"chance": 1}}], "augment: HorizontalFlip has no argument chance; it has p"),
        ([{"HorizontalFlip": {"p": 2}}], r"augment: HorizontalFlip does not accept \{'p': 2\}"),
        ([{"RandomCrop": {"height": 99, "width": 99}}], "augment: the transforms fail on a photo of 64 x 64 pixels"),
        ([{"Normalize": {}}], "augment: the transforms return float32 instead of uint8"),
    ],
)
def test_what_cannot_work_is_told_before_training(spec, message):
    with pytest.raises(InputError, match=message):
        Augmentation(spec, 64)


@pytest.mark.parametrize("preset", ["standard", "strong"])
def test_presets_vary_place_light_and_side_and_keep_the_scene(preset):
    """Left half bright and right half dark: the flip is fair, and the mean stays near the photo's."""
    photo = np.full((60, 80, 3), 60, np.uint8)
    photo[:, :40] = 180
    shown = np.array([Augmentation(preset, 48)(photo, 0)] + [AUGMENT[preset](photo, seed) for seed in range(300)])
    bright_left = (shown[:, :, :10].mean((1, 2, 3)) > shown[:, :, -10:].mean((1, 2, 3))).mean()
    assert 0.4 < bright_left < 0.6
    assert abs(shown.mean() - 120) < 10
    assert shown.mean((1, 2, 3)).std() > 8


AUGMENT = {preset: Augmentation(preset, 48) for preset in ("standard", "strong")}
