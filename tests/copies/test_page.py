"""The page needs nothing but itself, shows the least sure groups first, and believes no name that it is given."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from drawn_photos import crop, draw_source, mirror

from trunkfold.copies.alignment import align
from trunkfold.copies.descriptors import describe_photo
from trunkfold.copies.doubts import Doubt
from trunkfold.copies.evidence import IDENTICAL, Evidence
from trunkfold.copies.grouping import Group
from trunkfold.copies.page import GROUPS_SHOWN, PHOTOS_SHOWN, PICTURE, Shown, write_page
from trunkfold.copies.summary import certainty, facts

SURE = Evidence(40, 0.9, 0.99, 0.8)
UNSURE = Evidence(8, 0.55, 0.86, 0.3)
SUMMARY = {
    "photos": {"train": 4, "test": 2},
    "groups": 3,
    "groups_by_size": {"1": 1, "2": 1, "3": 1},
    "conflicting": [],
    "crossing": [],
    "exact_duplicates": 0,
    "unreadable": [],
    "key": "0123456789abcdef",
    "lacking_copies": 0,
    "expected_errors": {"doubtful": 3, "false": 0.25, "missed": 1.5},
}


def write(folder: Path, groups: list[Group], doubts: Sequence[Shown] = (), **columns: list[str]) -> str:
    """Write the page of some groups; the photos' ids are p0, p1 ... and the groups' names g0, g1 ...

    Args:
        folder: Where to.
        groups: Of rows, which are all in one of them.
        doubts: Pairs to compare.
        columns: Of the table of photos, to replace those of labelled photos with label 1.
    """
    rows = range(sum(len(group.members) for group in groups))
    (folder / "photos").mkdir(exist_ok=True)
    path = folder / "photos" / "photo.png"
    cv2.imwrite(str(path), draw_source(0, 400, 300))
    names = {row: f"g{number}" for number, group in enumerate(groups) for row in group.members}
    table = {
        "image_id": [f"p{row}" for row in rows],
        "set": ["train" for _ in rows],
        "filename": ["photo.png" for _ in rows],
        "label": ["1" for _ in rows],
        "path": [str(path) for _ in rows],
        "group": [names[row] for row in rows],
    }
    write_page(folder / "copies.html", folder.name, pd.DataFrame(table | columns), groups, doubts, SUMMARY)
    return (folder / "copies.html").read_text(encoding="utf-8")


def chain(*members: int, evidence: Evidence = SURE) -> Group:
    links = [(one, other, evidence) for one, other in zip(members, members[1:], strict=False)]
    return Group(list(members), links)


def sections_of(page: str) -> dict[str, str]:
    """The page's sections by title, without the small print beside it."""
    parts = re.split(r"<h2>(.*?) <small>.*?</small></h2>", page)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def names_in(section: str) -> list[str]:
    return re.findall(r"<b>(.*?)</b>", section)


def test_the_page_needs_nothing_but_itself(tmp_path):
    page = write(tmp_path, [chain(0, 1), chain(2, 3, 4, evidence=UNSURE)])
    assert not re.search("https?:|//|file:|@import|<link|<script|url\\(", re.sub('base64,[^"]*', "", page))
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'>\s]*)""", page)
    assert addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    for name in (str(tmp_path), "photo.png", "photos/"):
        assert name not in page


