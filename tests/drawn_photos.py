"""Synthetic photos for tests of the copy search, and transformations that create copies."""

from pathlib import Path

import cv2
import numpy as np

from trunkfold.copies.descriptors import describe_photo
from trunkfold.demo.damages import draw_photo

SHARED_PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"


def draw_source(seed: int, width: int = 320, height: int = 240) -> np.ndarray:
    """A picture of shapes, lines and words in the muted colours of photos; RGB."""
    rng = np.random.default_rng(seed)
    size = np.array((width, height))

    def place() -> np.ndarray:
        return rng.integers(0, size)

    def colour() -> list[int]:
        return [int(value) for value in rng.integers(40, 216) + rng.integers(-30, 31, 3)]

    coarse = np.array([colour() for _ in range(48)], np.uint8).reshape(6, 8, 3)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(14):
        axes = [int(length) for length in rng.integers(6, 40, 2)]
        cv2.ellipse(picture, place().tolist(), axes, int(rng.integers(180)), 0, 360, colour(), -1, cv2.LINE_AA)
        cv2.fillPoly(picture, [(place() + rng.integers(-40, 41, (4, 2))).astype(np.int32)], colour(), cv2.LINE_AA)
        cv2.line(picture, place().tolist(), place().tolist(), colour(), int(rng.integers(1, 4)), cv2.LINE_AA)
        word = "".join(map(chr, rng.integers(65, 91, 4)))
        cv2.putText(picture, word, place().tolist(), 0, rng.uniform(0.5, 1.2), colour(), 2, cv2.LINE_AA)
    return picture


def draw_car(seed: int) -> np.ndarray:
    return draw_photo(seed % 6 + 1, 240, np.random.default_rng(seed))


def record_of(pixels: np.ndarray, folder: Path) -> np.ndarray:
    cv2.imwrite(str(folder / "photo.png"), pixels[..., ::-1])
    return describe_photo(folder / "photo.png")


def mirror(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, ::-1])


def crop(pixels: np.ndarray, share: float = 0.6, x: float = 1.0, y: float = 0.0) -> np.ndarray:
    """`share` of the area, enlarged to the size it was cut from; `x` and `y` in 0..1 say where."""
    height, width = pixels.shape[:2]
    high, wide = round(height * share**0.5), round(width * share**0.5)
    top, left = round((height - high) * y), round((width - wide) * x)
    return cv2.resize(pixels[top : top + high, left : left + wide], (width, height))


def rotate(pixels: np.ndarray, degrees: float = 10) -> np.ndarray:
    middle = (pixels.shape[1] - 1) / 2, (pixels.shape[0] - 1) / 2
    return _warp(pixels, cv2.getRotationMatrix2D(middle, degrees, 1))


def shear(pixels: np.ndarray) -> np.ndarray:
    return _warp(pixels, np.array([[1, 0.15, -0.075 * len(pixels)], [0, 1, 0]]))


def noise(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    return _clip(pixels + np.random.default_rng(seed).normal(0, 0.05 * 255, pixels.shape))


def blur(pixels: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (0, 0), 1.5)


def ruined(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Blur a photo and add noise, until hardly a feature of SIFT is left."""
    noise = np.random.default_rng(seed).normal(0, 25, pixels.shape)
    return (cv2.GaussianBlur(pixels, (0, 0), 3.0) + noise).clip(0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int = 30) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def hue(pixels: np.ndarray) -> np.ndarray:
    return _recolour(pixels, degrees=30)


def brighter(pixels: np.ndarray) -> np.ndarray:
    return _clip(pixels * 1.25 + 10)


def darker(pixels: np.ndarray) -> np.ndarray:
    return _clip(pixels * 0.7)


def saturated(pixels: np.ndarray) -> np.ndarray:
    return _recolour(pixels, saturation=1.5)


def pale(pixels: np.ndarray) -> np.ndarray:
    return _recolour(pixels, saturation=0.5)


def grey(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def foggy(pixels: np.ndarray) -> np.ndarray:
    return _clip(pixels * 0.1 + 140)


def nearly_black(pixels: np.ndarray) -> np.ndarray:
    return _clip(pixels * 0.06)


def negative(pixels: np.ndarray) -> np.ndarray:
    return 255 - pixels


def solarized(pixels: np.ndarray) -> np.ndarray:
    return np.where(pixels < 128, pixels, 255 - pixels)


def _warp(pixels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(pixels, affine, pixels.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)


def _recolour(pixels: np.ndarray, degrees: float = 0, saturation: float = 1) -> np.ndarray:
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + degrees / 2) % 180
    hsv[..., 1] *= saturation
    return cv2.cvtColor(_clip(hsv), cv2.COLOR_HSV2RGB)


def _clip(pixels: np.ndarray) -> np.ndarray:
    return pixels.clip(0, 255).astype(np.uint8)


COLOURS = [hue, brighter, darker, saturated, pale, grey, foggy, nearly_black]
WAYS = [mirror, crop, rotate, shear, noise, blur, jpeg, *COLOURS]


def with_object(background: np.ndarray, object_seed: int, share: float) -> np.ndarray:
    """A background with an object that covers `share` of it: an ellipse cut from another picture."""
    height, width = background.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    axes = [round(length * (share / np.pi) ** 0.5) for length in (width, height)]
    cv2.ellipse(mask, (round(width * 0.45), round(height * 0.55)), axes, 0, 0, 360, 255, -1)
    return np.where(mask[..., None] > 0, draw_source(object_seed, width, height), background)


def from_another_angle(pixels: np.ndarray, step: float = 0.2) -> np.ndarray:
    """The scene after a step to the side: the near part, an ellipse, moves by `step` of the width against the rest."""
    height, width = pixels.shape[:2]
    near = np.zeros((height, width), np.uint8)
    cv2.ellipse(near, (width // 2, height // 2), (width // 4, height // 3), 0, 0, 360, 255, -1)
    move = np.array([[1, 0.05, step * width], [0.03, 1, 0.02 * height]])
    moved = _warp(pixels, move)
    covered = cv2.warpAffine(near, move, (width, height)) > 0
    return np.where(covered[..., None], moved, shear(pixels))


def with_template(pixels: np.ndarray) -> np.ndarray:
    """The photo in the template of an agency: a frame, a name and a watermark, the same on all of its photos."""
    height, width = pixels.shape[:2]
    marked = pixels.copy()
    for y in range(20, height, 50):
        cv2.putText(marked, "STOCK PHOTO AGENCY", (5, y), 0, 0.7 * width / 320, (250, 250, 250), 2, cv2.LINE_AA)
    marked = cv2.addWeighted(marked, 0.5, pixels, 0.5, 0)
    marked[: height // 10] = marked[-height // 10 :] = 20
    cv2.putText(marked, "agency.example 4711", (5, height - 6), 0, 0.6 * width / 320, (240, 200, 40), 1, cv2.LINE_AA)
    return marked
