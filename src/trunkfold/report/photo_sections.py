"""Sections of the report that show photos: mistakes, suspected labels, data."""

import pandas as pd

from trunkfold.errors import counted
from trunkfold.evaluation.class_shift import class_shares
from trunkfold.evaluation.predictions import PREFIX
from trunkfold.html import data_address
from trunkfold.report.contents import Findings
from trunkfold.report.figures import draw_class_shares, save_figure
from trunkfold.run_folder import SETS

BARS = 3  # highest probabilities shown per photo, in addition to the true and the predicted class


def mistakes(findings: Findings) -> dict | None:
    """Return the most confident mistakes: photo, Grad-CAM overlay, probabilities and copies."""
    sets = {
        SETS[name]: [_mistake(findings, row) for _, row in table.iterrows()]
        for name, table in findings.gallery.mistakes.items()
        if len(table)
    }
    return {"sets": sets, "classes": list(findings.classes.values())} if sets else None


def _mistake(findings: Findings, row: pd.Series) -> dict:
    probabilities = {label: float(row[PREFIX + name]) for label, name in findings.classes.items()}
    likely = sorted(probabilities, key=probabilities.get, reverse=True)
    # The predicted class may not be the most probable one, because decoding maximizes macro F1 over the whole set.
    shown = list(dict.fromkeys([*likely[:BARS], row["prediction"], row["label"]]))
    return {
        **shown_photo(findings, row["row"]),
        "heat": findings.heat(int(row["row"])),
        "predicted": findings.classes[row["prediction"]],
        "sure": float(row["sure"]),
        "bars": [(findings.classes[label], probabilities[label], label == row["label"]) for label in shown],
    }


def suspects(findings: Findings) -> dict | None:
    """Return the suspected label errors, the most likely ones first."""
    table = findings.gallery.suspects
    if table.empty:
        return None
    rows = [
        {
            **shown_photo(findings, row["row"]),
            "label": findings.classes.get(row["label"], row["label"]),
            "suggestion": findings.classes.get(row["suggestion"], row["suggestion"]),
            **{key: row.get(key, "") for key in ("p_label", "p_suggestion", "reason")},
            "choice": {"photos": row["photos"], "suggestion": row["suggestion"]},
        }
        for _, row in table.iterrows()
    ]
    return {"rows": rows, "file": str(findings.folder.label_issues), "classes": findings.classes}


def data(findings: Findings) -> dict | None:
    """Return the data section: class shares by set, sample photos, sizes, copies and augmentations."""
    if findings.folds is None:
        return {"samples": {}} if findings.predicted else None
    shares = class_shares(findings.folds, findings.predicted, findings.classes)
    augmented = findings.folder.augmented
    about = findings.metrics.made_with and findings.metrics.made_with.data
    return {
        "figure": save_figure(findings.folder, "classes", draw_class_shares, shares),
        "samples": {
            findings.classes[label]: [shown_photo(findings, row) for row in rows]
            for label, rows in findings.gallery.samples.items()
            if any(findings.photo(row) for row in rows)
        },
        "augmented": data_address(augmented.read_bytes(), "png") if augmented.exists() else None,
        "sizes": about and about.sizes,
        "groups": [
            f"{counted(count, 'source')} of {counted(int(size), 'photo')}"
            for size, count in (about.group_sizes if about else {}).items()
        ],
    }


def shown_photo(findings: Findings, row: int) -> dict:
    """Return a photo with its id, file name, true class and copies."""
    row, table = int(row), findings.folds
    line = table.iloc[row]
    return {
        "picture": findings.photo(row),
        "id": line["image_id"],
        "file": line["filename"],
        "truth": findings.classes.get(line["label"], line["label"]),
        "copies": [
            {"picture": findings.photo(other), "id": table["image_id"].iloc[other]}
            for other in findings.gallery.copies.get(row, [])
        ],
    }
