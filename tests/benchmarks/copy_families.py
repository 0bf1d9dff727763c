"""Families of augmentation that the search for copies is judged on, each held back from its own calibration in turn."""

import os

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import checks for updates
import albumentations as A

FILLS = (cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE)
MIXED = ("recrop", "geometry", "warp", "blur", "noise", "colour", "jpeg", "light")
# Policies of torchvision. Those with negatives, RandAugment and TrivialAugment, led to the tones of `likeness.py`, by a
# look at development sources.
POLICIES = {
    "RandAugment": lambda _: T.RandAugment(2, 12),
    "TrivialAugment": lambda _: T.TrivialAugmentWide(),
    "AugMix": lambda _: T.AugMix(severity=6),
    "crop, jitter, blur": lambda size: T.Compose(
        [
            T.RandomResizedCrop(size, scale=(0.4, 1.0)),
            T.ColorJitter(0.4, 0.4, 0.4, 0.1),
            T.RandomGrayscale(0.2),
            T.GaussianBlur(9, (0.1, 2.0)),
        ]
    ),
    "quarter turns": lambda size: T.Compose(
        [
            T.RandomResizedCrop(size, scale=(0.6, 1.0)),
            T.RandomChoice([T.RandomRotation([angle, angle], expand=True) for angle in (0, 90, 180, 270)]),
        ]
    ),
    "rotation, zoom, shear": lambda _: T.RandomAffine(40, (0.2, 0.2), (0.8, 1.2), (-12, 12, -12, 12)),
}
FAMILIES = (*MIXED, "overlay", "faint", "mixture", "hard mixture", *POLICIES)
FINAL = ("faint", "hard mixture", *POLICIES)  # in no fit


def make_copy(pixels: np.ndarray, family: str, rng: np.random.Generator) -> np.ndarray:
    """Augment a photo by a family of `FAMILIES`; half of the copies are mirrored."""
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if family in POLICIES:
        torch.manual_seed(int(rng.integers(2**31)))
        return np.asarray(POLICIES[family](pixels.shape[:2])(Image.fromarray(pixels)))
    if family == "faint":
        contrast = rng.uniform(0.02, 0.15)
        return (contrast * pixels + rng.uniform(0, 255 * (1 - contrast))).round().astype(np.uint8)
    if family == "mixture":
        names = [MIXED[place] for place in sorted(rng.permutation(len(MIXED))[:2])]
    elif family == "hard mixture":
        names = [name for name in MIXED if name == "recrop" or rng.random() < 0.4]
        names += ["overlay"] * (rng.random() < 0.4)
    else:
        names = [family]
    for name in names:
        pixels = _steps(name, pixels, rng)(image=np.ascontiguousarray(pixels))["image"]
    return np.ascontiguousarray(pixels)


