"""Loading of a finished run for prediction: model, classes, calibration, and embeddings of its training photos."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
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
    """A run that can predict photos, loaded from its folder.

    Attributes:
        config: Configuration, with the image size, possibly with another folder for photos.
        folds: Content of folds.csv.
        trunk: Frozen part shared by all folds.
        tails: Merged tails, in order of folds.
        known: Embeddings of the training photos; None for runs of versions that did not save them.
    """

    folder: RunFolder
    config: Config
    metrics: Metrics
    folds: pd.DataFrame
    trunk: nn.Module
    tails: list[nn.Module]
    known: KnownPhotos | None

    @property
    def classes(self) -> dict[str, str]:
        """Name of each label, in the order of the logits."""
        return self.metrics.classes


def load_run(folder: RunFolder, root: Path | None = None) -> FinishedRun:
    """Load a finished run; its folder may be read-only.

    Args:
        root: Current folder of the photos; None uses the run's data.root.

    Raises:
        InputError: The folder is not a finished run or is an average of runs, or a file is damaged.
    """
    metrics = folder.read_metrics()
    if metrics.runs:
        raise InputError(f"{folder} is an average of runs and has no model: choose one of {', '.join(metrics.runs)}")
    config = read_run_config(folder, metrics)
    config = replace(config, data=replace(config.data, root=root or config.data.root))
    backbone, tails = load_ensemble(folder, config, len(metrics.classes))
    folds = read_folds(folder.folds, metrics.classes)
    return FinishedRun(folder, config, metrics, folds, backbone.trunk, tails, load_known_photos(folder, folds))
