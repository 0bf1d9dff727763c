"""All that is said of a run's predictions: scores by set and fold, what a split leaks, calibration, luck."""

import pandas as pd

from trunkfold.evaluation.calibration import calibrate
from trunkfold.evaluation.leaderboard import simulate_leaderboards
from trunkfold.evaluation.leaks import has_learned_copy, score_leak
from trunkfold.evaluation.scores import score


def assess_run(
    oof: pd.DataFrame, holdout: pd.DataFrame | None, folds: pd.DataFrame, classes: dict[str, str], test_photos: int
) -> dict[str, object]:
    """The part of a run's metrics.json that follows from its tables.

    Args:
        oof: Out-of-fold predictions, see `trunkfold.evaluation.predictions.scored_table`.
        holdout: Predictions of the held-out photos; None without any.
        folds: image_id, group and fold of all of them.
        classes: Name of each label, in order.
        test_photos: Size of the competition's test set.

    Returns:
        oof, holdout (null without one), the folds' own as a list, leak (see `trunkfold.evaluation.leaks`; null where no
        photo was predicted by a tail that had learned from its copy), calibration (see
        `trunkfold.evaluation.calibration`) and luck (see `trunkfold.evaluation.leaderboard`).
    """
    groups = folds.set_index("image_id")["group"]
    of_fold = []
    for fold, rows in oof.groupby("fold"):
        scores = score(rows, groups, classes)
        of_fold.append({"fold": int(fold), **{key: scores[key] for key in ("photos", "accuracy", "macro_f1")}})
    return {
        "oof": score(oof, groups, classes),
        "holdout": None if holdout is None else score(holdout, groups, classes),
        "folds": of_fold,
        "leak": _leak({"oof": oof, "holdout": holdout}, folds),
        "calibration": calibrate(oof, holdout, classes),
        "luck": simulate_leaderboards(oof, groups, classes, test_photos),
    }


def _leak(tables: dict[str, pd.DataFrame | None], folds: pd.DataFrame) -> dict | None:
    leaked = pd.Series(has_learned_copy(folds), index=folds["image_id"])
    if not leaked.any():
        return None
    return {
        name: None if table is None else score_leak(table, leaked[table["image_id"]].to_numpy())
        for name, table in tables.items()
    }
