"""Decoding of image files to upright RGB uint8 arrays, and encoding as JPEG."""

import errno
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps

from trunkfold.cores import usable_cores
from trunkfold.errors import InputError, counted, first_few

MOST_PIXELS = 2**28  # phones take 200 megapixels; the limit protects memory from decompression bombs
Image.MAX_IMAGE_PIXELS = None  # Pillow's limit is lower: it warns at 89 million and fails at 179 million
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # too many open files, too little memory
MOST_ELONGATED = 4  # aspect ratio above which photos are reduced further, to limit memory


class UnreadablePhotoError(ValueError):
    """A photo cannot be decoded; the message contains only the reason."""


@dataclass
class Photos:
    """Decoded photos by row.

    Attributes:
        pixels: uint8 arrays of shape (height, width, 3), upright RGB; black for unreadable photos.
        unreadable: Reason by row: "missing", "empty (0 bytes)" or the decoder's message.
    """

    pixels: Sequence[np.ndarray] = ()
    unreadable: dict[int, str] = field(default_factory=dict)

    def describe_unreadable(self, names: Sequence[str]) -> list[str]:
        """Return one message per reason, with the number of photos and the first 20 names."""
        rows_by_reason: dict[str, list[int]] = {}
        for row, reason in self.unreadable.items():
            if not names[row]:
                continue  # reported as an empty value of the table
            kind = reason if reason in (MISSING, EMPTY) else UNREADABLE
            rows_by_reason.setdefault(kind, []).append(row)
        return [
            f"{counted(len(rows), 'photo')} {kind}: "
            + first_few(names[row] + (f" ({self.unreadable[row]})" if kind == UNREADABLE else "") for row in rows)
            for kind, rows in rows_by_reason.items()
        ]


MISSING, EMPTY, UNREADABLE = "missing", "empty (0 bytes)", "unreadable"


def content_key(paths: Sequence[str], *about: object) -> str:
    """Return a key (16 digits) of the content of files, in their order, and of what else a cache of them depends on.

    Raises:
        InputError: Memory or file handles are exhausted.
    """
    key = hashlib.blake2b(repr(about).encode(), digest_size=8)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for digest in pool.map(_digest, paths):
            key.update(digest)
    return key.hexdigest()


def _digest(path: str) -> bytes:
    try:
        return hashlib.blake2b(Path(path).read_bytes()).digest()
    except (OSError, MemoryError) as error:
        raise_if_exhausted(error, path)
        return b"cannot be opened"


def read_photo(path: str | Path, side: int | None = None) -> np.ndarray:
    """Decode one photo: JPEG, PNG, WebP ...; RGB, grey, palette, RGBA (on white), CMYK, 16-bit; oriented by EXIF.

    Args:
        side: Length in pixels to reduce the short side to (never enlarged); None keeps the size.

    Returns:
        uint8 of shape (height, width, 3), upright RGB.

    Raises:
        UnreadablePhotoError: The file cannot be decoded.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise UnreadablePhotoError(MISSING)
        if path.stat().st_size == 0:
            raise UnreadablePhotoError(EMPTY)
    except OSError as error:  # such as a folder of another user, or a name that is too long
        raise UnreadablePhotoError(error.strerror) from error
    return decode_photo(path, side)


def decode_photo(
    file: Path | BinaryIO,
    side: int | None = None,
    most_pixels: int = MOST_PIXELS,
    formats: Sequence[str] | None = None,
) -> np.ndarray:
    """Decode one photo from a path or an open file, see `read_photo`.

    Args:
        most_pixels: Maximum number of pixels; checked in the header, before decoding.
        formats: Formats to try, by Pillow's names; None tries all.

    Raises:
        InputError: Memory or file handles are exhausted, see `raise_if_exhausted`.
        UnreadablePhotoError: The photo cannot be decoded.
    """
    try:
        with Image.open(file, formats=formats) as image:
            if image.width * image.height > most_pixels:
                raise ValueError(f"{image.width} x {image.height} pixels exceed {most_pixels // 10**6} million")
            if side is not None:
                image.draft("RGB", (side, side))  # decodes JPEG at 1/2, 1/4 or 1/8, several times faster
            image.load()
            with suppress(Exception):  # damaged EXIF data do not affect the pixels
                image = ImageOps.exif_transpose(image)
            return np.array(_reduce(_to_rgb(image), side))  # a copy, because tensors need writable memory
    except Exception as error:  # decoders raise many types: OSError, SyntaxError, struct.error ...
        raise_if_exhausted(error, file)
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "not an image" if unknown else str(error).partition("\n")[0]
        raise UnreadablePhotoError(reason or type(error).__name__) from error


def raise_if_exhausted(error: Exception, file: object) -> None:
    """Raise an `InputError` if an error is due to the machine's state: a cache must not record it as the photo's."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in EXHAUSTED):
        raise InputError(
            f"{file} cannot be decoded now ({str(error) or type(error).__name__}): free memory or allow more open "
            "files (ulimit -n), then rerun; or reduce the photo"
        ) from error


def missing_photos(paths: Sequence[str]) -> Photos:
    """Return missing files as unreadable photos, without decoding the others."""
    return Photos(unreadable={row: MISSING for row, path in enumerate(paths) if not os.path.isfile(path)})


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit greyscale, which Pillow would clip at 255
        wide = np.asarray(image).astype(np.float32)
        return Image.fromarray((wide / 257 + 0.5).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _reduce(image: Image.Image, side: int | None) -> Image.Image:
    if side is None:
        return image
    short, long = sorted(image.size)
    scale = min(side / short, MOST_ELONGATED * side / long)
    if scale >= 1:
        return image
    size = [max(1, round(length * scale)) for length in image.size]
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def encode_jpeg(pixels: np.ndarray, quality: int = 80) -> bytes:
    """Encode uint8 RGB pixels of shape (height, width, 3) as JPEG."""
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes()
