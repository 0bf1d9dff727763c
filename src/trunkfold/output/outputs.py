"""What a run's folder is given: what it starts from, and what it predicts of the labelled photos."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from trunkfold.config.parsing import dump_config
from trunkfold.config.schema import Config
from trunkfold.data.tables import read_unlabelled
from trunkfold.errors import InputError
from trunkfold.evaluation.ablation import CONSENSUS, ablate
from trunkfold.evaluation.consensus import average_in_folds
from trunkfold.evaluation.decoding import decode_labelled
from trunkfold.evaluation.evaluate import assess_run
from trunkfold.evaluation.label_issues import write_label_issues
from trunkfold.evaluation.predictions import average, scored_table
from trunkfold.files import write_csv, write_text
from trunkfold.images.augmentation import Augmentation
from trunkfold.images.contact_sheet import write_sheet
from trunkfold.model.backbone import Backbone, Tail
from trunkfold.model.ensemble import save_fold, save_shared
from trunkfold.runs import AUGMENTED
from trunkfold.split.dataset import Labelled
from trunkfold.split.folds import HELD_OUT, scoring_members


def save_inputs(run: Path, config: Config, labelled: Labelled, backbone: Backbone, augment: Augmentation) -> None:
    """Write what the run starts from: the configuration with its classes, the folds and groups, the weights that all
    folds share, and samples of what the model will be shown."""
    resolved = replace(config, data=replace(config.data, classes=labelled.classes))
    write_text(dump_config(resolved), run / "config.yaml")
    write_csv(labelled.table, run / "folds.csv")
    write_csv(labelled.groups, run / "groups.csv")
    save_shared(run, backbone)
    (run / "figures").mkdir(exist_ok=True)
    rows = [int(np.flatnonzero(labelled.targets == place)[0]) for place in range(len(labelled.classes))]
    write_sheet(run / "figures" / AUGMENTED, labelled.pixels, rows, list(labelled.classes.values()), augment)


def save_tails(run: Path, history: pd.DataFrame, tails: Sequence[Tail]) -> None:
    """Write what was learned: the tails of all folds, and the history of their training."""
    write_csv(history, run / "history.csv")
    for fold, tail in enumerate(tails):
        save_fold(run / f"fold_{fold}", tail)


def save_predictions(
    run: Path, config: Config, labelled: Labelled, predicted: np.ndarray, raw: np.ndarray | None = None
) -> dict:
    """Write oof.csv, holdout.csv and label_issues.csv.

    Args:
        predicted: Of each photo by each tail in each view of the configuration, see `trunkfold.model.ensemble.predict`.
        raw: The same with the last weights instead of averaged ones; None where weights were not averaged.

    Returns:
        The scores (see `trunkfold.evaluation.evaluate.assess_run`), what each part of the predictions added to them
        (ablation, see `trunkfold.evaluation.ablation.ablate`), and again for the consensus (null where there is none).
    """
    folds, fold_of_row, classes = labelled.table, labelled.fold_of_row, labelled.classes
    probabilities = average(predicted, scoring_members(fold_of_row, predicted.shape[2]))
    if config.predict.consensus:
        probabilities = average_in_folds(probabilities, folds)
    labels = decode_labelled(probabilities, folds, classes, config.decode.metric)
    tables = {}
    for name, rows in {"oof": fold_of_row >= 0, "holdout": fold_of_row == HELD_OUT}.items():
        if rows.any():
            tables[name] = scored_table(folds[rows], probabilities[rows], classes, labels[rows])
            write_csv(tables[name], run / f"{name}.csv")
    write_label_issues(run, tables["oof"], folds, classes)
    ablation = ablate(
        predicted, folds, classes, config.predict.views, config.predict.consensus, config.decode.metric, raw
    )
    gains = {name: row["gain"] for name in tables for row in ablation[name] if row["part"] == CONSENSUS}
    return {
        **assess_run(tables["oof"], tables.get("holdout"), folds, classes, _test_photos(labelled, config.data.root)),
        "ablation": ablation,
        "consensus": {"macro_f1_gain": gains} if config.predict.consensus else None,
    }


def _test_photos(labelled: Labelled, root: Path) -> int:
    """Size of the test set; where none is known, as many photos as are labelled."""
    with suppress(InputError):  # what is wrong with test.csv is for make_submission to say, and ends no training
        return len(read_unlabelled(root, []))
    return int((labelled.groups["set"] == "test").sum()) or len(labelled.table)
