"""Review page of a search for copies: the most doubtful pairs to decide, and the least certain groups."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from trunkfold.copies.alignment import Alignment
from trunkfold.copies.descriptors import frame
from trunkfold.copies.doubts import Doubt
from trunkfold.copies.evidence import IDENTICAL, Evidence
from trunkfold.copies.grouping import Group
from trunkfold.copies.record import LONG_SIDE
from trunkfold.copies.summary import facts
from trunkfold.data.photos import encode_jpeg, read_photo
from trunkfold.errors import counted
from trunkfold.html import data_address, percent, write_html

GROUPS_SHOWN, DOUBTS_SHOWN, PHOTOS_SHOWN = 10, 50, 6
PAIRS_SHOWN = 40
PICTURE = 144  # short side in pixels

Shown = tuple[Doubt, Alignment | None]


def write_page(
    path: Path, name: str, photos: pd.DataFrame, groups: list[Group], doubts: list[Shown], summary: dict
) -> None:
    """Write one self-contained page.

    Args:
        path: Output file.
        name: Name of the competition.
        photos: image_id, set, filename, label, path and group of each photo.
        groups: Groups of rows of `photos`.
        doubts: Decisions to review, each with the alignment of its pair.
        summary: See `trunkfold.copies.summary`.
    """
    write_html(
        path,
        "copies.html",
        name=name,
        key=summary["key"],
        doubtful=summary["expected_errors"]["doubtful"],
        facts=facts(summary),
        pairs=[_show_pair(photos, *shown) for shown in doubts],
        sizes={int(size): count for size, count in summary["groups_by_size"].items()},
        sections=[
            {
                "title": title,
                "remark": remark,
                "count": counted(len(members), "group"),
                "groups": [_show(photos, group) for group in members[:shown]],
            }
            for title, members, shown, remark in _sections(photos, groups)
            if members
        ],
    )


def _sections(photos: pd.DataFrame, groups: list[Group]) -> list[tuple[str, list[Group], int, str]]:
    """Return title, groups, number of groups to show, and explanation of each section."""
    small = [group for group in groups if group.lacks_copies]
    several = sorted((group for group in groups if group.links), key=lambda group: group.weakest[2].strength)
    conflicting = [group for group in several if _labels(photos, group).nunique() > 1]
    crossing = [group for group in several if photos["set"].iloc[group.members].nunique() > 1]
    by_hand = "They may lack copies. To join some by hand, list them for --links: image_id_a, image_id_b, same (true)."
    one_label = "One source with several labels: at most one is correct."
    labelled_copy = "Test photos with a labelled copy: see decode.copy_labels."
    return [
        ("Smaller than usual", small, DOUBTS_SHOWN, by_hand),
        ("Least certain", several, GROUPS_SHOWN, "Other groups rest on stronger links."),
        ("Conflicting labels", conflicting, DOUBTS_SHOWN, one_label),
        ("Labelled and unlabelled", crossing, DOUBTS_SHOWN, labelled_copy),
        ("Most certain", several[::-1], GROUPS_SHOWN, "Examples of certain copies."),
    ]


def _labels(photos: pd.DataFrame, group: Group) -> pd.Series:
    """Return the labels of a group's labelled photos."""
    members = photos.iloc[group.members]
    return members.loc[members["set"] == "train", "label"]


def _show(photos: pd.DataFrame, group: Group) -> dict:
    members = photos.iloc[group.members[:PHOTOS_SHOWN]]
    return {
        "name": members["group"].iloc[0],
        "evidence": _in_words(photos, *group.weakest) if group.links else "no copy was found",
        "photos": [
            {
                "id": photo.image_id,
                "picture": _picture(photo.path),
                "remark": _remark(photo),
            }
            for _, photo in members.iterrows()
        ],
        "more": counted(more, "more photo") if (more := len(group.members) - len(members)) else "",
    }


def _in_words(photos: pd.DataFrame, one: int, other: int, evidence: Evidence) -> str:
    names = f"{photos['image_id'].iloc[one]} and {photos['image_id'].iloc[other]}"
    if evidence == IDENTICAL:
        return f"{names} are identical"
    if evidence.verdict:
        return f"{names} were compared by a person"
    return (
        f"weakest link {names}: {evidence.inliers:.0f} matching points, {evidence.overlap:.0%} overlap, "
        f"of which {evidence.agreement:.0%} looks alike"
    )


def _show_pair(photos: pd.DataFrame, doubt: Doubt, alignment: Alignment | None) -> dict:
    """Return what the page shows of a pair: both photos, and the second laid over the first."""
    lines = [photos.iloc[row] for row in doubt.pair]
    first, second = (frame(read_photo(line["path"], LONG_SIDE)) for line in lines)
    return {
        "choice": [{"id": line["image_id"], "set": line["set"]} for line in lines],
        "remarks": [f"{line['image_id']} · " + _remark(line) for line in lines],
        "pictures": [_as_address(first), _as_address(second)],
        "laid_over": None if alignment is None else _as_address(_lay_over(second, first.shape, alignment)),
        "decision": "in one group" if doubt.joined else "kept apart",
        "error": percent(doubt.error, 1),
    }


def _lay_over(second: np.ndarray, shape: tuple[int, ...], alignment: Alignment) -> np.ndarray:
    """Warp the second photo of an alignment onto the first, of this shape."""
    height, width = shape[:2]
    mirror = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]]) if alignment.mirrored else np.eye(3)
    return cv2.warpPerspective(second, alignment.map @ mirror, (width, height), flags=cv2.WARP_INVERSE_MAP)


def _remark(photo: pd.Series) -> str:
    return f"label {photo['label']}" if photo["set"] == "train" else "unlabelled"


def _picture(path: str) -> str:
    """Return a photo as the data URL of a small JPEG."""
    return _as_address(read_photo(path, PICTURE))


def _as_address(pixels: np.ndarray) -> str:
    return data_address(encode_jpeg(pixels), "jpeg")
