"""Contact sheets: photos as the model is shown them while it learns."""

import io
import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trunkfold.images.augmentation import Augmentation

SHOWN = 7  # augmented pictures beside each photo
LARGEST, SMALLEST = 192, 64  # pixels; side of a picture on the sheet
MOST_PIXELS = 600_000  # of all pictures together; a pixel takes about 1.2 bytes
LOW_BITS = 3  # what is lost of a byte: a step of 4 is invisible and saves a third, a palette would look like noise
GAP = 4  # pixels
TEXT = 15  # pixels; height of the names


def draw_sheet(
    pixels: Sequence[np.ndarray],
    rows: Sequence[int],
    names: Sequence[str],
    augment: Augmentation,
) -> bytes:
    """Draw a line for each photo: its name, the whole photo, then the photo augmented seven times.

    Args:
        pixels: uint8 of shape (height, width, 3) by row.
        rows: The photos to show, one for each name.
        names: What is written before them, such as their class.
        augment: Its seeds are 0, 1, 2 ... along the lines: the same photos give the same sheet.

    Returns:
        A PNG file.
    """
    side = _side(len(rows))
    font = ImageFont.load_default(TEXT)
    margin = GAP + math.ceil(max(font.getlength(name) for name in names)) + 2 * GAP
    lines, columns = len(rows), SHOWN + 1
    sheet = Image.new("RGB", (margin + columns * (side + GAP), GAP + lines * (side + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (row, name) in enumerate(zip(rows, names, strict=True)):
        top = GAP + line * (side + GAP)
        draw.text((GAP, top + side // 2), name, "black", font, anchor="lm")
        seeds = range(line * SHOWN, (line + 1) * SHOWN)
        pictures = [_whole(pixels[row], side), *(_resize(augment(pixels[row], seed), side, side) for seed in seeds)]
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (margin + column * (side + GAP), top))
    png = io.BytesIO()
    Image.fromarray(np.asarray(sheet) | LOW_BITS).save(png, "PNG", optimize=True)
    return png.getvalue()


def _side(lines: int) -> int:
    """Side of a picture such that the sheet stays small."""
    fitting = math.isqrt(MOST_PIXELS // (lines * (SHOWN + 1)))
    return min(LARGEST, max(SMALLEST, fitting))


def _whole(photo: np.ndarray, side: int) -> np.ndarray:
    """The whole photo in the middle of a white square."""
    height, width = photo.shape[:2]
    scale = side / max(height, width)
    picture = _resize(photo, max(1, round(scale * height)), max(1, round(scale * width)))
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - picture.shape[0]) // 2, (side - picture.shape[1]) // 2
    square[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return square


def _resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    shrinks = picture.shape[0] >= height and picture.shape[1] >= width
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
