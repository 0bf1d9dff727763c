"""Thumbnails and Grad-CAM heat maps for the report."""

import logging
from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn

from trunkfold.data.photos import encode_jpeg
from trunkfold.errors import MemoryFullError
from trunkfold.evaluation.error_analysis import Gallery
from trunkfold.evaluation.predictions import class_indices
from trunkfold.images.views import VIEWS, render
from trunkfold.model.gradcam import heat_maps
from trunkfold.run_folder import RunFolder
from trunkfold.split.dataset import Labelled
from trunkfold.split.folds import scoring_members

logger = logging.getLogger(__name__)
SIDE = 208  # pixels of the long side
STRONGEST = 0.65  # opacity of the overlay at the maximum of the heat map


def save_thumbnails(
    run: RunFolder,
    gallery: Gallery,
    labelled: Labelled,
    accelerator: Accelerator,
    trunk: nn.Module,
    tails: Sequence[nn.Module],
    side: int,
) -> None:
    """Write thumbnails of the photos in the report, and heat maps of the mistakes.

    If heat maps cannot be computed, a warning is logged, and the report shows the mistakes without them. Trunk and
    merged tails are on the accelerator's device; `side` is that of the plain view in pixels.
    """
    for row in gallery.rows:
        run.save(encode_jpeg(thumbnail(labelled.pixels[row])), run.thumbnail(row))
    if not any(map(len, gallery.mistakes.values())):
        return
    mistakes = pd.concat(gallery.mistakes.values())
    rows, targets = mistakes["row"].tolist(), class_indices(mistakes["prediction"], labelled.classes)
    shown = [render(labelled.pixels[row], VIEWS["plain"], side) for row in rows]
    photos = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2)
    members = scoring_members(labelled.fold_of_row[rows], len(tails))
    try:
        heats = heat_maps(accelerator, trunk, tails, photos, torch.tensor(targets), members)
    except (MemoryFullError, RuntimeError) as error:  # a finished training run must not fail here
        logger.warning("the report has no heat maps: %s", str(error).partition("\n")[0])
        return
    for row, picture, heat in zip(rows, shown, heats, strict=True):
        height, width = thumbnail(labelled.pixels[row]).shape[:2]  # undoes the plain view's change of aspect ratio
        run.save(encode_jpeg(cv2.resize(overlay(picture, heat), (width, height))), run.heat_map(row))


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Resize a photo to a long side of 208 pixels, keeping its aspect ratio."""
    scale = SIDE / max(pixels.shape[:2])
    height, width = (max(1, round(scale * length)) for length in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Overlay a photo, uint8 of shape (height, width, 3), with a heat map of values from 0 to 1 at any resolution."""
    height, width = picture.shape[:2]
    fine = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours = cv2.applyColorMap((255 * fine).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = STRONGEST * fine[..., None]
    return (picture * (1 - share) + colours * share).round().astype(np.uint8)
