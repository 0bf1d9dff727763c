"""Assessment of a run's predictions: scores by set and fold, leakage, calibration, simulated leaderboards."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from trunkfold.assessment import Assessment, FoldScores, Leak, LeakScores
from trunkfold.evaluation.calibration import calibrate
from trunkfold.evaluation.expected import expected_score
from trunkfold.evaluation.leaderboard import simulate_leaderboards
from trunkfold.evaluation.scores import part_scores, score
from trunkfold.split.folds import learned_from


def assess_run(
    oof: pd.DataFrame,
    holdout: pd.DataFrame | None,
    folds: pd.DataFrame,
    classes: dict[str, str],
    test_photos: int,
    alone: Sequence[pd.Series] | None = None,
) -> Assessment:
    """Score a run's predictions.

    Args:
        oof: Out-of-fold predictions, see `trunkfold.evaluation.predictions.scored_table`.
        holdout: Predictions of the held-out photos; None without a hold-out.
        folds: image_id, group and fold of all labelled photos.
        test_photos: Size of the competition's test set.
        alone: Labels of the held-out photos predicted by each single tail; None if unknown.

    Returns:
        The assessment; its `leak` is None if no photo was predicted by a tail trained on a copy of it.
    """
    groups = folds.set_index("image_id")["group"]
    leak = score_leak({"oof": oof, "holdout": holdout}, folds)
    luck = simulate_leaderboards(oof, groups, classes, test_photos)
    return Assessment(
        oof=score(oof, groups, classes),
        holdout=None if holdout is None else score(holdout, groups, classes),
        folds=[FoldScores(int(fold), **vars(part_scores(rows, classes))) for fold, rows in oof.groupby("fold")],
        leak=leak,
        calibration=calibrate(oof, holdout, groups, classes),
        luck=luck,
        expected=None if leak else expected_score(oof, holdout, alone, groups, list(classes), luck),
    )


def score_leak(tables: dict[str, pd.DataFrame | None], folds: pd.DataFrame) -> Leak | None:
    """Score the photos of each set with and without a copy among the training photos; None if none has one.

    The macro F1 is the mean over the classes that occur in the part.
    """
    leaked = pd.Series(has_learned_copy(folds), index=folds["image_id"])
    if not leaked.any():
        return None
    parts = dict.fromkeys(tables)
    for name, table in tables.items():
        if table is not None:
            known = leaked[table["image_id"]].to_numpy()
            both = table[known], table[~known]
            found = (part_scores(rows, sorted(set(rows["label"]))) if len(rows) else None for rows in both)
            parts[name] = LeakScores(*found)
    return Leak(**parts)


def has_learned_copy(folds: pd.DataFrame) -> np.ndarray:
    """Return whether each photo is predicted by a tail trained on a copy of it: bool of shape (photos,).

    An out-of-fold photo is predicted by the tail of its fold, which was trained on all other folds (with a single fold,
    on the photos of fold -2); a held-out photo (fold -1) by all tails.

    Args:
        folds: group and fold of each labelled photo.
    """
    learning = folds[learned_from(folds["fold"].to_numpy())]
    copies = folds["group"].map(learning["group"].value_counts()).fillna(0).to_numpy()
    in_fold = learning.groupby(["group", "fold"]).size()
    not_learned = in_fold.reindex(pd.MultiIndex.from_frame(folds[["group", "fold"]])).fillna(0).to_numpy()
    return copies > not_learned
