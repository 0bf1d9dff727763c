"""What a run's folder is given: what it starts from, and what it predicts of the labelled photos."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from trunkfold.augment import Augmentation
from trunkfold.backbone import Backbone
from trunkfold.competition import Labelled
from trunkfold.config import Config
from trunkfold.consensus import average_in_folds
from trunkfold.ensemble import save_shared
from trunkfold.options import dump_config
from trunkfold.predictions import scored_table
from trunkfold.runs import write_csv, write_text
from trunkfold.scores import macro_f1, score_run
from trunkfold.sheet import write_sheet
from trunkfold.splits import HELD_OUT

AUGMENTED = "augmented.png"  # in figures/


def save_inputs(run: Path, config: Config, labelled: Labelled, backbone: Backbone, augment: Augmentation) -> None:
    """Write what the run starts from: the configuration with its classes, the folds and groups, the weights that all
    folds share, and samples of what the model will be shown."""
    resolved = replace(config, data=replace(config.data, classes=labelled.classes))
    write_text(dump_config(resolved), run / "config.yaml")
    write_csv(labelled.table, run / "folds.csv")
    write_csv(labelled.groups, run / "groups.csv")
    save_shared(run, backbone)
    (run / "figures").mkdir()
    rows = [int(np.flatnonzero(labelled.targets == place)[0]) for place in range(len(labelled.classes))]
    write_sheet(run / "figures" / AUGMENTED, labelled.pixels, rows, list(labelled.classes.values()), augment)


def save_predictions(run: Path, labelled: Labelled, probabilities: np.ndarray, consensus: bool) -> dict:
    """Write oof.csv and holdout.csv.

    Args:
        probabilities: Of shape (rows, classes); NaN in rows that nothing predicts.
        consensus: Whether photos of one group share the mean of theirs.

    Returns:
        The scores (see `trunkfold.scores.score_run`), and what the consensus added to them.
    """
    folds, fold_of_row = labelled.table, labelled.fold_of_row
    shared = average_in_folds(probabilities, folds) if consensus else probabilities
    tables, gains = {}, {}
    for name, rows in {"oof": fold_of_row >= 0, "holdout": fold_of_row == HELD_OUT}.items():
        if rows.any():
            tables[name] = scored_table(folds[rows], shared[rows], labelled.classes)
            write_csv(tables[name], run / f"{name}.csv")
            alone = scored_table(folds[rows], probabilities[rows], labelled.classes)
            gains[name] = macro_f1(tables[name], labelled.classes) - macro_f1(alone, labelled.classes)
    scores = score_run(tables["oof"], tables.get("holdout"), folds, labelled.classes)
    return {**scores, "consensus": {"macro_f1_gain": gains} if consensus else None}
