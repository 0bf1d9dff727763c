"""Summary of a search for copies, copies.json: what was found, in numbers and sentences."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd

from trunkfold.copies.grouping import Group
from trunkfold.errors import counted, first_few

GROUPS, SUMMARY = "groups.csv", "copies.json"


def summarise(photos: pd.DataFrame, groups: list[Group], exact_duplicates: int, unreadable: list[int]) -> dict:
    """Count what a search found.

    Args:
        photos: set, filename, label and group of each photo.
        groups: Groups of the search.
        exact_duplicates: Number of photos with the pixels of another one.
        unreadable: Rows of photos that cannot be read.
    """
    sizes = Counter(photos["group"].value_counts().tolist())
    labels = photos[photos["set"] == "train"].groupby("group")["label"].nunique()
    sets = photos.groupby("group")["set"].nunique()
    return {
        "photos": {name: int((photos["set"] == name).sum()) for name in ("train", "test")},
        "groups": photos["group"].nunique(),
        "groups_by_size": {str(size): sizes[size] for size in sorted(sizes)},
        "conflicting": labels.index[labels > 1].tolist(),
        "crossing": sets.index[sets > 1].tolist(),
        "lacking_copies": sum(group.size for group in groups if group.lacks_copies),
        "exact_duplicates": exact_duplicates,
        "unreadable": photos["filename"].iloc[unreadable].tolist(),
    }


def read_summary(out: Path) -> dict:
    """Read copies.json of a finished search; empty if there is none."""
    try:
        summary = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) and (out / GROUPS).exists() else {}


def facts(summary: dict) -> list[str]:
    """Summarize a search in a few sentences."""
    sizes = ", ".join(f"{count} of {counted(int(size), 'photo')}" for size, count in summary["groups_by_size"].items())
    train, test = summary["photos"]["train"], summary["photos"]["test"]
    photos = f"{train} labelled and {counted(test, 'unlabelled photo')}"
    sentences = [f"{photos} show {counted(summary['groups'], 'source')}: {sizes}."]
    conflicting, crossing = summary["conflicting"], summary["crossing"]
    if conflicting:
        sentences.append(f"Conflicting labels in {counted(len(conflicting), 'group')}: {first_few(conflicting)}.")
    else:
        sentences.append("No group has conflicting labels.")
    if crossing:
        number = counted(len(crossing), "group")
        sentences.append(f"Labelled and unlabelled photos together in {number}: {first_few(crossing)}.")
    else:
        sentences.append("No group has labelled and unlabelled photos together.")
    if summary["exact_duplicates"]:
        sentences.append(f"Exact duplicates of other photos: {summary['exact_duplicates']}.")
    if unreadable := summary["unreadable"]:
        sentences.append(f"Unreadable, ungrouped: {counted(len(unreadable), 'photo')}: {first_few(unreadable)}.")
    return [*sentences, certainty(summary)]


def certainty(summary: dict) -> str:
    """Return the expected errors of a search, and their effects on a split, in one sentence; "" without a search."""
    errors = summary.get("expected_errors")
    if errors is None:
        return ""
    doubts = "No decision of the search is doubtful."
    if errors["doubtful"]:
        doubts = (
            f"Doubtful: {counted(errors['doubtful'], 'decision')}, with {errors['false']:.1f} false links expected, "
            f"which only keep different sources in one fold, and {errors['missed']:.1f} missed ones, which may put "
            "copies into different folds and inflate scores."
        )
    if lacking := summary.get("lacking_copies"):  # results of earlier versions have none
        doubts += f" Photos in groups smaller than usual, which may lack copies: {lacking}."
    return doubts
