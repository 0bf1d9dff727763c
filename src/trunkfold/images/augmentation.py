"""What a photo looks like while the tails learn, in the language of albumentations."""

import inspect
import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from trunkfold.errors import InputError, nearest
from trunkfold.images.transforms import TRANSFORMS, A, Warp

Augmentation = Callable[[np.ndarray, int], np.ndarray]

# The damage decides, not its place, size, side or light. Noise and blur are what the copies on the leaderboard have.
STANDARD: list[dict[str, dict[str, Any]]] = [
    {
        "Warp": {
            "scale": [0.5, 1.0],
            "ratio": [0.75, 1.333],
            "mirror": 0.5,
            "rotate": [-10, 10],
            "shear": [-5, 5],
            "affine_p": 0.3,
        }
    },
    {"Colour": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.03, "p": 0.8}},
    {"Noise": {"std_range": [0.02, 0.08], "p": 0.2}},
    {"GaussianBlur": {"blur_limit": [3, 5], "p": 0.1}},
]
# The same in albumentations' own transforms, four times as slow: what tests and benchmarks compare `STANDARD` with.
STEP_BY_STEP: list[dict[str, dict[str, Any]]] = [
    {"RandomResizedCrop": {"scale": [0.5, 1.0], "ratio": [0.75, 1.333]}},
    {"HorizontalFlip": {"p": 0.5}},
    {"Affine": {"rotate": [-10, 10], "shear": [-5, 5], "border_mode": cv2.BORDER_REFLECT_101, "p": 0.3}},
    {"ColorJitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.03, "p": 0.8}},
    {"GaussNoise": {"std_range": [0.02, 0.08], "p": 0.2}},
    {"GaussianBlur": {"blur_limit": [3, 5], "p": 0.1}},
]
# For long schedules and larger models, which see a photo often: harder crops, colours and losses, and holes.
STRONG: list[dict[str, dict[str, Any]]] = [
    {
        "Warp": {
            "scale": [0.3, 1.0],
            "ratio": [0.667, 1.5],
            "mirror": 0.5,
            "rotate": [-20, 20],
            "shear": [-10, 10],
            "affine_p": 0.5,
        }
    },
    {"Colour": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.08, "p": 0.9}},
    {"Noise": {"std_range": [0.02, 0.12], "p": 0.3}},
    {"GaussianBlur": {"blur_limit": [3, 7], "p": 0.2}},
    {"ImageCompression": {"quality_range": [40, 90], "p": 0.2}},
    {"CoarseDropout": {"num_holes_range": [1, 4], "hole_height_range": [0.05, 0.2], "p": 0.3}},
]
# What the student project did that this kit grew from, in albumentations' words.
SEED: list[dict[str, dict[str, Any]]] = [
    {"ColorJitter": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1, "p": 0.9}},
    {"HorizontalFlip": {"p": 0.5}},
    {
        "Affine": {
            "rotate": [-15, 15],
            "translate_percent": [-0.1, 0.1],
            "scale": [0.8, 1.2],
            "shear": [-10, 10],
            "p": 0.5,
        }
    },
    {"GaussNoise": {"std_range": [0.05, 0.05], "p": 0.9}},
    {"RandomResizedCrop": {"scale": [0.8, 1.0], "p": 0.2}},
]
PRESETS: dict[str, list[dict[str, dict[str, Any]]]] = {
    "none": [],
    "standard": STANDARD,
    "strong": STRONG,
    "seed": SEED,
}


def make_augmentation(spec: str | list[dict[str, dict[str, Any]]], size: int) -> Augmentation:
    """Build the training augmentation.

    Args:
        spec: A preset's name, or transforms with their arguments: those of trunkfold.images.transforms and of
            albumentations. Transforms that need the size of what comes out are given it.
        size: Side of what comes out, in pixels; a last resize makes sure of it.

    Returns:
        A function of a photo (uint8, height x width x 3) and a seed, which gives uint8 of shape (size, size, 3); the
        same seed gives the same pixels, in whichever process. The photo is only read, and shares no memory with what
        comes out.

    Raises:
        InputError: An unknown preset, transform or argument, or transforms that fail or do not give uint8.
    """
    if isinstance(spec, str):
        if spec not in PRESETS:
            near = nearest(spec, PRESETS)
            raise InputError(f"augment: there is no preset {spec!r}; the nearest is {near} of {', '.join(PRESETS)}")
        spec = PRESETS[spec]
    steps = [_transform(name, arguments, size) for step in spec for name, arguments in step.items()]
    copies = not (steps and isinstance(steps[0], Warp) and steps[0].p == 1)  # a Warp only reads, and gives its own
    compose = A.Compose(steps)
    _try_out(compose, size)
    reseed = _share_random_numbers(compose)

    def augment(pixels: np.ndarray, seed: int) -> np.ndarray:
        reseed(seed)
        shown = compose(image=pixels.copy() if copies else pixels)["image"]
        if shown.shape[:2] != (size, size):
            shown = cv2.resize(shown, (size, size), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(shown)

    return augment


def _share_random_numbers(compose: A.Compose) -> Callable[[int], None]:
    """Let all transforms draw from one stream, and give the function that begins it anew from a seed.

    `compose.set_random_seed` gives each transform a stream of its own from the same seed, so that all draw the same
    numbers: a mirrored photo would always be a small crop. It also takes ten times as long.
    """
    py_random = random.Random()
    bits = np.random.PCG64(0)
    state = bits.state
    compose.set_random_state(np.random.Generator(bits), py_random)

    def reseed(seed: int) -> None:
        py_random.seed(seed)
        state["state"]["state"] = py_random.getrandbits(128)
        bits.state = state

    return reseed


def _transform(name: str, arguments: dict[str, Any], size: int) -> A.BasicTransform:
    kind = TRANSFORMS.get(name) or getattr(A, name, None)
    if not _is_transform(kind):
        near = nearest(name, [*TRANSFORMS, *(known for known in dir(A) if _is_transform(getattr(A, known)))])
        raise InputError(
            f"augment: neither albumentations nor trunkfold ({', '.join(TRANSFORMS)}) has a transform {name!r}; "
            f"the nearest is {near}"
        )
    known = inspect.signature(kind.__init__).parameters
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        raise InputError(f"augment: {name} takes no {', '.join(unknown)}; it takes {', '.join(list(known)[1:])}")
    if "size" in known:
        arguments = {"size": (size, size), **arguments}
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()})
    except (TypeError, ValueError) as error:
        raise InputError(f"augment: {name} does not accept {arguments}: {error}") from error


def _is_transform(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, A.BasicTransform)


def _try_out(compose: A.Compose, size: int) -> None:
    """Show the transforms a black photo: what they cannot do is better known now than amid an epoch."""
    try:
        dtype = compose(image=np.zeros((size, size, 3), np.uint8))["image"].dtype
    except Exception as error:  # each transform has its own
        raise InputError(f"augment: the transforms fail on a photo of {size} x {size} pixels: {error}") from error
    if dtype != np.uint8:
        raise InputError(f"augment: the transforms give {dtype} instead of uint8: leave out what normalises the pixels")
