"""Thumbnails and heat maps of the photos in the report."""

import logging
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from trunkfold.errors import MemoryFullError
from trunkfold.evaluation.error_analysis import Gallery
from trunkfold.images.views import VIEWS, render
from trunkfold.model.gradcam import heat_maps
from trunkfold.run_folder import RunFolder
from trunkfold.split.dataset import Labelled
from trunkfold.split.folds import scoring_members

logger = logging.getLogger(__name__)
SIDE, QUALITY = 208, 80  # pixels of the long side; of a JPEG
STRONGEST = 0.65  # share of the heat's colour where it is hottest


def save_thumbnails(
    run: RunFolder,
    gallery: Gallery,
    labelled: Labelled,
    accelerator: Accelerator,
    trunk: nn.Module,
    tails: Sequence[nn.Module],
    side: int,
) -> None:
    """Write a thumbnail of each photo that the report shows, and a heat map of each mistake.

    Where heat maps cannot be computed, the mistakes are shown without them: a run that is trained is not lost for them.

    Args:
        run: Where to.
        gallery: The photos.
        labelled: The photos, in the rows of folds.csv.
        accelerator: The device of trunk and tails.
        trunk: The shared part.
        tails: Merged.
        side: Of the plain view, in pixels.
    """
    for row in gallery.rows:
        run.save(encode_jpeg(thumbnail(labelled.pixels[row])), run.thumbnail(row))
    rows, targets = predicted_mistakes(gallery, labelled.classes)
    if not rows:
        return
    shown = [render(labelled.pixels[row], VIEWS["plain"], side) for row in rows]
    photos = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2)
    members = scoring_members(labelled.fold_of_row[rows], len(tails))
    try:
        heats = heat_maps(accelerator, trunk, tails, photos, torch.tensor(targets), members)
    except (MemoryFullError, RuntimeError) as error:  # whatever PyTorch refuses
        logger.warning("the report shows no heat maps: %s", str(error).partition("\n")[0])
        return
    for row, picture, heat in zip(rows, shown, heats, strict=True):
        height, width = thumbnail(labelled.pixels[row]).shape[:2]  # the plain view is the whole photo squeezed
        run.save(encode_jpeg(cv2.resize(overlay(picture, heat), (width, height))), run.heat_map(row))


def predicted_mistakes(gallery: Gallery, classes: Mapping[str, str]) -> tuple[list[int], list[int]]:
    """Rows of the mistakes that are shown, and the class number that was predicted of each."""
    numbers = {label: number for number, label in enumerate(classes)}
    pairs = [
        (int(row), numbers[prediction])
        for table in gallery.mistakes.values()
        for row, prediction in zip(table["row"], table["prediction"], strict=True)
    ]
    return [row for row, _ in pairs], [number for _, number in pairs]


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """A photo with a long side of 208 pixels, its own proportions kept."""
    scale = SIDE / max(pixels.shape[:2])
    height, width = (max(1, round(scale * length)) for length in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture coloured where there is heat.

    Args:
        picture: uint8 of shape (height, width, 3).
        heat: From 0 to 1, at any resolution; resized to the picture.
    """
    height, width = picture.shape[:2]
    fine = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours = cv2.applyColorMap((255 * fine).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = STRONGEST * fine[..., None]
    return (picture * (1 - share) + colours * share).round().astype(np.uint8)


def encode_jpeg(pixels: np.ndarray, quality: int = QUALITY) -> bytes:
    """A JPEG file of uint8 RGB of shape (height, width, 3)."""
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes()