def _steps(name: str, pixels: np.ndarray, rng: np.random.Generator) -> A.Compose:
    if name == "overlay":
        return lambda image: {"image": draw_overlay(image, rng)}
    size, fill = pixels.shape[:2], int(rng.choice(FILLS))
    border = {"border_mode": fill, "fill": int(rng.integers(256)), "p": 1.0}
    steps = {
        "recrop": lambda: [A.RandomResizedCrop(size, scale=(0.35, 0.8), ratio=(0.6, 1.67), p=1.0)],
        "geometry": lambda: [
            A.OneOf(
                [
                    A.Perspective(scale=(0.06, 0.14), **border),
                    A.Affine(shear={"x": (-18, 18), "y": (-10, 10)}, **border),
                    A.Affine(rotate=(-30, 30), scale=(0.85, 1.1), **border),
                ],
                p=1.0,
            )
        ],
        "warp": lambda: [
            A.OneOf(
                [
                    A.ElasticTransform(alpha=60, sigma=8, **border),
                    A.GridDistortion(num_steps=5, distort_limit=(-0.3, 0.3), border_mode=fill, p=1.0),
                    A.OpticalDistortion(distort_limit=(-0.5, 0.5), border_mode=fill, p=1.0),
                ],
                p=1.0,
            )
        ],
        "blur": lambda: [
            A.OneOf(
                [
                    A.MotionBlur(blur_limit=(7, 15), p=1.0),
                    A.Defocus(radius=(2, 5), p=1.0),
                    A.GaussianBlur(blur_limit=0, sigma_limit=(1.5, 3.5), p=1.0),
                ],
                p=1.0,
            )
        ],
        "noise": lambda: [
            A.OneOf(
                [
                    A.GaussNoise(std_range=(0.08, 0.2), p=1.0),
                    A.ISONoise(color_shift=(0.05, 0.2), intensity=(0.5, 1.0), p=1.0),
                    A.SaltAndPepper(amount=(0.03, 0.12), p=1.0),
                    A.MultiplicativeNoise(multiplier=(0.6, 1.4), per_channel=True, elementwise=True, p=1.0),
                ],
                p=1.0,
            )
        ],
        "colour": lambda: [
            A.OneOf(
                [
                    A.HueSaturationValue((-90, 90), (-60, 60), (-40, 40), p=1.0),
                    A.ColorJitter((0.5, 1.5), (0.5, 1.6), (0.2, 2.0), (-0.5, 0.5), p=1.0),
                    A.ToGray(p=1.0),
                    A.ChannelShuffle(p=1.0),
                    A.CLAHE(clip_limit=(4, 10), p=1.0),
                    A.Posterize(num_bits=(2, 3), p=1.0),
                ],
                p=1.0,
            )
        ],
        "jpeg": lambda: [
            A.Downscale(scale_range=(0.35, 0.8), p=0.6),
            A.ImageCompression(quality_range=(8, 30), p=1.0),
            A.ImageCompression(quality_range=(8, 50), p=0.5),
        ],
        "light": lambda: [
            A.OneOf(
                [
                    A.RandomShadow(shadow_roi=(0, 0, 1, 1), num_shadows_limit=(1, 3), shadow_dimension=6, p=1.0),
                    A.RandomFog(fog_coef_range=(0.3, 0.7), alpha_coef=0.1, p=1.0),
                    A.RandomGamma(gamma_limit=(40, 220), p=1.0),
                    A.RandomBrightnessContrast((-0.4, 0.4), (-0.4, 0.4), p=1.0),
                    A.RandomSunFlare(src_radius=90, p=1.0),
                    A.Illumination(intensity_range=(0.1, 0.2), p=1.0),
                ],
                p=1.0,
            )
        ],
    }
    return A.Compose(steps[name](), seed=int(rng.integers(2**31)))


def draw_overlay(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add one or two of watermark, text, frame, letterbox and cut-outs."""
    ways = (_watermark, _text, _frame, _letterbox, _cut_out)
    pixels = pixels.copy()
    for place in rng.permutation(len(ways))[: rng.integers(1, 3)]:
        pixels = ways[place](pixels, rng)
    return pixels


def _watermark(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    layer = pixels.copy()
    word = "".join(chr(letter) for letter in rng.integers(65, 91, rng.integers(4, 9)))
    for y in range(10, pixels.shape[0] + 20, int(rng.integers(35, 80))):
        for x in range(-20, pixels.shape[1], int(rng.integers(80, 140))):
            cv2.putText(layer, word, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.7, _colour(rng), 2, cv2.LINE_AA)
    share = float(rng.uniform(0.3, 0.7))
    return cv2.addWeighted(layer, share, pixels, 1 - share, 0)


def _text(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(-20, width // 2)), int(rng.integers(20, height))
        word = "".join(chr(letter) for letter in rng.integers(48, 91, rng.integers(4, 14)))
        cv2.putText(pixels, word, place, cv2.FONT_HERSHEY_DUPLEX, rng.uniform(0.6, 1.6), _colour(rng), 2, cv2.LINE_AA)
    return pixels


def _frame(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sides = [int(rng.uniform(0.03, 0.15) * length) for length in (*pixels.shape[:2], *pixels.shape[:2])]
    framed = cv2.copyMakeBorder(pixels, sides[0], sides[2], sides[1], sides[3], cv2.BORDER_CONSTANT, value=_colour(rng))
    return cv2.resize(framed, pixels.shape[1::-1], interpolation=cv2.INTER_AREA)


def _letterbox(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    bar = int(rng.uniform(0.08, 0.25) * min(pixels.shape[:2]))
    sides = (bar, bar, 0, 0) if rng.random() < 0.5 else (0, 0, bar, bar)
    return cv2.copyMakeBorder(pixels, *sides, cv2.BORDER_CONSTANT, value=(int(rng.choice([0, 255])),) * 3)


def _cut_out(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    for _ in range(rng.integers(1, 4)):
        high, wide = int(rng.uniform(0.15, 0.4) * height), int(rng.uniform(0.15, 0.4) * width)
        top, left = rng.integers(height - high), rng.integers(width - wide)
        hole = pixels[top : top + high, left : left + wide]
        hole[:] = rng.integers(0, 256, hole.shape) if rng.random() < 0.3 else _colour(rng)
    return pixels


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    return tuple(int(value) for value in rng.integers(0, 256, 3))
