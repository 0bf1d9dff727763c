"""The report's sections about scores: what they are, what luck makes of them, by class, by fold, by part."""

import numpy as np
import pandas as pd

from trunkfold.assessment import Scores
from trunkfold.html import percent
from trunkfold.report.console import MEASURES, describe_copies, describe_leak, describe_split
from trunkfold.report.contents import Findings
from trunkfold.report.figures import (
    draw_ablation,
    draw_confusion,
    draw_curves,
    draw_fold_scores,
    draw_luck,
    draw_reliability,
    save_figure,
    save_picture,
)
from trunkfold.report.photo_sections import shown_photo
from trunkfold.run_folder import SETS

CURVES = {
    "loss": {"train_loss": "training, augmented photos", "val_loss": "validation"},
    "validation scores": {"val_macro_f1": "macro F1", "val_accuracy": "accuracy"},
    "learning rate": {"lr_tail": "tail", "lr_head": "head"},
}


def verdict(findings: Findings) -> dict:
    """One sentence, the scores with their intervals, and how the scored photos were separated."""
    metrics = findings.metrics
    sets = {SETS[name]: scores for name, scores in metrics.by_set().items()}
    leak = describe_leak(metrics)
    return {
        "sentence": _judge(sets, bool(leak)),
        "sets": sets,
        "split": describe_split(metrics),
        "leak": leak,
        "copies": describe_copies(metrics),
        "measures": MEASURES,
    }


def _judge(sets: dict[str, Scores], leaks: bool) -> str:
    if not sets:
        return "The averaged runs have different splits: no honest score of their average exists."
    (title, best), *others = sets.items()
    held_out = title == SETS["holdout"]
    who = "kept from all training, the ensemble" if held_out else "each fold's own model"
    where = f"On {best.photos:,} photos of {best.groups:,} sources {who}"
    if best.accuracy == 1:
        score = f"{where} makes no mistake. That {_most_wrong(best.groups)}"
        for _, single in others:
            score += f"; out-of-fold, single models reach {_macro_f1(single)}"
        score += "."
    else:
        right = percent(best.accuracy, 1)
        score = f"{where} reaches {_macro_f1(best)} and names the right class of {right} of the photos."
    return f"{score} Do not trust this: copies of these photos were trained on." if leaks else score


def _macro_f1(scores: Scores) -> str:
    low, high = scores.intervals.macro_f1
    return f"a macro F1 of {scores.macro_f1:.3f} (95\u00a0% interval {low:.3f} to {high:.3f})"


def _most_wrong(groups: int) -> str:
    """Bound the error rate after no mistakes by the rule of three, since resampling no mistakes yields none."""
    return f"leaves open that up to {percent(min(1.0, 3 / groups), 1)} of such sources would be mistaken"


def luck(findings: Findings) -> dict | None:
    """Simulated leaderboard scores of this model."""
    found = findings.metrics.luck
    return found and {**vars(found), "figure": save_figure(findings.folder, "luck", lambda: draw_luck(found))}


def per_class(findings: Findings) -> dict | None:
    """Scores of each class, confusion, and photos of the classes that are confused most."""
    by_set = findings.metrics.by_set()
    if not by_set:
        return None
    for name, scores in by_set.items():
        save_picture(findings.folder, f"confusion_{name}", lambda scores=scores: draw_confusion(scores))
    sets = {SETS[name]: scores for name, scores in by_set.items()}
    pairs = [
        {
            "truth": findings.classes[pair["label"]],
            "predicted": findings.classes[pair["prediction"]],
            "count": pair["count"],
            "photos": [shown_photo(findings, row) for row in pair["rows"]],
        }
        for pair in findings.gallery.pairs
    ]
    return {"sets": sets, "confusion": {title: _confusion(scores) for title, scores in sets.items()}, "pairs": pairs}


def _confusion(scores: Scores) -> list[dict]:
    """Rows of the confusion matrix: class, and count and share of the true class in each cell."""
    counts = np.array(scores.confusion_matrix)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    return [
        {"name": name, "cells": list(zip(row.tolist(), share.tolist(), strict=True))}
        for name, row, share in zip(scores.per_class, counts, shares, strict=True)
    ]


def calibration(findings: Findings) -> dict | None:
    """Whether probabilities mean what they say."""
    found = findings.metrics.calibration
    if not found:
        return None
    sets = {title: (name, part) for name, title in SETS.items() if (part := getattr(found, name))}
    figures = {
        title: save_figure(
            findings.folder, f"reliability_{name}", lambda part=part, title=title: draw_reliability(part, title)
        )
        for title, (name, part) in sets.items()
    }
    return {
        "temperature": found.temperature,
        "sets": {title: part for title, (_, part) in sets.items()},
        "figures": figures,
    }


def folds(findings: Findings) -> dict | None:
    """Learning curves, and the scores of each fold."""
    of_fold, history = findings.metrics.folds, findings.history
    if not of_fold and history is None:
        return None
    figures = {}
    if history is not None:
        for title, columns in CURVES.items():
            name = "curve_" + title.lower().replace(" ", "_")
            figures[title] = save_figure(
                findings.folder, name, lambda columns=columns, title=title: draw_curves(history, columns, title)
            )
    if of_fold:
        figures["score by fold"] = save_figure(findings.folder, "fold_scores", lambda: draw_fold_scores(of_fold))
    scores = pd.DataFrame(map(vars, of_fold))
    return {
        "rows": of_fold,
        "mean": scores[["macro_f1", "accuracy"]].mean().to_dict() if len(scores) else {},
        "spread": scores[["macro_f1", "accuracy"]].std(ddof=0).to_dict() if len(scores) else {},
        "figures": figures,
        "epochs": 0 if history is None else int(history["epoch"].max()),
        "seconds": 0 if history is None else float(history.groupby("epoch")["seconds"].first().mean()),
    }


def ablation(findings: Findings) -> dict | None:
    """Gain from each part of the ensemble."""
    found = findings.metrics.ablation
    if not found:
        return None
    sets = {title: rows for name, title in SETS.items() if (rows := getattr(found, name))}
    figure = save_figure(findings.folder, "ablation", lambda: draw_ablation(found)) if sets else None
    return {"sets": sets, "figure": figure, "folds_alone": found.folds_alone}
