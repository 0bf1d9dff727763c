"""Augmentation is a function of the photo and a seed, and gives the model's size whatever the photo's is."""

import numpy as np
import pytest

from trunkfold.augment import PRESETS, make_augmentation
from trunkfold.errors import InputError

PHOTO = np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)
PHOTO.setflags(write=False)


def test_the_same_seed_gives_the_same_pixels_whatever_came_between():
    one, other = make_augmentation("standard", 64), make_augmentation("standard", 64)
    first = one(PHOTO, 5)
    one(PHOTO, 6)
    np.testing.assert_array_equal(first, one(PHOTO, 5))
    np.testing.assert_array_equal(first, other(PHOTO, 5))


def test_other_seeds_give_other_pixels():
    augment = make_augmentation("standard", 64)
    assert len({augment(PHOTO, seed).tobytes() for seed in range(20)}) == 20


def test_the_photo_itself_stays_as_it_was():
    photo = PHOTO.copy()
    augment = make_augmentation("standard", 64)
    for seed in range(20):
        augment(photo, seed)
    np.testing.assert_array_equal(photo, PHOTO)


def test_none_only_resizes():
    augment = make_augmentation("none", 70)
    np.testing.assert_array_equal(augment(PHOTO[:, :70], 0), PHOTO[:, :70])
    np.testing.assert_array_equal(augment(PHOTO, 0), augment(PHOTO, 1))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (48, 48), (200, 130)], ids=str)
def test_every_preset_gives_the_models_size_for_every_shape(preset, shape):
    augment = make_augmentation(preset, 48)
    photo = np.resize(PHOTO, (*shape, 3))
    for seed in range(15):
        pixels = augment(photo, seed)
        assert (pixels.shape, pixels.dtype) == ((48, 48, 3), np.uint8)


def test_a_list_of_transforms_is_applied_in_its_order():
    mirrored = make_augmentation([{"HorizontalFlip": {"p": 1.0}}], 70)
    np.testing.assert_array_equal(mirrored(PHOTO[:, :70], 0), PHOTO[:, :70][:, ::-1])
    turned = make_augmentation([{"HorizontalFlip": {"p": 1.0}}, {"Transpose": {"p": 1.0}}], 70)
    np.testing.assert_array_equal(turned(PHOTO[:, :70], 0), PHOTO[:, :70][:, ::-1].transpose(1, 0, 2))


def test_a_transform_that_needs_the_size_is_given_it_and_lists_become_its_tuples():
    augment = make_augmentation([{"RandomResizedCrop": {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]}}], 70)
    np.testing.assert_array_equal(augment(PHOTO[:, :70], 0), PHOTO[:, :70])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("strong", "augment: there is no preset 'strong'; there are none, standard"),
        ([{"Sunshine": {}}], "augment: albumentations has no transform 'Sunshine'"),
        ([{"Compose": {"transforms": []}}], "augment: albumentations has no transform 'Compose'"),
        ([{"HorizontalFlip": {"chance": 1}}], "augment: HorizontalFlip takes no chance; it takes p"),
        ([{"HorizontalFlip": {"p": 2}}], r"augment: HorizontalFlip does not accept \{'p': 2\}"),
        ([{"RandomCrop": {"height": 99, "width": 99}}], "augment: the transforms fail on a photo of 64 x 64 pixels"),
        ([{"Normalize": {}}], "augment: the transforms give float32 instead of uint8"),
    ],
)
def test_what_cannot_work_is_told_before_training(spec, message):
    with pytest.raises(InputError, match=message):
        make_augmentation(spec, 64)