def test_the_pictures_are_the_photos_made_small(tmp_path):
    page = write(tmp_path, [chain(0, 1)])
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)"', page)
    assert len(pictures) == 4  # in the least sure and in the surest groups
    expected = cv2.resize(draw_source(0, 400, 300), (PICTURE * 4 // 3, PICTURE), interpolation=cv2.INTER_AREA)
    for picture in pictures:
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (PICTURE, PICTURE * 4 // 3, 3)
        assert np.abs(pixels.astype(int) - expected).mean() < 6  # and their colours are not exchanged


def test_the_colours_of_a_picture_are_those_of_the_photo(tmp_path):
    orange = np.full((20, 30, 3), (20, 120, 230), np.uint8)  # blue, green, red
    cv2.imwrite(str(tmp_path / "orange.png"), orange)
    page = write(tmp_path, [chain(0, 1)], path=[str(tmp_path / "orange.png")] * 2)
    picture = re.search(r"base64,([^\"]*)", page)[1]
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_allclose(pixels.mean((0, 1)), (20, 120, 230), atol=6)


HOSTILE = '<script>alert("x")</script>'


@pytest.mark.parametrize("column", ["image_id", "label", "group"])
def test_names_are_shown_not_obeyed(column, tmp_path):
    page = write(tmp_path, [chain(0, 1)], **{column: [HOSTILE, HOSTILE]})
    assert "<script" not in page
    assert 'alert("x")' not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize("entry", ["unreadable", "conflicting", "crossing"])
def test_names_in_the_summary_are_shown_not_obeyed(entry, tmp_path, monkeypatch):
    monkeypatch.setitem(SUMMARY, entry, [HOSTILE])
    page = write(tmp_path, [chain(0, 1)])
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page


def test_the_name_of_the_folder_is_shown_not_obeyed(tmp_path):
    folder = tmp_path / "<b>bold"
    folder.mkdir()
    assert "Copies in &lt;b&gt;bold" in write(folder, [chain(0, 1)])


def test_the_least_sure_group_is_first_and_the_surest_first_in_its_own_section(tmp_path):
    middle = Evidence(20, 0.9, 0.95, 0.5)
    unsure = Group([4, 5, 6], [(4, 5, SURE), (4, 6, UNSURE)])  # as sure as its weakest link
    groups = [chain(0, 1), chain(2, 3, evidence=middle), unsure, chain(7, 8, evidence=IDENTICAL), Group([9])]
    sections = sections_of(write(tmp_path, groups))
    assert list(sections) == ["Least certain", "Most certain"]
    assert names_in(sections["Least certain"]) == ["g2", "g1", "g0", "g3"]
    assert names_in(sections["Most certain"]) == ["g3", "g0", "g1", "g2"]
    first = sections["Least certain"].partition("<b>g1</b>")[0]
    assert "weakest link p4 and p6: 8 matching points, 55% overlap, of which 86% looks alike" in first


def test_equal_pixels_are_told_as_such(tmp_path):
    assert "p0 and p1 are identical" in write(tmp_path, [chain(0, 1, evidence=IDENTICAL)])


def test_groups_with_two_labels_have_a_section_that_shows_both(tmp_path):
    groups = [chain(0, 1), chain(2, 3, 4), chain(5, 6)]
    labels, sets = ["1", "1", "2", "1", "2", "3", ""], ["train"] * 6 + ["test"]
    section = sections_of(write(tmp_path, groups, label=labels, set=sets))["Conflicting labels"]
    assert names_in(section) == ["g1"]
    captions = re.findall("<figcaption>(.*?)</figcaption>", section)
    assert captions == ["p2 · label 2", "p3 · label 1", "p4 · label 2"]


def test_groups_of_labelled_and_unlabelled_photos_have_a_section(tmp_path):
    groups = [chain(0, 1), chain(2, 3), chain(4, 5)]
    labels, sets = ["1", "", "1", "1", "", ""], ["train", "test", "train", "train", "test", "test"]
    sections = sections_of(write(tmp_path, groups, label=labels, set=sets))
    assert list(sections) == [
        "Least certain",
        "Labelled and unlabelled",
        "Most certain",
    ]  # no label and one are no conflict
    assert names_in(sections["Labelled and unlabelled"]) == ["g0"]
    captions = re.findall("<figcaption>(.*?)</figcaption>", sections["Labelled and unlabelled"])
    assert captions == ["p0 · label 1", "p1 · unlabelled"]


@pytest.mark.parametrize(("photos", "more"), [(6, None), (7, "and 1 more photo:"), (9, "and 3 more photos:")])
def test_a_large_group_says_how_many_more_photos_it_has(photos, more, tmp_path):
    section = sections_of(write(tmp_path, [chain(*range(photos))]))["Least certain"]
    assert section.count("<figure>") == PHOTOS_SHOWN == 6
    if more is None:
        assert "more photo" not in section
    else:
        assert f"<b>g0</b> {more}" in section


def test_the_first_groups_are_shown_and_all_are_counted(tmp_path):
    page = write(tmp_path, [chain(2 * number, 2 * number + 1) for number in range(GROUPS_SHOWN + 3)])
    assert len(names_in(sections_of(page)["Least certain"])) == GROUPS_SHOWN
    assert f"Least certain <small>{GROUPS_SHOWN} of {GROUPS_SHOWN + 3} groups</small>" in page


def test_without_copies_the_page_says_so(tmp_path):
    page = write(tmp_path, [Group([0]), Group([1])])
    assert "No photo is a copy of another." in page
    assert "<h2>" not in page
    assert "<img" not in page


def test_sizes_of_groups_are_a_table(tmp_path):
    page = write(tmp_path, [chain(0, 1)])
    rows = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", page)]
    assert rows[1:] == [["1", "1", "1"], ["2", "1", "2"], ["3", "1", "3"]]


def test_facts_name_what_needs_a_look():
    assert facts(SUMMARY)[0].startswith("4 labelled and 2 unlabelled photos show 3 sources: 1 of 1")
    assert facts(SUMMARY)[1:] == [
        "No group has conflicting labels.",
        "No group has labelled and unlabelled photos together.",
        "Doubtful: 3 decisions, with 0.2 false links expected, which only keep different sources in one fold, and 1.5 "
        "missed ones, which may put copies into different folds and inflate scores.",
    ]
    many = [f"g{number:02}" for number in range(23)]
    told = facts(
        SUMMARY | {"conflicting": ["g1", "g2"], "crossing": many, "exact_duplicates": 5, "unreadable": ["a.jpg"]}
    )
    assert told[1:] == [
        "Conflicting labels in 2 groups: g1, g2.",
        f"Labelled and unlabelled photos together in 23 groups: {', '.join(many[:20])} ... and 3 more.",
        "Exact duplicates of other photos: 5.",
        "Unreadable, ungrouped: 1 photo: a.jpg.",
        facts(SUMMARY)[-1],
    ]


def test_photos_that_may_lack_copies_are_told_and_shown(tmp_path):
    small = [chain(0, 1), Group([2])]
    page = write(tmp_path, [*small, chain(3, 4, 5)])
    assert "Smaller than usual" not in page
    for group in small:
        group.lacks_copies = True
    section = sections_of(write(tmp_path, [*small, chain(3, 4, 5)]))["Smaller than usual"]
    assert names_in(section) == ["g0", "g1"]
    assert "no copy was found" in section
    lacking = SUMMARY | {"lacking_copies": 3}
    assert certainty(lacking).endswith(" Photos in groups smaller than usual, which may lack copies: 3.")
    sure = SUMMARY | {"expected_errors": {"doubtful": 0, "false": 0, "missed": 0}}
    assert certainty(sure) == "No decision of the search is doubtful."


def test_a_doubtful_pair_is_shown_beside_and_over_each_other(tmp_path):
    """The second photo, a mirrored crop, is warped onto the first."""
    source = draw_source(3, 320, 240)
    paths = [str(tmp_path / f"{name}.png") for name in ("whole", "part")]
    for path, pixels in zip(paths, (source, mirror(crop(source, 0.8, 0.5, 0.5))), strict=True):
        cv2.imwrite(path, pixels[..., ::-1])
    doubt = Doubt((0, 1), joined=False, error=0.125)
    alignment = align(*(describe_photo(path) for path in paths))
    assert alignment.mirrored
    page = write(tmp_path, [Group([0]), Group([1])], [(doubt, alignment)], path=paths, set=["train", "test"])
    section = sections_of(page)["Pairs to compare"]
    assert "Now kept apart; wrong with a probability of 12.5" in section
    assert re.findall("<figcaption>(.*?)</figcaption>", section) == ["p0 · label 1", "p1 · unlabelled"]
    found = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', section)
    first, second, below, over = [cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), 0) for one in found]
    assert (below == first).all()
    assert over.shape == first.shape
    inside = cv2.erode((over > 0).astype(np.uint8), np.ones((9, 9))) > 0
    assert 0.4 < inside.mean() < 0.8
    assert np.abs(over.astype(int) - first)[inside].mean() < 6
    assert np.abs(cv2.resize(second, first.shape[::-1]).astype(int) - first)[inside].mean() > 12


def test_a_pair_without_a_common_map_has_no_slider(tmp_path):
    page = write(tmp_path, [chain(0, 1)], [(Doubt((0, 1), True, 0.2), None)])
    section = sections_of(page)["Pairs to compare"]
    assert "Now in one group" in section
    assert "slider" not in section.partition("</p>")[2]
    assert 'type="range"' not in section


@pytest.mark.parametrize("column", ["image_id", "label"])
def test_names_of_pairs_are_shown_not_obeyed(column, tmp_path):
    page = write(tmp_path, [chain(0, 1)], [(Doubt((0, 1), True, 0.2), None)], **{column: [HOSTILE, HOSTILE]})
    assert page.count("<script") == 1  # the page's own
    assert 'alert("x")' not in page
