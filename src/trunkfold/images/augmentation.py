"""Training augmentation: presets and user-defined lists of albumentations transforms."""

import inspect
import os
import random
from typing import Any

import cv2
import numpy as np

from trunkfold.errors import InputError, nearest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import checks for updates
import albumentations as A

Steps = list[dict[str, dict[str, Any]]]
TRANSFORMS = {
    name: kind for name, kind in vars(A).items() if inspect.isclass(kind) and issubclass(kind, A.BasicTransform)
}

PRESETS: dict[str, Steps] = {
    "none": [],
    # Labels are invariant to position, size, side and lighting of the damage; test copies are noisy or blurred. Photos
    # are rotated before cropping, so that most crops contain only real pixels.
    "standard": [
        {"Affine": {"rotate": [-10, 10], "shear": [-5, 5], "border_mode": cv2.BORDER_REFLECT_101, "p": 0.3}},
        {"RandomResizedCrop": {"scale": [0.5, 1.0], "ratio": [0.75, 1.333], "area_for_downscale": "image"}},
        {"HorizontalFlip": {"p": 0.5}},
        {"ColorJitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.03, "p": 0.8}},
        {"GaussNoise": {"std_range": [0.02, 0.08], "p": 0.2}},
        {"GaussianBlur": {"blur_limit": [3, 5], "p": 0.1}},
    ],
    # For long schedules and large models, which overfit more: stronger crops, colours and noise, and coarse dropout.
    "strong": [
        {"Affine": {"rotate": [-20, 20], "shear": [-10, 10], "border_mode": cv2.BORDER_REFLECT_101, "p": 0.5}},
        {"RandomResizedCrop": {"scale": [0.3, 1.0], "ratio": [0.667, 1.5], "area_for_downscale": "image"}},
        {"HorizontalFlip": {"p": 0.5}},
        {"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.08, "p": 0.9}},
        {"GaussNoise": {"std_range": [0.02, 0.12], "p": 0.3}},
        {"GaussianBlur": {"blur_limit": [3, 7], "p": 0.2}},
        {"ImageCompression": {"quality_range": [40, 90], "p": 0.2}},
        {"CoarseDropout": {"num_holes_range": [1, 4], "hole_height_range": [0.05, 0.2], "p": 0.3}},
    ],
    # The augmentation of the student project that serves as the baseline.
    "seed": [
        {"ColorJitter": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1, "p": 0.9}},
        {"HorizontalFlip": {"p": 0.5}},
        {"Affine": {"rotate": [-15, 15], "translate_percent": [-0.1, 0.1], "scale": [0.8, 1.2], "shear": [-10, 10]}},
        {"GaussNoise": {"std_range": [0.05, 0.05], "p": 0.9}},
        {"RandomResizedCrop": {"scale": [0.8, 1.0], "p": 0.2}},
    ],
}


class Augmentation:
    """Training augmentation; the same seed gives the same pixels in every process.

    Pickling stores the arguments, and each data-loader worker rebuilds the transforms.
    """

    def __init__(self, spec: str | Steps, size: int) -> None:
        """Build the transforms.

        Args:
            spec: Name of a preset, or albumentations transforms with their arguments; `size` is filled in.
            size: Side of the augmented photos in pixels; other sizes are resized at the end.

        Raises:
            InputError: An unknown preset, transform or argument, or transforms that fail or do not return uint8.
        """
        self.spec, self.size = spec, size
        steps = [_transform(name, arguments, size) for step in _steps(spec) for name, arguments in step.items()]
        self._compose = A.Compose(steps)
        _try_out(self._compose, size)
        # Compose.set_random_seed is ten times slower and seeds all transforms identically, which correlates them: a
        # mirrored photo would always be a small crop.
        self._random, self._bits = random.Random(), np.random.PCG64(0)
        self._compose.set_random_state(np.random.Generator(self._bits), self._random)

    def __call__(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """Augment a photo, uint8 of shape (height, width, 3), and return a new uint8 array (size, size, 3)."""
        self._random.seed(seed)
        state = self._bits.state
        state["state"]["state"] = self._random.getrandbits(128)
        self._bits.state = state | {"has_uint32": 0, "uinteger": 0}
        shown = self._compose(image=pixels.copy())["image"]
        if shown.shape[:2] != (self.size, self.size):
            shown = cv2.resize(shown, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(shown)

    def __reduce__(self) -> tuple:
        return Augmentation, (self.spec, self.size)


def _steps(spec: str | Steps) -> Steps:
    if not isinstance(spec, str):
        return spec
    if spec not in PRESETS:
        near = nearest(spec, PRESETS)
        raise InputError(f"augment: there is no preset {spec!r}; the nearest is {near} of {', '.join(PRESETS)}")
    return PRESETS[spec]


def _transform(name: str, arguments: dict[str, Any], size: int) -> A.BasicTransform:
    if name not in TRANSFORMS:
        near = nearest(name, TRANSFORMS)
        raise InputError(f"augment: albumentations has no transform {name!r}; the nearest is {near}")
    kind = TRANSFORMS[name]
    known = inspect.signature(kind.__init__).parameters
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        raise InputError(f"augment: {name} has no argument {', '.join(unknown)}; it has {', '.join(list(known)[1:])}")
    if "size" in known:
        arguments = {"size": (size, size), **arguments}
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()})
    except (TypeError, ValueError) as error:
        raise InputError(f"augment: {name} does not accept {arguments}: {error}") from error


def _try_out(compose: A.Compose, size: int) -> None:
    """Run the transforms on a black photo to detect errors before training."""
    try:
        dtype = compose(image=np.zeros((size, size, 3), np.uint8))["image"].dtype
    except Exception as error:  # transforms raise various types
        raise InputError(f"augment: the transforms fail on a photo of {size} x {size} pixels: {error}") from error
    if dtype != np.uint8:
        raise InputError(
            f"augment: the transforms return {dtype} instead of uint8: remove those that normalize the pixels"
        )
