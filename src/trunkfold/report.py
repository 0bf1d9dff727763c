"""One self-contained page about a run: how good it is, whether to believe that, where it fails, what to do next."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from trunkfold.advice import next_steps
from trunkfold.errors import counted
from trunkfold.figures import (
    draw_ablation,
    draw_class_shares,
    draw_confusion,
    draw_curves,
    draw_fold_scores,
    draw_luck,
    draw_reliability,
    save_figure,
    save_picture,
)
from trunkfold.findings import Findings, read_findings
from trunkfold.gallery import ISSUES, SETS
from trunkfold.pages import data_address, percent, write_html
from trunkfold.predictions import PREFIX
from trunkfold.results import AUGMENTED
from trunkfold.shares import class_shares
from trunkfold.summary import describe_copies, describe_leak, describe_split

CURVES = {
    "loss": {"train_loss": "training, augmented photos", "val_loss": "validation"},
    "validation scores": {"val_macro_f1": "macro F1", "val_accuracy": "accuracy"},
    "learning rate": {"lr_tail": "tail", "lr_head": "head"},
}
BARS = 3  # probabilities that are shown of a photo, beside that of the truth


def write_report(run: Path) -> None:
    """Draw the figures of a run's tables into figures/ and write report.html beside them.

    Args:
        run: A folder with metrics.json and, where they exist, the run's tables and pictures; what it lacks, the page
            leaves out.

    Raises:
        InputError: metrics.json is missing, or a file is damaged.
    """
    findings = read_findings(run)
    (run / "figures").mkdir(exist_ok=True)
    made = {title: make(findings) for title, make in SECTIONS.items()}
    sections = {title: section for title, section in made.items() if section is not None}
    anchors = {title: title.lower().replace(" ", "-") for title in sections}
    write_html(run / "report.html", "report.html", name=run.name, sections=sections, anchors=anchors)


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
    low, high = best["intervals"]["macro_f1"]
    held_out = best["title"] == SETS["holdout"]
    who = "that nothing was learned from, the ensemble" if held_out else "each fold's own model"
    score = (
        f"On {best['photos']:,} photos of {best['groups']:,} sources {who} reaches a macro F1 of "
        f"{best['macro_f1']:.3f} (95\u00a0% interval {low:.3f} to {high:.3f}) and names the right class of "
        f"{percent(best['accuracy'], 1)} of the photos."
    )
    return f"{score} That is not to be believed: copies of these photos were learned from." if leaks else score


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
            "photos": [_photo(findings, row) for row in pair["rows"]],
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


def mistakes(findings: Findings) -> dict | None:
    """The most confident mistakes: the photo, where the prediction looked, its probabilities and its copies."""
    sets = {
        SETS[name]: [_mistake(findings, row) for _, row in table.iterrows()]
        for name, table in findings.gallery.mistakes.items()
        if len(table)
    }
    return {"sets": sets} if sets else None


def _mistake(findings: Findings, row: pd.Series) -> dict:
    probabilities = {label: float(row[PREFIX + name]) for label, name in findings.classes.items()}
    likely = sorted(probabilities, key=probabilities.get, reverse=True)
    shown = likely[:BARS] if row["label"] in likely[:BARS] else [*likely[:BARS], row["label"]]
    return {
        **_photo(findings, row["row"]),
        "heat": findings.thumbnails.heat(int(row["row"])),
        "predicted": findings.classes[row["prediction"]],
        "sure": float(row["sure"]),
        "bars": [(findings.classes[label], probabilities[label], label == row["label"]) for label in shown],
    }


def _photo(findings: Findings, row: int) -> dict:
    """A photo with its id, file, true class and copies."""
    row, table = int(row), findings.folds
    line = table.iloc[row]
    return {
        "picture": findings.thumbnails.photo(row),
        "id": line["image_id"],
        "file": line["filename"],
        "truth": findings.classes.get(line["label"], line["label"]),
        "copies": [
            {"picture": findings.thumbnails.photo(other), "id": table["image_id"].iloc[other]}
            for other in findings.gallery.copies.get(row, [])
        ],
    }


def suspects(findings: Findings) -> dict | None:
    """Labels that look wrong, the worst first."""
    table = findings.gallery.suspects
    if table.empty:
        return None
    rows = [
        {
            **_photo(findings, row["row"]),
            "label": findings.classes.get(row["label"], row["label"]),
            "suggestion": findings.classes.get(row["suggestion"], row["suggestion"]),
            **{key: row.get(key, "") for key in ("p_label", "p_suggestion", "reason")},
        }
        for _, row in table.iterrows()
    ]
    return {"rows": rows, "file": f"{findings.folder}/{ISSUES}"}


def advice(findings: Findings) -> dict | None:
    """What to do next."""
    sentences = next_steps(findings)
    return {"sentences": sentences} if sentences else None


def data(findings: Findings) -> dict | None:
    """The photos: their classes in each set, some of each, their sizes and copies, and what the model was shown."""
    if findings.folds is None:
        return {"predicted": findings.predicted} if findings.predicted else None
    shares = class_shares(findings.folds, findings.predicted, findings.classes)
    augmented = findings.folder / "figures" / AUGMENTED
    about = (findings.metrics.get("made_with") or {}).get("data") or {}
    return {
        "figure": save_figure(findings.folder, "classes", lambda: draw_class_shares(shares)),
        "predicted": findings.predicted,
        "shifts": findings.shifts,
        "samples": {
            findings.classes[label]: [_photo(findings, row) for row in rows]
            for label, rows in findings.gallery.samples.items()
            if any(findings.thumbnails.photo(row) for row in rows)
        },
        "augmented": data_address(augmented.read_bytes(), "png") if augmented.exists() else None,
        "sizes": about.get("sizes"),
        "groups": [
            f"{counted(count, 'source')} of {counted(int(size), 'photo')}"
            for size, count in (about.get("group_sizes") or {}).items()
        ],
    }


def ablation(findings: Findings) -> dict | None:
    """What each part of the ensemble adds."""
    found = findings.metrics.get("ablation")
    if not found:
        return None
    sets = {title: found[name] for name, title in SETS.items() if found.get(name)}
    figure = save_figure(findings.folder, "ablation", lambda: draw_ablation(found, SETS)) if sets else None
    return {"sets": sets, "figure": figure, "folds_alone": found.get("folds_alone")}


def making(findings: Findings) -> dict:
    """Everything needed to repeat the run."""
    config = findings.folder / "config.yaml"
    return {
        "metrics": findings.metrics,
        "made_with": findings.metrics.get("made_with") or {},
        "config": config.read_text(encoding="utf-8") if config.exists() else None,
    }


SECTIONS: dict[str, Callable[[Findings], dict | None]] = {
    "Verdict": verdict,
    "Luck": luck,
    "Classes": per_class,
    "Calibration": calibration,
    "Folds": folds,
    "Mistakes": mistakes,
    "Suspected labels": suspects,
    "What to do next": advice,
    "Data": data,
    "What each part adds": ablation,
    "How it was made": making,
}
