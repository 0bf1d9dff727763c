"""Contact sheets of augmented training photos."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trunkfold.images.augmentation import Augmentation

SHOWN = 7  # augmented versions per photo
LARGEST, SMALLEST = 192, 64  # side of an image on the sheet, in pixels
MOST_PIXELS = 600_000  # total over all images; a pixel takes about 1.2 bytes in the file
LOW_BITS = 3  # dropped bits: invisible, and they save a third of the file; a palette would look noisy
GAP = 4  # pixels
TEXT = 15  # font size in pixels


def draw_sheet(pixels: Sequence[np.ndarray], rows: Sequence[int], names: Sequence[str], augment: Augmentation) -> bytes:
    """Draw one row per photo: its name, the whole photo, and seven augmented versions.

    Args:
        pixels: uint8 of shape (height, width, 3) by row.
        rows: Photos to show, one per name.
        names: Captions, such as the class.
        augment: Augmentation; called with seeds 0, 1, 2 ..., so that the sheet is reproducible.

    Returns:
        A PNG file.
    """
    lines, columns = len(rows), SHOWN + 1
    side = min(LARGEST, max(SMALLEST, math.isqrt(MOST_PIXELS // (lines * columns))))
    font = ImageFont.load_default(TEXT)
    margin = GAP + math.ceil(max(font.getlength(name) for name in names)) + 2 * GAP
    sheet = Image.new("RGB", (margin + columns * (side + GAP), GAP + lines * (side + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (row, name) in enumerate(zip(rows, names, strict=True)):
        top = GAP + line * (side + GAP)
        draw.text((GAP, top + side // 2), name, "black", font, anchor="lm")
        seeds = range(line * SHOWN, (line + 1) * SHOWN)
        augmented = (Image.fromarray(augment(pixels[row], seed)).resize((side, side)) for seed in seeds)
        for column, picture in enumerate([_whole(pixels[row], side), *augmented]):
            sheet.paste(picture, (margin + column * (side + GAP), top))
    png = io.BytesIO()
    Image.fromarray(np.asarray(sheet) | LOW_BITS).save(png, "PNG", optimize=True)
    return png.getvalue()


def _whole(photo: np.ndarray, side: int) -> Image.Image:
    """Return the whole photo centred on a white square."""
    scale, square = side / max(photo.shape), Image.new("RGB", (side, side), "white")
    picture = Image.fromarray(photo).resize([max(1, round(scale * length)) for length in photo.shape[1::-1]])
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square
