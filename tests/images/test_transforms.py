"""Our transforms do at once what albumentations does step by step: the same places, colours and noise, or as many."""

import random

import albumentations as A
import cv2
import numpy as np
import pytest
from albumentations.augmentations.geometric import functional as geometric
from scipy import stats

from trunkfold.errors import InputError
from trunkfold.images.augmentation import STANDARD, STEP_BY_STEP, make_augmentation
from trunkfold.images.transforms import BANK, LUMA, TRANSFORMS, Colour, Noise, Warp

DRAWS = 12000
UNLIKELY = 1e-4  # p-value below which two samples are told apart
Z = 4  # standard errors that an honest mean stays within
SIDE = 48
NO_SHIFT = {"x": (0.0, 0.0), "y": (0.0, 0.0)}


def seeded(transforms: list[A.BasicTransform], seed: int) -> A.Compose:
    """All transforms draw from one stream, as in trunkfold.images.augmentation."""
    compose = A.Compose(transforms)
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return compose


def ramps(height: int, width: int) -> np.ndarray:
    """Each pixel of this photo says where it lies: red is 2 x and green 2 y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x, 2 * y, np.zeros_like(x)], 2).astype(np.uint8)


def noisy(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def step_by_step(**affine) -> list[A.BasicTransform]:
    settings = {"rotate": (0, 0), "shear": (0, 0), "border_mode": cv2.BORDER_REFLECT_101, "translate_percent": NO_SHIFT}
    return [
        A.RandomResizedCrop((SIDE, SIDE), scale=(0.3, 0.9), ratio=(0.7, 1.4)),
        A.HorizontalFlip(p=0.5),
        A.Affine(**(settings | {"p": 1} | affine)),
    ]


def warp(**settings) -> Warp:
    return Warp((SIDE, SIDE), **({"scale": (0.3, 0.9), "ratio": (0.7, 1.4), "affine_p": 1.0} | settings))


# Where things come to lie


@pytest.mark.parametrize("shape", [(60, 70), (48, 48), (12, 70), (70, 12)], ids=str)
def test_without_affine_the_pixels_are_those_of_albumentations(shape):
    photo = noisy(*shape)
    ours = seeded([warp(affine_p=0)], 0)
    theirs = seeded(step_by_step()[:2], 0)
    for seed in range(100):
        ours.set_random_state(ours.random_generator, random.Random(seed))
        theirs.set_random_state(theirs.random_generator, random.Random(seed))
        np.testing.assert_array_equal(ours(image=photo)["image"], theirs(image=photo)["image"])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"rotate": (9, 9)}, {"rotate": (9, 9)}),
        ({"rotate": (-9, -9)}, {"rotate": (-9, -9)}),
        ({"shear": (7, 7)}, {"shear": (7, 7)}),
        ({"shear": (-7, -7), "rotate": (5, 5)}, {"shear": (-7, -7), "rotate": (5, 5)}),
        ({"zoom": (1.3, 1.3)}, {"scale": 1.3}),
        ({"zoom": (0.9, 0.9)}, {"scale": 0.9}),
        ({"shift": (0.13, 0.13)}, {"translate_percent": 0.13}),
        ({"shift": (-0.1, -0.1)}, {"translate_percent": -0.1}),
        (
            {"rotate": (8, 8), "shear": (6, 6), "zoom": (1.2, 1.2), "shift": (0.1, 0.1)},
            {"rotate": (8, 8), "shear": (6, 6), "scale": 1.2, "translate_percent": 0.1},
        ),
    ],
)
def test_a_fixed_affine_shows_the_places_that_albumentations_shows(ours, theirs):
    photo = ramps(60, 70)
    one, other = [warp(**ours)], step_by_step(**theirs)
    middle = slice(SIDE // 4, -SIDE // 4)  # never mirrored
    for seed in range(20):
        shown = seeded(one, seed)(image=photo)["image"][middle, middle].astype(float)
        wanted = seeded(other, seed)(image=photo)["image"][middle, middle].astype(float)
        assert np.abs(shown - wanted).max() <= 2  # of 2 a pixel; one rounding instead of two
        assert np.abs((shown - wanted).mean((0, 1))).max() < 0.35


def geometry(shown: np.ndarray) -> list[float]:
    """What a picture of `ramps` tells: where its middle lies, scales along x and y, angle, shear, and the mirror."""
    low, middle, high = SIDE // 4, SIDE // 2, 3 * SIDE // 4
    places = shown[..., :2].astype(float) / 2
    to_right = (places[middle, high] - places[middle, low]) / (high - low)
    to_bottom = (places[high, middle] - places[low, middle]) / (high - low)
    side = np.sign(to_right[0])
    angle = np.degrees(np.arctan2(to_right[1] * side, to_right[0] * side))
    shear = np.degrees(np.arctan2(to_bottom[0], to_bottom[1])) + angle
    return [*places[middle, middle], np.hypot(*to_right), np.hypot(*to_bottom), side * angle, side * shear, side]


RANDOM = {"rotate": (-10.0, 14.0), "shear": (-3.0, 8.0)}


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray]:
    """The geometry of many draws of ours and of albumentations: shape (DRAWS, 7) each, from other seeds."""
    affine = {**RANDOM, "scale": (0.95, 1.2), "keep_ratio": True, "p": 0.6}
    affine["translate_percent"] = {"x": (-0.05, 0.1), "y": (-0.05, 0.1)}
    ours = seeded([warp(**RANDOM, zoom=(0.95, 1.2), shift=(-0.05, 0.1), affine_p=0.6)], 1)
    theirs = seeded(step_by_step(**affine), 2)
    photo = ramps(90, 120)
    return tuple(np.array([geometry(made(image=photo)["image"]) for _ in range(DRAWS)]) for made in (ours, theirs))


@pytest.mark.parametrize(
    ("place", "name"), list(enumerate(["x", "y", "scale x", "scale y", "angle", "shear", "mirror"]))
)
def test_random_warps_are_distributed_as_those_of_albumentations(samples, place, name):
    ours, theirs = (sample[:, place] for sample in samples)
    centre, spread = theirs.mean(), theirs.std()
    for power in (1, 2, 3):
        one, other = ((values - centre) ** power for values in (ours, theirs))
        error = np.sqrt((one.var() + other.var()) / DRAWS)
        assert abs(one.mean() - other.mean()) < Z * error, f"{name}: moment {power}"
    assert spread > 0
    assert stats.ks_2samp(ours, theirs).pvalue > UNLIKELY


def test_random_warps_hang_together_as_those_of_albumentations(samples):
    """A large crop lies in the middle; a mirrored one is not larger than others."""
    ours, theirs = (np.corrcoef(sample.T) for sample in samples)
    bound = Z * np.sqrt(2 / DRAWS)  # the standard error of a difference of small correlations
    np.testing.assert_allclose(ours, theirs, atol=bound)
    assert np.abs(ours[-1, :4]).max() < bound


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_mirrored_share_is_as_asked(share):
    compose, photo = seeded([warp(mirror=share)], 3), ramps(60, 70)
    mirrored = np.mean([geometry(compose(image=photo)["image"])[-1] < 0 for _ in range(800)])
    assert abs(mirrored - share) <= Z * np.sqrt(share * (1 - share) / 800)


@pytest.mark.parametrize(("zoom", "shift"), [(0.7, 0.2), (1.2, 0.9), (1.2, -0.9)])
def test_inside_the_photo_its_own_pixels_are_shown_and_beyond_it_is_mirrored(zoom, shift):
    photo = ramps(100, 120)
    settings = {"scale": (1, 1), "ratio": (1.2, 1.2), "mirror": 0, "rotate": (20, 20)}
    turned = Warp((100, 120), **settings, zoom=(zoom, zoom), shift=(shift, shift))
    shown = turned(image=photo)["image"].astype(float) / 2
    moved = {"x": int(shift * 120), "y": int(shift * 100)}
    matrix = geometric.create_affine_transformation_matrix(
        moved, {"x": 0, "y": 0}, {"x": zoom, "y": zoom}, 20, geometric.center((100, 120))
    )
    y, x = np.mgrid[:100, :120]
    seen = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix)[:2], np.stack([x, y, np.ones_like(x)]))
    for axis, length in enumerate([120, 100]):
        mirrored = np.abs((seen[axis] + length - 1) % (2 * (length - 1)) - (length - 1))
        assert np.abs(shown[..., axis] - mirrored).max() < 1
        assert ((seen[axis] < -5) | (seen[axis] > length + 4)).any()


def test_the_crops_surroundings_are_the_photo_itself():
    photo = ramps(120, 120)
    crop = Warp((60, 60), scale=(0.25, 0.25), ratio=(1, 1), mirror=0, zoom=(0.75, 0.75))
    for seed in range(40):
        params = crop.get_params_dependent_on_data({"shape": photo.shape}, {})
        left, top, right, bottom = params["crop"]
        if min(left, top, 120 - right, 120 - bottom) > 12:
            shown = seeded([crop], seed).transforms[0].apply(photo, **params).astype(float) / 2
            assert shown[30, 0, 0] == pytest.approx(left + 29.5 - 29.5 / 0.75, abs=0.6)
            assert shown[59, 30, 1] == pytest.approx(top + 29.5 + 29.5 / 0.75, abs=0.6)
            return
    pytest.fail("no crop lay inside")


@pytest.mark.parametrize("settings", [{"affine_p": 0.0}, {"rotate": (5, 5)}, {"zoom": (0.3, 0.3)}], ids=str)
def test_what_shrinks_much_is_averaged(settings):
    """Single bright pixels keep their share of the light; bilinear interpolation would show few of them, unchanged."""
    photo = np.zeros((600, 800, 3), np.uint8)
    photo[::4, ::4] = 255
    for seed in range(5):
        shown = seeded([warp(scale=(0.9, 1.0), **settings)], seed)(image=photo)["image"]
        assert shown.mean() == pytest.approx(255 / 16, abs=1.5)
        assert shown.max() < 50


def test_only_the_axis_that_shrinks_is_averaged():
    photo = ramps(100, 100)[:, :20].repeat(40, 1)
    shown = Warp((100, 40), scale=(1, 1), ratio=(8, 8), mirror=0, affine_p=0)(image=photo)["image"]
    np.testing.assert_array_equal(shown[..., 1], photo[:, :40, 1])


@pytest.mark.parametrize("affine_p", [0, 1])
def test_a_warp_that_changes_nothing_gives_the_photo(affine_p):
    photo = noisy(40, 50)
    still = Warp((40, 50), scale=(1, 1), ratio=(1.25, 1.25), mirror=0, affine_p=affine_p)
    np.testing.assert_array_equal(still(image=photo)["image"], photo)


# Colours


def changed(img: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """The four changes one after another in float arithmetic."""
    pixels = img.astype(float) * brightness
    mean = (pixels @ LUMA).mean()
    pixels = contrast * pixels + (1 - contrast) * mean
    luma = pixels @ LUMA
    pixels = saturation * pixels + (1 - saturation) * luma[..., None]
    axis, angle = np.ones(3) / np.sqrt(3), 2 * np.pi * hue
    along = (pixels @ axis)[..., None] * axis
    turned = along + np.cos(angle) * (pixels - along) + np.sin(angle) * np.cross(axis, pixels)
    return turned + ((pixels - turned) @ LUMA)[..., None]


def test_the_matrix_is_the_four_changes_in_float_arithmetic():
    rng, photo = np.random.default_rng(0), noisy(40, 50)
    for _ in range(100):
        strengths = dict(zip(("brightness", "contrast", "saturation"), rng.uniform(0.5, 1.5, 3), strict=True))
        strengths["hue"] = rng.uniform(-0.2, 0.2)
        wanted = changed(photo, **strengths).clip(0, 255)
        assert np.abs(Colour().apply(photo, **strengths) - wanted).max() <= 1


@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation"])
def test_each_change_is_that_of_albumentations(change):
    photo = noisy(40, 50)
    off = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
    for seed in range(30):
        settings = {**off, change: 0.4, "p": 1.0}
        ours = seeded([Colour(**settings)], seed)(image=photo)["image"].astype(int)
        theirs = seeded([A.ColorJitter(**settings)], seed)(image=photo)["image"]
        assert np.abs(ours - theirs).max() <= 2
        assert np.abs(ours - photo).mean() > 1 or seed > 0


def test_hue_turns_colours_as_far_as_albumentations_does_and_keeps_their_luma():
    wheel = cv2.cvtColor(
        np.stack(np.broadcast_arrays(np.arange(180), 110, 160), -1)[None].astype(np.uint8), cv2.COLOR_HSV2RGB
    )
    still = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0}
    for hue in (-0.1, -0.03, 0.03, 0.1):
        ours = Colour().apply(wheel, **still, hue=hue)
        np.testing.assert_allclose(ours @ LUMA, wheel @ LUMA, atol=1)
        before, after = (cv2.cvtColor(img, cv2.COLOR_RGB2HSV)[0, :, 0] * 2.0 for img in (wheel, ours))
        turn = (after - before + 180) % 360 - 180
        assert turn.mean() == pytest.approx(360 * hue, abs=2)
        assert np.abs(turn - 360 * hue).max() < 9  # the hexagon of HSV is not a circle


def test_colours_are_distributed_as_those_of_albumentations():
    """Same seeds, so the same strengths: what is left are the order, clipping and the kind of hue."""
    photo = cv2.resize(noisy(6, 8), (50, 40), interpolation=cv2.INTER_LINEAR)
    settings = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.03, "p": 1.0}
    draws = [[], []]
    for seed in range(400):
        for kind, drawn in zip((Colour, A.ColorJitter), draws, strict=True):
            drawn.append(seeded([kind(**settings)], seed)(image=photo)["image"].astype(float))
    ours, theirs = np.array(draws)  # shape (draws, height, width, 3)
    bias = theirs.mean((0, 1, 2)) - ours.mean((0, 1, 2))  # ColorJitter cuts decimals off after each of its steps
    assert np.abs(bias + 1).max() < 0.7
    np.testing.assert_allclose(ours.mean((1, 2)).std(0), theirs.mean((1, 2)).std(0), rtol=0.05)  # over draws
    np.testing.assert_allclose(ours.std((1, 2)).mean(0), theirs.std((1, 2)).mean(0), rtol=0.02)  # over pixels
    np.testing.assert_allclose(ours.std((1, 2)).std(0), theirs.std((1, 2)).std(0), rtol=0.05)
    assert np.abs(ours - theirs).mean() < np.abs(theirs - photo).mean() / 4


def test_grey_stays_grey():
    photo = np.repeat(noisy(20, 30)[..., :1], 3, axis=2)
    shown = seeded([Colour(0.3, 0.3, 0.3, 0.5, p=1.0)], 0)(image=photo)["image"].astype(int)
    assert np.ptp(shown, axis=2).max() <= 1


# Noise

GREY = np.full((SIDE, SIDE, 3), 128, np.uint8)


def noise_of(seed: int, low: float, high: float, photo: np.ndarray = GREY) -> np.ndarray:
    return seeded([Noise((low, high), p=1.0)], seed)(image=photo)["image"].astype(float) - photo


@pytest.mark.parametrize("std", [0.01, 0.05, 0.1])
def test_noise_is_gaussian_of_the_strength_that_was_asked_for(std):
    noise = np.array([noise_of(seed, std, std) for seed in range(40)]).ravel()
    wanted = np.hypot(255 * std, np.sqrt(1 / 12))  # and the rounding
    assert noise.std() == pytest.approx(wanted, rel=Z / np.sqrt(2 * noise.size) + 2e-3)
    assert abs(noise.mean()) < Z * wanted / np.sqrt(noise.size)
    if std > 0.05:  # steps of 1 are small
        assert stats.kurtosis(noise) == pytest.approx(0, abs=0.05)
        assert (np.abs(noise) > 2 * wanted).mean() == pytest.approx(0.0455, abs=0.002)


def test_strengths_are_distributed_as_those_of_albumentations():
    ours = [noise_of(seed, 0.02, 0.08).std() for seed in range(500)]
    gauss = [A.GaussNoise((0.02, 0.08), p=1.0)]
    theirs = [(seeded(gauss, seed)(image=GREY)["image"].astype(float) - 128).std() for seed in range(500, 1000)]
    assert stats.ks_2samp(ours, theirs).pvalue > UNLIKELY


def test_noise_of_two_draws_of_two_pixels_and_of_two_channels_is_uncorrelated():
    noise = np.array([noise_of(seed, 0.1, 0.1) for seed in range(30)])
    draws = np.corrcoef(noise.reshape(30, -1))
    assert np.abs(draws[np.triu_indices(30, 1)]).max() < 1.3 * Z / np.sqrt(GREY.size)  # the largest of 435
    for one, other in (
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[..., 1:], noise[..., :-1]),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < Z / np.sqrt(one.size)


def test_noise_saturates_instead_of_wrapping_around():
    for level in (0, 255):
        photo = np.full((SIDE, SIDE, 3), level, np.uint8)
        assert np.abs(noise_of(0, 0.05, 0.05, photo)).max() < 255 * 0.05 * 4.1


def test_a_photo_larger_than_the_bank_has_noise_too():
    photo = np.full((BANK // 3 // 1000 + 200, 1000, 3), 128, np.uint8)
    noise = noise_of(0, 0.1, 0.1, photo)
    assert noise.std() == pytest.approx(25.5, rel=0.01)
    assert noise[-100:].std() == pytest.approx(25.5, rel=0.01)


# What holds for all

EVERY = [
    Warp((SIDE, SIDE), rotate=(-30, 30), shear=(-9, 9), shift=(-0.3, 0.3), zoom=(0.5, 2)),
    Colour(0.2, 0.2, 0.2, 0.1, p=1.0),
    Noise((0.02, 0.1), p=1.0),
]


def test_every_transform_is_tested_here():
    assert {type(transform).__name__ for transform in EVERY} == set(TRANSFORMS)


@pytest.mark.parametrize("transform", EVERY, ids=lambda transform: type(transform).__name__)
@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (2, 3), (SIDE, SIDE), (900, 1100), (30, 900)], ids=str)
def test_any_photo_is_taken_and_only_read(transform, shape):
    photo = noisy(*shape)
    before = photo.copy()
    photo.setflags(write=False)
    for seed in range(3):
        shown = seeded([transform], seed)(image=photo)["image"]
        assert shown.dtype == np.uint8
        assert shown.shape == ((SIDE, SIDE, 3) if isinstance(transform, Warp) else photo.shape)
        assert shown.flags.c_contiguous
        assert shown.flags.writeable
        assert not np.may_share_memory(shown, photo)
    np.testing.assert_array_equal(photo, before)


@pytest.mark.parametrize("transform", EVERY, ids=lambda transform: type(transform).__name__)
def test_the_composes_seed_decides_everything(transform):
    photo, compose = noisy(60, 70), A.Compose([transform])
    shown = []
    for seed in (1, 2, 1):
        compose.set_random_seed(seed)
        random.seed(len(shown))
        np.random.seed(len(shown))
        shown.append(compose(image=photo)["image"])
    np.testing.assert_array_equal(shown[0], shown[2])
    assert (shown[0] != shown[1]).any()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"Warp": {"scale": [0.9, 0.5]}}, "Warp does not accept .*\nscale"),
        ({"Warp": {"scale": [0.5, 1.5]}}, "Warp does not accept .*\nscale"),
        ({"Warp": {"ratio": [0, 1]}}, "Warp does not accept .*\nratio"),
        ({"Warp": {"mirror": 2}}, "Warp does not accept .*\nmirror"),
        ({"Warp": {"rotate": 10}}, "Warp does not accept .*\nrotate"),
        ({"Warp": {"shear": [-60, 60]}}, "Warp does not accept .*\nshear"),
        ({"Warp": {"zoom": [0, 1]}}, "Warp does not accept .*\nzoom"),
        ({"Warp": {"shift": "far"}}, "Warp does not accept .*\nshift"),
        ({"Warp": {"affine_p": -1}}, "Warp does not accept .*\naffine_p"),
        ({"Warp": {"size": [0, 64]}}, "Warp does not accept .*\nsize"),
        ({"Warp": {"turn": 1}}, "augment: Warp takes no turn; it takes size, scale, ratio, mirror, rotate"),
        ({"Colour": {"hue": [0, 0.7]}}, "Colour does not accept"),
        ({"Colour": {"brightness": -1}}, "Colour does not accept .*\nbrightness"),
        ({"Colour": {"light": 1}}, "Colour takes no light; it takes brightness, contrast, saturation, hue, p"),
        ({"Noise": {"std_range": [0.1, 2]}}, "Noise does not accept .*\nstd_range"),
        ({"Noise": {"std": 1}}, "Noise takes no std; it takes std_range, p"),
    ],
)
def test_wrong_arguments_are_named(spec, message):
    with pytest.raises(InputError, match=message):
        make_augmentation([spec], 64)


def test_the_preset_has_the_arguments_of_its_steps():
    ours, theirs = ({name: step[name] for step in spec for name in step} for spec in (STANDARD, STEP_BY_STEP))
    affine = theirs["Affine"]
    shared = {"mirror": theirs["HorizontalFlip"]["p"], "affine_p": affine["p"]}
    turns = {name: affine[name] for name in ("rotate", "shear")}
    assert ours["Warp"] == {**theirs["RandomResizedCrop"], **turns, **shared}
    assert ours["Colour"] == theirs["ColorJitter"]
    assert ours["Noise"] == theirs["GaussNoise"]
    assert ours["GaussianBlur"] == theirs["GaussianBlur"]


def test_the_preset_is_as_strong_as_its_steps():
    """Lightness, spread, sharpness, colour and direction of many draws."""

    def described(spec: str | list) -> np.ndarray:
        augment = make_augmentation(spec, 64)
        rows = []
        for seed in range(1000):
            shown = augment(photo, seed).astype(np.float32)
            edges = np.abs(shown[1:] - shown[:-1]).mean()
            colour, direction = (shown[..., 0] - shown[..., 2]).mean(), (shown[:, :32] - shown[:, 32:]).mean()
            rows.append([shown.mean(), shown.std(), edges, colour, direction])
        return np.array(rows)

    photo = cv2.resize(noisy(9, 12), (96, 72), interpolation=cv2.INTER_CUBIC) // 2
    photo += np.arange(96, dtype=np.uint8)[:, None]
    for ours, theirs in zip(described("standard").T, described(STEP_BY_STEP).T, strict=True):
        assert ours.mean() == pytest.approx(theirs.mean(), abs=Z * np.hypot(ours.std(), theirs.std()) / np.sqrt(1000))
        assert ours.std() == pytest.approx(theirs.std(), rel=0.12)
