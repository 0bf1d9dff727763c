"""Sections of the report about scores: result, classes, leaderboard luck, calibration, folds, ablation."""

import pandas as pd

from trunkfold.errors import counted
from trunkfold.html import percent
from trunkfold.metrics import Metrics
from trunkfold.report.console import describe_absent, describe_copies, describe_leak, describe_result, describe_split
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


def result(findings: Findings) -> dict:
    """Return the headline, and a description of the split."""
    metrics = findings.metrics
    return {
        "sentence": describe_result(metrics),
        "basis": _basis(metrics),
        "predictor": "model" if _is_single(metrics) else "whole ensemble",
        "split": describe_split(metrics),
        "leak": describe_leak(metrics),
        "absent": describe_absent(metrics),
        "copies": describe_copies(metrics),
    }


def _is_single(metrics: Metrics) -> bool:
    return metrics.split.folds == 1 and len(metrics.runs) < 2  # a copy of a run names that run


def _basis(metrics: Metrics) -> str:
    """Explain how the expected score was derived."""
    oof, holdout, expected = metrics.oof, metrics.holdout, metrics.expected
    if oof is None or expected is None:
        return ""
    singles = f"Single models reach an out-of-fold macro F1 of {oof.macro_f1:.3f}"
    if _is_single(metrics):
        return f"The model reaches a macro F1 of {oof.macro_f1:.3f} on its validation photos. There are no other folds."
    if holdout is None or expected.gain is None:
        reason = "for an average of runs" if holdout else "without a hold-out"
        return f"{singles}. The gain from averaging the folds is unknown {reason}, and is not included."
    together = f"On the hold-out, the ensemble reaches {holdout.macro_f1:.3f}"
    if holdout.accuracy == 1:
        most = percent(min(1.0, 3 / holdout.groups), 1)  # the rule of three, as the bootstrap interval has width 0
        possible = f"which is compatible with an error rate of up to {most} of sources"
        together = f"On the hold-out, the ensemble makes no mistakes, {possible}"
    gain = f"The gain from averaging the folds, {expected.gain:+.3f} as far as the hold-out can tell, is added."
    return f"{singles}. {together}. {gain}"


def luck(findings: Findings) -> dict | None:
    """Return the simulated leaderboard scores of this model; None if all are equal, as without any mistake."""
    found = findings.metrics.luck
    if found is None or found.private.low == found.private.high:
        return None
    return {**vars(found), "figure": save_figure(findings.folder, "luck", draw_luck, found)}


def per_class(findings: Findings) -> dict | None:
    """Return sentences about each class, its sources, and photos of the most frequently confused classes."""
    by_set = findings.metrics.by_set()
    if not by_set:
        return None
    for name, scores in by_set.items():
        save_picture(findings.folder, f"confusion_{name}", draw_confusion, scores)
    sources = {
        name: table.groupby("label")["group"].nunique().rename(findings.classes).to_dict()
        for name, table in findings.tables.items()
    }
    pairs = [
        {**pair, "photos": [shown_photo(findings, row) for row in pair["rows"]]} for pair in findings.gallery.pairs
    ]
    return {"sentences": class_sentences(findings), "sources": sources, "pairs": pairs}


def class_sentences(findings: Findings) -> list[str]:
    """Describe each class in one sentence: recall, most frequent confusion, and the number of photos and sources."""
    name = "oof" if "oof" in findings.tables else "holdout"
    if name not in findings.tables:
        return []
    table, sentences = findings.tables[name], []
    for label, title in findings.classes.items():
        own = table[table["label"] == label]
        wrong = own[own["prediction"] != label]
        basis = f"{counted(len(own), 'photo')} of {counted(own['group'].nunique(), 'source')}"
        if own.empty:
            sentences.append(f"{title}: no scored photos.")
        elif wrong.empty:
            sentences.append(f"{title}: all {basis} are correct.")
        else:
            other = wrong["prediction"].value_counts().index[0]
            mistaken = wrong[wrong["prediction"] == other]
            share = "none" if len(wrong) == len(own) else percent(1 - len(wrong) / len(own))
            sentences.append(
                f"{title}: {share} of {basis} are correct; most often confused with "
                f"{findings.classes[other]} ({counted(len(mistaken), 'photo')} of "
                f"{counted(mistaken['group'].nunique(), 'source')})."
            )
    return sentences


def calibration(findings: Findings) -> dict | None:
    """Return the reliability diagrams, before and after temperature scaling."""
    found = findings.metrics.calibration
    if not found:
        return None
    figures = {
        title: save_figure(findings.folder, f"reliability_{name}", draw_reliability, part, title)
        for name, title in SETS.items()
        if (part := getattr(found, name))
    }
    return {"figures": figures}


def folds(findings: Findings) -> dict | None:
    """Return the learning curves, and the mean scores of the folds."""
    of_fold, history = findings.metrics.folds, findings.history
    if not of_fold and history is None:
        return None
    figures = {}
    if history is not None:
        for title, columns in CURVES.items():
            name = "curve_" + title.lower().replace(" ", "_")
            figures[title] = save_figure(findings.folder, name, draw_curves, history, columns, title)
    if of_fold:
        figures["scores by fold"] = save_figure(findings.folder, "fold_scores", draw_fold_scores, of_fold)
    scores = pd.DataFrame(map(vars, of_fold), columns=["macro_f1", "accuracy"])
    return {
        "mean": scores.mean().to_dict(),
        "spread": scores.std(ddof=0).to_dict(),
        "figures": figures,
        "epochs": 0 if history is None else int(history["epoch"].max()),
        "seconds": 0 if history is None else float(history.groupby("epoch")["seconds"].first().mean()),
    }


def ablation(findings: Findings) -> dict | None:
    """Return the figure of the gain from each part of the ensemble."""
    found = findings.metrics.ablation
    if not found:
        return None
    some = found.oof or found.holdout
    return {"figure": save_figure(findings.folder, "ablation", draw_ablation, found) if some else None}
