"""Review page of a search for copies, the least certain groups first."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from trunkfold.copies.evidence import IDENTICAL, Evidence
from trunkfold.copies.grouping import Group
from trunkfold.data.photos import read_photo
from trunkfold.errors import counted, first_few
from trunkfold.html import data_address, write_html

GROUPS_SHOWN, DOUBTS_SHOWN, PHOTOS_SHOWN = 10, 50, 6
PICTURE = 144  # short side in pixels


def write_page(path: Path, name: str, photos: pd.DataFrame, groups: list[Group], summary: dict) -> None:
    """Write one self-contained page.

    Args:
        path: Output file.
        name: Name of the competition.
        photos: image_id, set, filename, label, path and group of each photo.
        groups: Groups of rows of `photos`.
        summary: See `trunkfold.copies.search`.
    """
    several = sorted((group for group in groups if group.links), key=lambda group: group.weakest[2].strength)
    conflicting = [group for group in several if _labels(photos, group).nunique() > 1]
    crossing = [group for group in several if photos["set"].iloc[group.members].nunique() > 1]
    sections = {
        "Least certain": (several, GROUPS_SHOWN, "If each of these groups shows one source, so do all others."),
        "Conflicting labels": (conflicting, DOUBTS_SHOWN, "One source with several labels: at most one is correct."),
        "Labelled and unlabelled": (
            crossing,
            DOUBTS_SHOWN,
            "Test photos with a labelled copy: see decode.copy_labels.",
        ),
        "Most certain": (several[::-1], GROUPS_SHOWN, "Examples of certain copies."),
    }
    write_html(
        path,
        "copies.html",
        name=name,
        facts=facts(summary),
        sizes={int(size): count for size, count in summary["groups_by_size"].items()},
        sections=[
            {
                "title": title,
                "remark": remark,
                "count": counted(len(members), "group"),
                "groups": [_show(photos, group) for group in members[:shown]],
            }
            for title, (members, shown, remark) in sections.items()
            if members
        ],
    )


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
    return sentences


def _labels(photos: pd.DataFrame, group: Group) -> pd.Series:
    """Return the labels of a group's labelled photos."""
    members = photos.iloc[group.members]
    return members.loc[members["set"] == "train", "label"]


def _show(photos: pd.DataFrame, group: Group) -> dict:
    members = photos.iloc[group.members[:PHOTOS_SHOWN]]
    return {
        "name": members["group"].iloc[0],
        "evidence": _in_words(photos, *group.weakest),
        "photos": [
            {
                "id": photo.image_id,
                "picture": _picture(photo.path),
                "remark": f"label {photo.label}" if photo.set == "train" else "unlabelled",
            }
            for photo in members.itertuples()
        ],
        "more": counted(more, "more photo") if (more := len(group.members) - len(members)) else "",
    }


def _in_words(photos: pd.DataFrame, one: int, other: int, evidence: Evidence) -> str:
    names = f"{photos['image_id'].iloc[one]} and {photos['image_id'].iloc[other]}"
    if evidence == IDENTICAL:
        return f"{names} are identical"
    return (
        f"weakest link {names}: {evidence.inliers} matching features, {evidence.overlap:.0%} overlap, "
        f"of which {evidence.agreement:.0%} looks alike"
    )


def _picture(path: str) -> str:
    """Return a photo as the data URL of a small JPEG."""
    pixels = np.ascontiguousarray(read_photo(path, PICTURE)[..., ::-1])
    _, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data_address(jpeg.tobytes(), "jpeg")
