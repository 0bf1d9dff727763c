"""A finished run, read from its folder for use: model, classes, calibration and embeddings of its training photos."""

from dataclasses import dataclass

from torch import nn

from trunkfold.config.schema import Config
from trunkfold.errors import InputError
from trunkfold.evaluation.known_photos import KnownPhotos, load_known_photos
from trunkfold.evaluation.predictions import read_folds
from trunkfold.metrics import Metrics
from trunkfold.model.ensemble import load_ensemble
from trunkfold.output.test_predictions import read_run_config
from trunkfold.run_folder import RunFolder


@dataclass(frozen=True)
class FinishedRun:
    """Everything that using a run needs, read from its folder alone.

    Attributes:
        folder: The run.
        config: Its configuration, with the image size.
        metrics: Its metrics.json.
        trunk: The frozen part all folds share.
        tails: The merged tails, in the order of the folds.
        known: Embeddings of its training photos; None in runs made before they were saved.
    """

    folder: RunFolder
    config: Config
    metrics: Metrics
    trunk: nn.Module
    tails: list[nn.Module]
    known: KnownPhotos | None

    @property
    def classes(self) -> dict[str, str]:
        """Name of each label, in the order of the logits."""
        return self.metrics.classes

    @property
    def temperature(self) -> float:
        """Temperature that calibrates the ensemble's probabilities, fitted on out-of-fold photos."""
        return self.metrics.temperature


def load_run(folder: RunFolder) -> FinishedRun:
    """Read a finished run, which may be on a read-only disk.

    Raises:
        InputError: It is not a finished run, is an average of runs, or a file is damaged.
    """
    metrics = folder.read_metrics()
    if metrics.runs:
        raise InputError(f"{folder} is an average of runs and has no model: use one of {', '.join(metrics.runs)}")
    config = read_run_config(folder, metrics)
    backbone, tails = load_ensemble(folder, config, len(metrics.classes))
    known = load_known_photos(folder, read_folds(folder.folds))
    return FinishedRun(folder, config, metrics, backbone.trunk, tails, known)
