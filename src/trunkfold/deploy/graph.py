"""A run's ensemble as a single module for export: uint8 photos in, calibrated probabilities out."""

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trunkfold.deploy.finished import FinishedRun
from trunkfold.evaluation.calibration import LEAST
from trunkfold.run_folder import RunFolder

MIRRORS = {"plain": False, "hflip": True}  # views that can be computed from the plain view
PREPROCESSING = (
    "RGB, upright, the whole photo squeezed to image_size x image_size (area averaging to shrink, bilinear to "
    "enlarge), uint8 of shape (batch, 3, side, side), not normalized: the graph normalizes"
)
LABELS = "scored by the most probable class of each photo; a submission's labels maximize macro F1 over its whole set"


class EnsembleModule(nn.Module):
    """The whole ensemble as one module.

    Runs each view through the trunk once and its features through all tails, averages the probabilities over views
    (names in `MIRRORS`) and tails, and scales them by the run's temperature. Normalization is included.
    """

    def __init__(self, trunk: nn.Module, tails: Sequence[nn.Module], views: Sequence[str], temperature: float) -> None:
        super().__init__()
        self.trunk, self.tails = trunk, nn.ModuleList(tails)
        self.mirrors = [MIRRORS[view] for view in views]
        self.temperature = temperature
        self.requires_grad_(False).eval()

    def forward(self, photos: Tensor) -> Tensor:
        """Return probabilities (batch, classes) for uint8 photos (batch, 3, side, side), see `PREPROCESSING`."""
        total = 0
        for mirror in self.mirrors:
            features = self.trunk(photos.flip(3) if mirror else photos)
            total = total + sum(tail(features).float().softmax(1) for tail in self.tails)
        mean = total / (len(self.mirrors) * len(self.tails))
        return (mean.clamp(min=LEAST).log() / self.temperature).softmax(1)


def exportable_views(views: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split views into those computable from the plain view (at least "plain") and those that need the photo."""
    return [view for view in views if view in MIRRORS] or ["plain"], [view for view in views if view not in MIRRORS]


def ensemble_module(run: FinishedRun) -> EnsembleModule:
    """Return the run's ensemble with its exportable views."""
    return EnsembleModule(run.trunk, run.tails, exportable_views(run.config.predict.views)[0], run.metrics.temperature)


def example_photos(run: FinishedRun, count: int = 2) -> Tensor:
    """Return noise in the shape of the run's photos; use at least 2, as a batch of 1 is traced as a constant."""
    side = run.config.data.image_size
    noise = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=noise)


def describe(run: FinishedRun) -> dict[str, str]:
    """Return the metadata of a model file as text: classes, preprocessing, origin."""
    return {
        "run": run.folder.name,
        "run_digest": run_digest(run.folder),
        "model": run.config.model.name,
        "folds": str(len(run.tails)),
        "classes": json.dumps(run.classes),
        "image_size": str(run.config.data.image_size),
        "views": json.dumps(exportable_views(run.config.predict.views)[0]),
        "temperature": repr(run.metrics.temperature),
        "preprocessing": PREPROCESSING,
        "labels": LABELS,
    }


def run_digest(run: RunFolder) -> str:
    """Return a digest of a run's configuration and weights."""
    digest = hashlib.blake2b(digest_size=16)
    for path in [run.config, *sorted(run.path.rglob("*.safetensors"))]:
        digest.update(path.relative_to(run.path).as_posix().encode())
        digest.update(hashlib.blake2b(path.read_bytes()).digest())
    return digest.hexdigest()
