"""Transforms of albumentations' kind that do several of its steps at once, for training as fast as a CPU can.

One warp instead of crop, mirror and affine, one matrix instead of four colour changes, noise from a bank instead of new
noise: a quarter of the time. Random numbers come from the transforms' own generators only, so that a Compose's
`set_random_seed` or `set_random_state` decides everything.
"""

import functools
import math
import os
from typing import Annotated, Any

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would look for a newer release on the network
import albumentations as A
import cv2
from albumentations.core.pydantic import check_range_bounds, nondecreasing
from albumentations.core.transforms_interface import BaseTransformInitSchema
from pydantic import AfterValidator, Field

Pair = tuple[float, float]
Box = tuple[int, int, int, int]  # left, top, right and bottom edge in pixels
Inverse = tuple[float, float, float, float, float, float]  # a to f: (x, y) shows (a x + b y + c, d x + e y + f)

SHRINK = 1.5  # bilinear interpolation reads two pixels a side: what shrinks more than this is averaged first
BANK = 1 << 22  # numbers; a photo of 224 x 224 pixels takes 1 in 28
UNIT = 32  # what one standard deviation is in the bank's bytes: four of them fit

LUMA = np.array([0.299, 0.587, 0.114])  # of ITU-R BT.601, as cv2.COLOR_RGB2GRAY
TO_GREY = np.outer(np.ones(3), LUMA)
TO_CHROMA = np.eye(3) - TO_GREY
# The cross product with the grey axis turns by 90 degrees what stands upright on it; then luma is taken out.
QUARTER_TURN = TO_CHROMA @ np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)


def _range(least: float, most: float) -> Any:
    """The type of a pair (low, high) within bounds."""
    return Annotated[Pair, AfterValidator(check_range_bounds(least, most)), AfterValidator(nondecreasing)]


