"""The report's sections about scores: what they are, what luck makes of them, by class, by fold, by part."""

import numpy as np
import pandas as pd

from trunkfold.evaluation.error_analysis import SETS
from trunkfold.html import percent
from trunkfold.report.console import describe_copies, describe_leak, describe_split
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

CURVES = {
    "loss": {"train_loss": "training, augmented photos", "val_loss": "validation"},
    "validation scores": {"val_macro_f1": "macro F1", "val_accuracy": "accuracy"},
    "learning rate": {"lr_tail": "tail", "lr_head": "head"},
}


def verdict(findings: Findings) -> dict:
    """One sentence, the scores with their intervals, and how the scored photos were separated."""
    metrics = findings.metrics
    sets = [{"title": title, **metrics[name]} for name, title in SETS.items() if metrics[name] is not None]
    leak = describe_leak(metrics)
    return {
        "sentence": _judge(sets, bool(leak)),
        "sets": sets,
        "split": describe_split(metrics),
        "leak": leak,
        "copies": describe_copies(metrics),
        "measures": {"macro_f1": "macro F1", "accuracy": "accuracy"},
    }


def _judge(sets: list[dict], leaks: bool) -> str:
    if not sets:
        return "The averaged runs have different splits: no honest score of their average exists."
    best = sets[0]
    held_out = best["title"] == SETS["holdout"]
    who = "that nothing was learned from, the ensemble" if held_out else "each fold's own model"
    where = f"On {best['photos']:,} photos of {best['groups']:,} sources {who}"
    if best["accuracy"] == 1:
        score = f"{where} makes no mistake. That {_most_wrong(best['groups'])}"
        if len(sets) > 1:
            score += f"; out-of-fold, single models reach {_macro_f1(sets[1])}"
        score += "."
    else:
        right = percent(best["accuracy"], 1)
        score = f"{where} reaches {_macro_f1(best)} and names the right class of {right} of the photos."
    return f"{score} That is not to be believed: copies of these photos were learned from." if leaks else score


def _macro_f1(scores: dict) -> str:
    low, high = scores["intervals"]["macro_f1"]
    return f"a macro F1 of {scores['macro_f1']:.3f} (95\u00a0% interval {low:.3f} to {high:.3f})"


def _most_wrong(groups: int) -> str:
    """What no mistake leaves open: the rule of three, since drawing again from no mistakes shows none."""
    return f"leaves open that up to {percent(min(1.0, 3 / groups), 1)} of such sources would be mistaken"


def luck(findings: Findings) -> dict | None:
    """What the leaderboard could show for this model by chance."""
    found = findings.metrics.get("luck")
    return found and {**found, "figure": save_figure(findings.folder, "luck", lambda: draw_luck(found))}


def per_class(findings: Findings) -> dict | None:
    """Scores of each class, confusion, and photos of the classes that are confused most."""
    sets = {title: findings.metrics[name] for name, title in SETS.items() if findings.metrics[name] is not None}
    if not sets:
        return None
    for name in SETS:
        if findings.metrics[name] is not None:
            save_picture(findings.folder, f"confusion_{name}", lambda name=name: draw_confusion(findings.metrics[name]))
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


def _confusion(scores: dict) -> list[dict]:
    """Rows of the confusion matrix: class, and count and share of the true class in each cell."""
    counts = np.array(scores["confusion_matrix"])
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    return [
        {"name": name, "cells": list(zip(row.tolist(), share.tolist(), strict=True))}
        for name, row, share in zip(scores["per_class"], counts, shares, strict=True)
    ]


def calibration(findings: Findings) -> dict | None:
    """Whether probabilities mean what they say."""
    found = findings.metrics.get("calibration")
    if not found:
        return None
    sets = {title: (name, found[name]) for name, title in SETS.items() if found.get(name)}
    figures = {
        title: save_figure(
            findings.folder, f"reliability_{name}", lambda part=part, title=title: draw_reliability(part, title)
        )
        for title, (name, part) in sets.items()
    }
    return {
        "temperature": found["temperature"],
        "sets": {title: part for title, (_, part) in sets.items()},
        "figures": figures,
    }


def folds(findings: Findings) -> dict | None:
    """Learning curves, and the scores of each fold."""
    metrics, history = findings.metrics, findings.history
    if not metrics["folds"] and history is None:
        return None
    figures = {}
    if history is not None:
        for title, columns in CURVES.items():
            name = "curve_" + title.lower().replace(" ", "_")
            figures[title] = save_figure(
                findings.folder, name, lambda columns=columns, title=title: draw_curves(history, columns, title)
            )
    if metrics["folds"]:
        figures["score by fold"] = save_figure(
            findings.folder, "fold_scores", lambda: draw_fold_scores(metrics["folds"])
        )
    scores = pd.DataFrame(metrics["folds"])
    return {
        "rows": metrics["folds"],
        "mean": scores[["macro_f1", "accuracy"]].mean().to_dict() if len(scores) else {},
        "spread": scores[["macro_f1", "accuracy"]].std(ddof=0).to_dict() if len(scores) else {},
        "figures": figures,
        "epochs": 0 if history is None else int(history["epoch"].max()),
        "seconds": 0 if history is None else float(history.groupby("epoch")["seconds"].first().mean()),
    }


def ablation(findings: Findings) -> dict | None:
    """What each part of the ensemble adds."""
    found = findings.metrics.get("ablation")
    if not found:
        return None
    sets = {title: found[name] for name, title in SETS.items() if found.get(name)}
    figure = save_figure(findings.folder, "ablation", lambda: draw_ablation(found, SETS)) if sets else None
    return {"sets": sets, "figure": figure, "folds_alone": found.get("folds_alone")}
