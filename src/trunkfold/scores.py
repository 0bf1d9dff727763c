"""What predictions are worth: accuracy, F1, confusion, and intervals that know of copies."""

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from trunkfold.leaks import has_learned_copy, score_leak

RESAMPLES = 1000
COVERAGE = 0.95


def validation_scores(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """val_loss (mean negative log-likelihood), val_accuracy and val_macro_f1.

    Args:
        targets: Class numbers, of shape (rows,).
        probabilities: Of shape (rows, classes).
    """
    likelihood = probabilities[np.arange(len(targets)), targets].clip(1e-12)
    predicted = probabilities.argmax(1)
    classes = np.arange(probabilities.shape[1])
    return {
        "val_loss": float(-np.log(likelihood).mean()),
        "val_accuracy": float(accuracy_score(targets, predicted)),
        "val_macro_f1": float(f1_score(targets, predicted, labels=classes, average="macro", zero_division=0)),
    }


def score(predictions: pd.DataFrame, groups: pd.Series, classes: dict[str, str]) -> dict:
    """All numbers about a prediction table.

    Args:
        predictions: image_id, label and prediction, in the competition's labels.
        groups: Group of each image_id, the index; copies of one photo count as one draw in the intervals.
        classes: Name of each label, in order.

    Returns:
        photos, groups, accuracy, macro_f1, intervals {accuracy, macro_f1: [low, high]}, per_class {name: {precision,
        recall, f1, support}}, confusion_matrix (rows are the truth, columns the prediction, in the order of `classes`).
    """
    labels, names = list(classes), list(classes.values())
    truth, predicted = predictions["label"], predictions["prediction"]
    columns = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    per_class = {
        name: dict(zip(("precision", "recall", "f1"), map(float, values[:3]), strict=True))
        | {"support": int(values[3])}
        for name, *values in zip(names, *columns, strict=True)
    }
    group_of_row = predictions["image_id"].map(groups)
    return {
        "photos": len(predictions),
        "groups": int(group_of_row.nunique()),
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_f1": macro_f1(predictions, classes),
        "intervals": bootstrap_intervals(truth, predicted, group_of_row, labels),
        "per_class": per_class,
        "confusion_matrix": confusion_matrix(truth, predicted, labels=labels).tolist(),
    }


def macro_f1(predictions: pd.DataFrame, classes: dict[str, str]) -> float:
    """Mean F1 of the classes of a prediction table; a class that neither is there nor was predicted counts as 0."""
    truth, predicted = predictions["label"], predictions["prediction"]
    return float(f1_score(truth, predicted, labels=list(classes), average="macro", zero_division=0))


def bootstrap_intervals(
    truth: pd.Series, predicted: pd.Series, groups: pd.Series, labels: list[str]
) -> dict[str, list[float]]:
    """95 % intervals of accuracy and macro F1 by drawing whole groups with replacement (percentile bootstrap).

    The draws are seeded: the same table gives the same interval.
    """
    number = {label: place for place, label in enumerate(labels)}
    codes, kinds = pd.factorize(groups)
    confusions = np.zeros((len(kinds), len(labels), len(labels)))
    np.add.at(confusions, (codes, truth.map(number).to_numpy(), predicted.map(number).to_numpy()), 1)
    # Drawing n of n groups with replacement is drawing how often each one comes.
    counts = np.random.default_rng(0).multinomial(len(kinds), np.full(len(kinds), 1 / len(kinds)), RESAMPLES)
    drawn = (counts @ confusions.reshape(len(kinds), -1)).reshape(RESAMPLES, len(labels), len(labels))
    hits = np.diagonal(drawn, axis1=1, axis2=2)
    sizes = drawn.sum(1) + drawn.sum(2)
    # A class that a draw happens to miss says nothing there; one that the whole table lacks counts as 0, as in `score`.
    averaged = (sizes > 0) | (confusions.sum((0, 1)) + confusions.sum((0, 2)) == 0)
    f1 = np.divide(2 * hits, sizes, out=np.zeros_like(hits), where=sizes > 0).sum(1) / averaged.sum(1)
    accuracy = hits.sum(1) / drawn.sum((1, 2))
    tails = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    return {"accuracy": np.quantile(accuracy, tails).tolist(), "macro_f1": np.quantile(f1, tails).tolist()}


def paired_difference(
    truth: pd.Series, predicted_a: pd.Series, predicted_b: pd.Series, groups: pd.Series, labels: list[str]
) -> dict[str, float]:
    """Macro F1 of predictions a minus that of b, for the same photos, with a 95 % interval over groups.

    Args:
        truth: Label of each photo.
        predicted_a: Label that a gives it; the same index.
        predicted_b: Label that b gives it.
        groups: Copies of one photo are drawn together; both are scored on the same draws.
        labels: All labels.

    Returns:
        difference, low, high, and p_better, the share of draws in which a is better.
    """
    names, members = np.unique(groups, return_inverse=True)
    places = [np.flatnonzero(members == number) for number in range(len(names))]
    codes = [pd.Index(labels).get_indexer(column) for column in (truth, predicted_a, predicted_b)]

    def difference(rows: np.ndarray) -> float:
        f1 = []
        for predicted in codes[1:]:
            hits = np.bincount(codes[0][rows][codes[0][rows] == predicted[rows]], minlength=len(labels))
            counts = [np.bincount(each[rows], minlength=len(labels)) for each in (codes[0], predicted)]
            f1.append(np.mean(2 * hits / np.maximum(sum(counts), 1)))
        return float(f1[0] - f1[1])

    rng = np.random.default_rng(0)
    draws = [rng.integers(len(places), size=len(places)) for _ in range(RESAMPLES)]
    found = np.array([difference(np.concatenate([places[group] for group in draw])) for draw in draws])
    low, high = np.quantile(found, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return {
        "difference": difference(np.arange(len(truth))),
        "low": float(low),
        "high": float(high),
        "p_better": float((found > 0).mean()),
    }


def score_run(
    oof: pd.DataFrame, holdout: pd.DataFrame | None, folds: pd.DataFrame, classes: dict[str, str]
) -> dict[str, object]:
    """The scores of a run's metrics.json.

    Args:
        oof: Out-of-fold predictions.
        holdout: Predictions of the held-out photos; None without any.
        folds: image_id, group and fold of all of them.
        classes: Name of each label, in order.

    Returns:
        oof, holdout (null without one), the folds' own as a list, and leak (see `trunkfold.leaks`; null where no photo
        was predicted by a tail that had learned from its copy).
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
    }


def _leak(tables: dict[str, pd.DataFrame | None], folds: pd.DataFrame) -> dict | None:
    leaked = pd.Series(has_learned_copy(folds), index=folds["image_id"])
    if not leaked.any():
        return None
    return {
        name: None if table is None else score_leak(table, leaked[table["image_id"]].to_numpy())
        for name, table in tables.items()
    }