class Warp(A.ImageOnlyTransform):
    """RandomResizedCrop, HorizontalFlip and Affine with one interpolation instead of two.

    Crops, angles, shear and shifts are distributed as those of albumentations, with its pixel centres and directions.
    Two things differ. What lies beyond the crop but inside the photo is the photo: only beyond the photo is it
    mirrored (the edge pixel once, as BORDER_REFLECT_101), where albumentations mirrors at the crop's edges. And what
    shrinks by more than 1.5 is averaged over its area first, where albumentations would skip pixels.

    Args:
        size: Height and width of what comes out, in pixels.
        scale: Range of the crop's share of the photo's area.
        ratio: Range of the crop's width over its height; its logarithm is uniform.
        mirror: Probability that left and right are exchanged.
        rotate: Range of the angle in degrees; positive turns counter-clockwise.
        shear: Range of the two shear angles in degrees, x and y.
        shift: Range of the two shifts as shares of the width and height of what comes out, cut to whole pixels.
        zoom: Range of the factor by which width and height are enlarged alike.
        affine_p: Probability of the four: they come together or not at all.
        p: Probability of the whole transform.
    """

    class InitSchema(BaseTransformInitSchema):
        size: Annotated[tuple[int, int], AfterValidator(check_range_bounds(1, None))]
        scale: _range(0, 1)
        ratio: _range(1e-3, 1e3)
        mirror: float = Field(ge=0, le=1)
        rotate: _range(-360, 360)
        shear: _range(-40, 40)  # shears of 45 degrees along both axes leave a line
        shift: _range(-1, 1)
        zoom: _range(0.1, 10)
        affine_p: float = Field(ge=0, le=1)

    def __init__(
        self,
        size: tuple[int, int],
        scale: Pair = (0.08, 1.0),
        ratio: Pair = (3 / 4, 4 / 3),
        mirror: float = 0.5,
        rotate: Pair = (0.0, 0.0),
        shear: Pair = (0.0, 0.0),
        shift: Pair = (0.0, 0.0),
        zoom: Pair = (1.0, 1.0),
        affine_p: float = 1.0,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        self.size, self.scale, self.ratio, self.mirror = size, scale, ratio, mirror
        self.rotate, self.shear, self.shift, self.zoom, self.affine_p = rotate, shear, shift, zoom, affine_p

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw `crop` (a Box), `mirrored` and `inverse`: see `_draw_inverse`, or None where nothing turns."""
        crop = self._draw_crop(*params["shape"][:2])
        mirrored = self.py_random.random() < self.mirror
        turned = self.py_random.random() < self.affine_p
        return {"crop": crop, "mirrored": mirrored, "inverse": self._draw_inverse() if turned else None}

    def apply(self, img: np.ndarray, crop: Box, mirrored: bool, inverse: Inverse | None, **params: Any) -> np.ndarray:
        """Show the crop: uint8 of shape (*size, 3) from uint8 of shape (height, width, 3)."""
        if inverse is not None:
            return _warp(img, _to_photo(inverse, crop, mirrored, self.size), self.size)
        left, top, right, bottom = crop
        shown = _resize(img[top:bottom, left:right], self.size)
        return cv2.flip(shown, 1, dst=shown) if mirrored else shown

    def _draw_crop(self, height: int, width: int) -> Box:
        """As torchvision's and albumentations' RandomResizedCrop, number by number."""
        ratios = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = self.py_random.uniform(self.scale[0] * height * width, self.scale[1] * height * width)
            ratio = math.exp(self.py_random.uniform(*ratios))
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high <= height:
                top = int((height - high + 1) * self.py_random.random())
                left = int((width - wide + 1) * self.py_random.random())
                return left, top, left + wide, top + high
        wide = min(width, max(1, round(height * self.ratio[1])))
        high = min(height, max(1, round(width / self.ratio[0])))
        left, top = (width - wide) // 2, (height - high) // 2
        return left, top, left + wide, top + high

    def _draw_inverse(self) -> Inverse:
        """The way back from what comes out to the resized crop."""
        height, width = self.size
        uniform = self.py_random.uniform
        shift_x, shift_y = int(uniform(*self.shift) * width), int(uniform(*self.shift) * height)
        shear_x, shear_y = -math.tan(math.radians(uniform(*self.shear))), -math.tan(math.radians(uniform(*self.shear)))
        zoom, angle = uniform(*self.zoom), math.radians(uniform(*self.rotate))
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        a, b, d, e = cos - shear_x * sin, sin + shear_x * cos, shear_y * cos - sin, shear_y * sin + cos
        scale = 1 / (a * e - b * d)
        a, b, d, e = scale * e, -scale * b, -scale * d, scale * a
        centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
        x, y = centre_x + shift_x, centre_y + shift_y
        return a, b, centre_x - a * x - b * y, d, e, centre_y - d * x - e * y


class Colour(A.ColorJitter):
    """ColorJitter in one matrix: brightness, contrast, saturation and hue change in one pass over the pixels.

    Takes ColorJitter's arguments and draws its strengths. All four are affine maps of (red, green, blue); contrast
    moves away from the photo's mean luma, saturation from each pixel's, and hue turns colours about the grey axis and
    restores their luma. So they commute: there is one result where ColorJitter has one for each order. It differs from
    ColorJitter's in that only the end is rounded and clipped, and in hue: ColorJitter's turns in HSV, which keeps the
    largest and smallest of the three instead of the luma.
    """

    def get_params(self) -> dict[str, Any]:
        """Draw the four strengths."""
        uniform = self.py_random.uniform
        names = "brightness", "contrast", "saturation", "hue"
        return {name: uniform(*getattr(self, name)) for name in names}

    def apply(
        self, img: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float, **params: Any
    ) -> np.ndarray:
        """Change the colours: uint8 from uint8 of shape (height, width, 3), off by at most 1 from float arithmetic."""
        angle = 2 * math.pi * hue
        chroma = saturation * math.cos(angle) * TO_CHROMA + saturation * math.sin(angle) * QUARTER_TURN
        matrix = np.empty((3, 4), np.float32)
        matrix[:, :3] = brightness * contrast * (TO_GREY + chroma)
        matrix[:, 3] = brightness * (1 - contrast) * np.dot(cv2.mean(img)[:3], LUMA)
        return cv2.transform(img, matrix)


class Noise(A.ImageOnlyTransform):
    """GaussNoise from a bank: a random part of numbers that are drawn once a process, with a random sign.

    Two parts of the bank that overlap show the same numbers at other pixels, so pixel by pixel they are uncorrelated
    unless all of the 4 million places agree. Numbers are cut at four standard deviations.

    Args:
        std_range: Range of the standard deviation as a share of 255.
        p: Probability of the transform.
    """

    class InitSchema(BaseTransformInitSchema):
        std_range: _range(0, 1)

    def __init__(self, std_range: Pair = (0.2, 0.44), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.std_range = std_range
        _bank()  # before workers are forked: they share it

    def get_params(self) -> dict[str, Any]:
        """Draw `gain`, by which the bank's bytes are multiplied, and `place`, a share of its length."""
        gain = 255 * self.py_random.uniform(*self.std_range) / UNIT
        return {"gain": gain if self.py_random.random() < 0.5 else -gain, "place": self.py_random.random()}

    def apply(self, img: np.ndarray, gain: float, place: float, **params: Any) -> np.ndarray:
        """Add the noise to uint8 of any shape, saturating."""
        start = int(place * (max(0, BANK - img.size) + 1))
        noise = _bank()[start : start + img.size]
        noise = noise.reshape(img.shape) if noise.size == img.size else np.resize(noise, img.shape)
        return cv2.addWeighted(img, 1.0, noise, gain, -128 * gain)


TRANSFORMS: dict[str, type[A.BasicTransform]] = {"Warp": Warp, "Colour": Colour, "Noise": Noise}


@functools.cache
def _bank() -> np.ndarray:
    """Gaussian bytes about 128, the same in every process."""
    numbers = np.random.default_rng(0).standard_normal(BANK, dtype=np.float32)
    return (numbers * UNIT + 128.5).clip(0, 255).astype(np.uint8)


def _to_photo(inverse: Inverse, crop: Box, mirrored: bool, size: tuple[int, int]) -> Inverse:
    """Go on from a place in what was turned to its place in the photo: pixel centres lie at whole numbers."""
    a, b, c, d, e, f = inverse
    left, top, right, bottom = crop
    high, wide = (bottom - top) / size[0], (right - left) / size[1]
    if mirrored:
        a, b, c = -a, -b, size[1] - 1 - c
    return wide * a, wide * b, wide * (c + 0.5) + left - 0.5, high * d, high * e, high * (f + 0.5) + top - 0.5


def _resize(part: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear; an axis that shrinks by more than `SHRINK` is averaged."""
    height, width = (new if now > SHRINK * new else now for now, new in zip(part.shape, size, strict=False))
    part = _average(part, height, width)
    return cv2.resize(part, size[::-1], interpolation=cv2.INTER_LINEAR)


def _average(part: np.ndarray, height: int, width: int) -> np.ndarray:
    if part.shape[:2] == (height, width):
        return part
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)


def _warp(photo: np.ndarray, inverse: Inverse, size: tuple[int, int]) -> np.ndarray:
    """Take each pixel of what comes out from where `inverse` points to; mirror what lies beyond the photo.

    Only the part that is seen is touched, and it is mirrored by copying: OpenCV's warp is slow at borders, and twice as
    fast with four channels as with three.
    """
    rows, height, (d, e, f), (above, below) = _along_axis(*inverse[3:], photo.shape[0], size)
    columns, width, (a, b, c), (before, after) = _along_axis(*inverse[:3], photo.shape[1], size)
    part = _average(photo[rows, columns], height, width)
    if above or below or before or after:
        part = cv2.copyMakeBorder(part, above, below, before, after, cv2.BORDER_REFLECT_101)
    part = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
    matrix = np.array([[a, b, c], [d, e, f]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(part, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


def _along_axis(
    a: float, b: float, c: float, length: int, size: tuple[int, int]
) -> tuple[slice, int, tuple[float, float, float], tuple[int, int]]:
    """What is needed of one axis of a photo to show its pixels a x + b y + c.

    Returns:
        The pixels, to how many they are averaged, a, b and c among these, and how many to mirror before and after.
    """
    low, high = _seen(a, b, c, size)
    first, end = max(0, min(low, 2 * length - 1 - high)), min(length, max(high, 1 - low))
    shrink = math.hypot(a, b)
    kept = max(1, round((end - first) / shrink)) if shrink > SHRINK else end - first
    ratio = kept / (end - first)
    a, b, c = ratio * a, ratio * b, ratio * (c - first + 0.5) - 0.5
    low, high = _seen(a, b, c, size)
    before, after = max(0, -low), max(0, high - kept)
    return slice(first, end), kept, (a, b, c + before), (before, after)


def _seen(a: float, b: float, c: float, size: tuple[int, int]) -> tuple[int, int]:
    """The first pixel, and one past the last, that bilinear interpolation at a x + b y + c may read."""
    x, y = a * (size[1] - 1), b * (size[0] - 1)
    return math.floor(c + min(0, x) + min(0, y)) - 1, math.ceil(c + max(0, x) + max(0, y)) + 2
