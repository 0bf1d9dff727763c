"""A search finds the copies of each source and nothing else, once, and leaves a table that is the same each time."""

import json
import os
import re
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, count
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from drawn_photos import (
    SHARED_PHOTOS,
    blur,
    brighter,
    crop,
    darker,
    draw_car,
    draw_source,
    grey,
    hue,
    jpeg,
    mirror,
    noise,
    pale,
    rotate,
    saturated,
    shear,
)
from toys import run_command

from trunkfold.copies import comparison, evidence_cache
from trunkfold.copies import search as copies
from trunkfold.copies.evidence import compare
from trunkfold.copies.search import copies_folder, describe_copies
from trunkfold.data.tables import Competition
from trunkfold.errors import InputError
from trunkfold.split.groups import load_groups

CLASSES = 3


def find_copies(competition: Competition, out: Path, links: Path | None = None) -> pd.DataFrame:
    """Search with a cache beside `out`."""
    return copies.find_copies(competition, out.parent / "cache", out, links)


def make_copy(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One source as a competition has it: several augmentations at once."""
    if rng.random() < 0.5:
        pixels = mirror(pixels)
    if rng.random() < 0.7:
        pixels = crop(pixels, rng.uniform(0.75, 1), *rng.random(2))
    pixels = [rotate(pixels, rng.uniform(-8, 8)), shear(pixels), pixels][rng.integers(3)]
    for ways in ((hue, brighter, darker, saturated, pale, grey), (noise, blur, lambda pixels: jpeg(pixels, 40))):
        if rng.random() < 0.6:
            pixels = ways[rng.integers(len(ways))](pixels)
    return pixels


def sources_with_copies(draw, seeds: range, name: str, rng: np.random.Generator) -> list[dict]:
    """Three copies of each drawn source, in one set, with one label."""
    return [
        {"set": name, "source": f"{draw.__name__} {seed}", "label": str(seed % CLASSES + 1), "pixels": pixels}
        for seed in seeds
        for source in [draw(seed)]
        for pixels in [make_copy(source, rng) for _ in range(3)]
    ]


def write_photos(root: Path, photos: list[dict]) -> pd.DataFrame:
    """Write a competition; the ids of both sets start at 001.

    Args:
        root: Where to.
        photos: set, label, source and pixels (bytes are written as they are) of each photo.

    Returns:
        image_id, set, source and path of each photo, in the order of the tables.
    """
    rows = []
    for name in ("train", "test"):
        folder = root / name / "images"
        folder.mkdir(parents=True)
        for number, photo in enumerate((photo for photo in photos if photo["set"] == name), start=1):
            path = folder / f"{name}-{number:03}.png"
            if isinstance(photo["pixels"], bytes):
                path.write_bytes(photo["pixels"])
            else:
                cv2.imwrite(str(path), photo["pixels"][..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
            rows.append(photo | {"image_id": f"{number:03}", "filename": path.name, "path": path})
    table = pd.DataFrame(rows).drop(columns="pixels")
    for name, columns in (("train", ["image_id", "filename", "label"]), ("test", ["image_id", "filename"])):
        if (table["set"] == name).any():
            table.loc[table["set"] == name, columns].to_csv(root / name / f"{name}.csv", index=False)
    return table


def write_mixed(root: Path) -> pd.DataFrame:
    """84 photos: sources in one set, one in both, one with two labels, ones without copies, and a broken file."""
    rng = np.random.default_rng(0)
    photos = [
        *sources_with_copies(draw_source, range(9), "train", rng),
        *sources_with_copies(draw_car, range(9), "train", rng),
        *sources_with_copies(draw_source, range(10, 13), "test", rng),
        *sources_with_copies(draw_car, range(10, 13), "test", rng),
    ]
    odd = {"two labels": (["train"] * 3, "121"), "both sets": (["train", "test", "test"], "333")}
    for seed, (source, (names, labels)) in enumerate(odd.items(), start=40):
        pixels = draw_source(seed)
        for name, label in zip(names, labels, strict=True):
            photos.append({"set": name, "source": source, "label": label, "pixels": make_copy(pixels, rng)})
    for seed in range(30, 33):
        photos.append({"set": "train", "source": f"alone {seed}", "label": "2", "pixels": draw_source(seed)})
    photos = [photos[place] for place in rng.permutation(len(photos))]
    photos.append(photos[0] | {"set": "train", "label": photos[0]["label"]})  # the same pixels once more
    photos.append({"set": "train", "source": "broken", "label": "1", "pixels": b"<html>404</html>"})
    return write_photos(root, photos)


def write_small(root: Path) -> pd.DataFrame:
    """15 small photos of five sources."""
    rng = np.random.default_rng(1)
    sets = {"train": range(4), "test": range(4, 5)}
    photos = [photo for name, seeds in sets.items() for photo in sources_with_copies(small_source, seeds, name, rng)]
    return write_photos(root, photos)


def small_source(seed: int) -> np.ndarray:
    return draw_source(seed, 160, 120)


def pair_scores(groups: pd.Series, sources: pd.Series) -> tuple[float, float]:
    """Precision and recall of the pairs of photos that are in one group."""

    def pairs(names: pd.Series) -> set[tuple[int, int]]:
        return {pair for rows in names.groupby(names).indices.values() for pair in combinations(sorted(rows), 2)}

    found, true = pairs(groups.reset_index(drop=True)), pairs(sources.reset_index(drop=True))
    return len(found & true) / len(found), len(found & true) / len(true)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file and folder."""
    stats = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*")}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def partition(groups: pd.DataFrame) -> list[list[int]]:
    """Rows of each group, those of one photo left out."""
    indices = groups.reset_index(drop=True).groupby("group").indices.values()
    return sorted(sorted(rows.tolist()) for rows in indices if len(rows) > 1)


def refuse(*_):
    pytest.fail("it searches again")


class Mixed:
    """A search that is done: root, out, the truth, what was found and what it said."""

    def __init__(self, folder: Path) -> None:
        self.root, self.out = folder / "cars", folder / "out"
        self.truth = write_mixed(self.root)
        self.before = files_of(self.root)
        self.groups = find_copies(Competition(self.root), self.out)
        self.summary = json.loads((self.out / "copies.json").read_text())
        self.page = (self.out / "copies.html").read_text()

    def group(self, source: str) -> str:
        (name,) = set(self.groups.loc[(self.truth["source"] == source).to_numpy(), "group"])
        return name


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    """The mixed competition, searched; not to be changed."""
    return Mixed(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def small_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small competition, small, and the result of its search, out; not to be changed."""
    folder = tmp_path_factory.mktemp("small_search")
    write_small(folder / "small")
    find_copies(Competition(folder / "small"), folder / "out")
    return folder


@pytest.fixture
def small(small_search: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_search / "small", tmp_path / "small")


@pytest.fixture
def found_before(small_search: Path, tmp_path: Path) -> pd.DataFrame:
    """Groups of the small competition, searched before: the result is in out."""
    shutil.copytree(small_search / "out", tmp_path / "out")
    return pd.read_csv(tmp_path / "out" / "groups.csv", dtype=str)


def test_copies_are_together_and_nothing_else(mixed):
    precision, recall = pair_scores(mixed.groups["group"], mixed.truth["source"])
    assert precision == 1
    assert recall > 0.97


def test_the_table_has_every_photo_once_in_the_order_of_the_tables(mixed):
    table = pd.read_csv(mixed.out / "groups.csv", dtype=str)
    assert list(table) == ["image_id", "set", "group"]
    pd.testing.assert_frame_equal(table, mixed.groups)
    assert table["image_id"].tolist() == mixed.truth["image_id"].tolist()
    assert table["set"].tolist() == mixed.truth["set"].tolist()
    assert not table.duplicated(["image_id", "set"]).any()
    first = table["group"].drop_duplicates().tolist()
    assert first == sorted(first)  # numbered in the order of their first photos, all of one length
    assert first[0] == "g01"


def test_groups_with_two_labels_are_told(mixed):
    assert mixed.summary["conflicting"] == [mixed.group("two labels")]
    assert f"Conflicting labels in 1 group: {mixed.group('two labels')}." in mixed.page


def test_groups_with_labelled_and_unlabelled_photos_are_told(mixed):
    assert mixed.group("both sets") in mixed.summary["crossing"]
    sets = mixed.truth.groupby(mixed.groups["group"])["set"].nunique()
    assert mixed.summary["crossing"] == sorted(sets.index[sets > 1])
    assert "Labelled and unlabelled</h2>" in re.sub(r" <small>.*?</small>", "", mixed.page)
    assert re.search(r"weakest link \S+ and \S+: \d+ matching points", mixed.page)


def test_the_summary_counts_what_there_is(mixed):
    sizes = Counter(Counter(mixed.groups["group"]).values())
    train = int((mixed.truth["set"] == "train").sum())
    assert mixed.summary["photos"] == {"train": train, "test": len(mixed.truth) - train}
    assert mixed.summary["groups"] == mixed.groups["group"].nunique()
    assert mixed.summary["groups_by_size"] == {str(size): sizes[size] for size in sorted(sizes)}
    assert mixed.summary["exact_duplicates"] == 1
    text = describe_copies(mixed.out)
    assert f"{train} labelled and {len(mixed.truth) - train} unlabelled photos" in text
    assert "Exact duplicates of other photos: 1." in text


def test_the_same_pixels_are_in_one_group(mixed):
    row = len(mixed.truth) - (mixed.truth["set"] == "test").sum() - 2  # the last labelled one before the broken file
    assert Counter(mixed.groups["group"])[mixed.groups["group"].iloc[row]] >= 2
    assert mixed.group(mixed.truth["source"].iloc[row])


def test_an_unreadable_photo_is_alone_and_named(mixed):
    broken = mixed.truth.loc[mixed.truth["source"] == "broken", "filename"].item()
    assert mixed.summary["unreadable"] == [broken]
    assert Counter(mixed.groups["group"])[mixed.group("broken")] == 1
    assert f"Unreadable, ungrouped: 1 photo: {broken}." in describe_copies(mixed.out)


def test_the_competitions_folder_is_not_written_to(mixed):
    assert files_of(mixed.root) == mixed.before


def test_nothing_else_is_left_behind(mixed):
    assert {path.name for path in mixed.out.iterdir()} - {".lock"} == {"groups.csv", "copies.json", "copies.html"}


def test_what_was_found_is_not_searched_again(mixed, monkeypatch, capsys):
    for name in ("describe_photo", "EvidenceCache", "join"):
        monkeypatch.setattr(copies, name, refuse)
    before = files_of(mixed.out)
    pd.testing.assert_frame_equal(find_copies(Competition(mixed.root), mixed.out), mixed.groups)
    assert files_of(mixed.out) == before
    assert capsys.readouterr().out == ""


def test_the_groups_are_where_training_looks_for_them(mixed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert copies_folder(mixed.root) == Path("submissions/copies/cars")
    shutil.copytree(mixed.out, copies_folder(mixed.root))
    monkeypatch.setattr(copies, "describe_photo", refuse)
    groups = load_groups("copies", Competition(mixed.root), tmp_path / "cache")
    pd.testing.assert_frame_equal(groups, mixed.groups)


@pytest.mark.parametrize("processes", [True, False], ids=["processes", "threads"])
def test_another_search_with_other_workers_gives_the_same_bytes(processes, small, small_search, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "WORKERS", 2 if processes else copies.WORKERS + 2)
    if processes:
        monkeypatch.setattr(copies, "MANY", 0)
        monkeypatch.setattr(evidence_cache, "MANY", 0)
        monkeypatch.setattr(comparison, "ThreadPoolExecutor", refuse)
    find_copies(Competition(small), tmp_path / "other")
    for file in ("groups.csv", "copies.json"):
        assert (small_search / "out" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    one, other = ((folder / "copies.html").read_text() for folder in (small_search / "out", tmp_path / "other"))
    assert one.replace("Copies in out", "Copies in other") == other


def test_a_changed_photo_is_searched_again(small, found_before, tmp_path, capsys):
    out, before = tmp_path / "out", found_before
    pd.testing.assert_frame_equal(find_copies(Competition(small), out), before)
    assert capsys.readouterr().out == ""
    path = small / "train" / "images" / "train-001.png"
    cv2.imwrite(str(path), draw_source(77, 160, 120)[..., ::-1])
    after = find_copies(Competition(small), out)
    assert capsys.readouterr().out.startswith("searching 15 photos for copies; ")
    assert (before["group"] == before["group"][0]).sum() == 3
    assert (after["group"] == after["group"][0]).sum() == 1
    assert partition(after)[1:] == partition(before)[1:]


@pytest.mark.usefixtures("found_before")
@pytest.mark.parametrize("change", ["label", "method", "file"])
def test_other_labels_another_method_or_a_lost_file_are_searched_again(change, small, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    if change == "label":  # who is in conflict depends on it
        path = small / "train" / "train.csv"
        table = pd.read_csv(path, dtype=str)
        table.loc[0, "label"] = "3"
        table.to_csv(path, index=False)
    elif change == "method":
        monkeypatch.setattr(copies, "VERSION", -1)
    else:
        (out / "groups.csv").unlink()
    find_copies(Competition(small), out)
    assert "searching" in capsys.readouterr().out
    assert bool(json.loads((out / "copies.json").read_text())["conflicting"]) == (change == "label")


@pytest.mark.parametrize("text", ['{"key": ', "[]"])
def test_a_damaged_summary_is_written_anew(text, small, found_before, tmp_path):
    file = tmp_path / "out" / "copies.json"
    summary = file.read_text()
    file.write_text(text)
    pd.testing.assert_frame_equal(find_copies(Competition(small), tmp_path / "out"), found_before)
    assert file.read_text() == summary


def interrupt_after(calls: int, function):
    """The function, which Ctrl-C ends after so many calls."""
    numbers = count()

    def call(*arguments):
        if next(numbers) >= calls:
            raise KeyboardInterrupt
        return function(*arguments)

    return call


def recording(function, calls: list):
    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return call


def replace_comparison(monkeypatch: pytest.MonkeyPatch, replacement) -> None:
    """Compare candidates and, before groups join, further pairs by something else."""
    for module in (comparison, evidence_cache):
        monkeypatch.setattr(module, "compare", replacement)


def test_doubts_are_also_about_pairs_that_were_compared_before_groups_joined(small, tmp_path, monkeypatch):
    compared, doubted = {}, {}
    join, find_doubts = copies.join, copies.find_doubts

    def look_first(photos, links, look, *again):
        pair = next(pair for pair in combinations(photos, 2) if pair not in links)
        compared[pair] = look(*pair)
        return join(photos, links, look, *again)

    def record(groups, evidence):
        doubted.update(evidence)
        return find_doubts(groups, evidence)

    monkeypatch.setattr(copies, "join", look_first)
    monkeypatch.setattr(copies, "find_doubts", record)
    find_copies(Competition(small), tmp_path / "out")
    assert compared
    assert compared.items() <= doubted.items()


def test_exact_duplicates_count_in_the_size_of_their_group(small, tmp_path, monkeypatch):
    root, join, passed = shutil.copytree(small, tmp_path / "cars"), copies.join, []
    first, second, *_ = Competition(root).train["path"]
    shutil.copyfile(first, second)

    def record(*arguments):
        passed.extend(arguments)
        return join(*arguments)

    monkeypatch.setattr(copies, "join", record)
    find_copies(Competition(root), tmp_path / "out")
    assert 1 not in passed[0]
    assert passed[-1] == {0: 1}


@pytest.fixture
def blocks(monkeypatch) -> None:
    monkeypatch.setattr(copies, "PHOTOS", 5)
    monkeypatch.setattr(evidence_cache, "PAIRS", 5)


@pytest.mark.usefixtures("blocks")
def test_a_search_that_was_interrupted_does_not_describe_its_photos_again(
    small, small_search, found_before, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(copies, "describe_photo", interrupt_after(12, copies.describe_photo))
        with pytest.raises(KeyboardInterrupt):
            find_copies(Competition(small), tmp_path / "again")
    assert not (tmp_path / "again" / "groups.csv").exists()
    described: list = []
    monkeypatch.setattr(copies, "describe_photo", recording(copies.describe_photo, described))
    pd.testing.assert_frame_equal(find_copies(Competition(small), tmp_path / "again"), found_before)
    ids = [
        f"{name}-{number:03}.png" for name, photos in (("train", 12), ("test", 3)) for number in range(1, photos + 1)
    ]
    assert sorted(Path(path).name for (path,) in described) == sorted(ids[10:])
    for name in ("groups.csv", "copies.json"):
        assert (tmp_path / "again" / name).read_bytes() == (small_search / "out" / name).read_bytes()


@pytest.mark.usefixtures("found_before")
def test_an_interrupted_search_leaves_no_summary_of_an_earlier_one(small, tmp_path, monkeypatch):
    """Or its groups would be taken for those of the photos as they were."""
    table = small / "train" / "train.csv"
    table.write_text(table.read_text().replace(",1\n", ",2\n", 1))
    monkeypatch.setattr(copies, "write_page", interrupt_after(0, copies.write_page))
    with pytest.raises(KeyboardInterrupt):
        find_copies(Competition(small), tmp_path / "out")
    assert not (tmp_path / "out" / "copies.json").exists()


@pytest.mark.usefixtures("blocks")
def test_a_search_that_was_interrupted_does_not_compare_its_pairs_again(small, tmp_path, monkeypatch):
    compared: list = []
    with monkeypatch.context() as patch:
        replace_comparison(patch, recording(compare, compared))
        expected = find_copies(Competition(small), tmp_path / "whole" / "out")
    with monkeypatch.context() as patch:
        replace_comparison(patch, interrupt_after(12, compare))
        with pytest.raises(KeyboardInterrupt):
            find_copies(Competition(small), tmp_path / "out")
    again: list = []
    replace_comparison(monkeypatch, recording(compare, again))
    monkeypatch.setattr(copies, "describe_photo", refuse)
    monkeypatch.setattr(evidence_cache, "find_candidates", refuse)
    pd.testing.assert_frame_equal(find_copies(Competition(small), tmp_path / "out"), expected)
    assert len(again) == len(compared) - 10  # two blocks of five were finished


@pytest.mark.usefixtures("blocks")
def test_what_was_left_of_a_search_is_not_used_for_other_photos(small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(copies, "describe_photo", interrupt_after(12, copies.describe_photo))
        with pytest.raises(KeyboardInterrupt):
            find_copies(Competition(small), tmp_path / "out")
    cv2.imwrite(str(small / "train" / "images" / "train-001.png"), draw_source(77, 160, 120)[..., ::-1])
    groups = find_copies(Competition(small), tmp_path / "out")
    assert (groups["group"] == groups["group"][0]).sum() == 1


def test_of_two_that_ask_at_once_one_searches(small, tmp_path, monkeypatch):
    described: list = []
    monkeypatch.setattr(copies, "describe_photo", recording(copies.describe_photo, described))
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: find_copies(Competition(small), tmp_path / "out"), range(2))
    pd.testing.assert_frame_equal(one, other)
    assert len(described) == 15


def test_a_competition_without_test_photos(small, tmp_path):
    shutil.rmtree(small / "test")
    groups = find_copies(Competition(small), tmp_path / "out")
    assert set(groups["set"]) == {"train"}
    assert partition(groups) == [list(range(first, first + 3)) for first in range(0, 12, 3)]
    assert json.loads((tmp_path / "out" / "copies.json").read_text())["photos"] == {"train": 12, "test": 0}


def train_photos(*pictures: np.ndarray | bytes) -> list[dict]:
    return [{"set": "train", "source": "", "label": "1", "pixels": pixels} for pixels in pictures]


def test_odd_photos_are_handled_quickly(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    picture, tiny = draw_source(0, 40, 30), rng.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    large = cv2.resize(draw_source(1, 400, 300), (4000, 3000), interpolation=cv2.INTER_CUBIC)
    blanks = [np.full((40, 40, 3), grey, np.uint8) for grey in (0, 128, 255, 128)]
    odd = [large, draw_source(1, 400, 300), *blanks, *tiny, tiny[0], np.full((1, 1, 3), 9, np.uint8)]
    write_photos(tmp_path / "odd", train_photos(*[picture] * 10, *odd, *[picture] * 10))
    compared: list = []
    replace_comparison(monkeypatch, recording(compare, compared))
    groups = find_copies(Competition(tmp_path / "odd"), tmp_path / "out")
    last = 10 + len(odd)
    assert partition(groups) == [[*range(10), *range(last, last + 10)], [10, 11], [13, 15], [16, 19]]
    assert len(compared) < 50  # equal pixels need no comparison
    assert json.loads((tmp_path / "out" / "copies.json").read_text())["exact_duplicates"] == 21


def test_many_copies_of_one_source_become_one_group(tmp_path):
    pixels = small_source(0)
    photos = train_photos(*[noise(pixels, seed) for seed in range(15)], *[small_source(seed) for seed in range(1, 6)])
    write_photos(tmp_path / "many", photos)
    assert partition(find_copies(Competition(tmp_path / "many"), tmp_path / "out")) == [list(range(15))]


def test_a_competition_of_blank_photos(tmp_path):
    write_photos(tmp_path / "blank", train_photos(*[np.full((8, 8, 3), grey, np.uint8) for grey in (90, 90, 120)]))
    assert find_copies(Competition(tmp_path / "blank"), tmp_path / "out")["group"].tolist() == ["g1", "g1", "g2"]


def test_a_competition_without_readable_photos(tmp_path):
    write_photos(tmp_path / "broken", train_photos(b"", b"<html>404</html>"))
    assert find_copies(Competition(tmp_path / "broken"), tmp_path / "out")["group"].tolist() == ["g1", "g2"]
    summary = json.loads((tmp_path / "out" / "copies.json").read_text())
    assert summary["unreadable"] == ["train-001.png", "train-002.png"]


def test_a_competition_of_one_photo(tmp_path):
    write_photos(tmp_path / "one", train_photos(draw_source(0)))
    assert find_copies(Competition(tmp_path / "one"), tmp_path / "out")["group"].tolist() == ["g1"]


def test_a_folder_that_cannot_be_made_is_refused_before_the_search(small, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "describe_photo", refuse)
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(InputError, match=r"cannot write to .*file.*: choose another --out"):
            find_copies(Competition(small), out)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no folder that not even root may write to")
def test_a_folder_that_cannot_be_written_to_is_refused(small, monkeypatch):
    monkeypatch.setattr(copies, "describe_photo", refuse)
    with pytest.raises(InputError, match="cannot write to /proc"):
        find_copies(Competition(small), Path("/proc"))


def test_wrong_tables_are_refused_before_the_search(small, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "describe_photo", refuse)
    with pytest.raises(InputError, match="is not a folder"):
        find_copies(Competition(tmp_path / "nowhere"), tmp_path / "out")
    (small / "test" / "test.csv").write_text("image_id\n1\n")
    with pytest.raises(InputError, match="no column filename"):
        find_copies(Competition(small), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_found_and_where_to_look(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = Path("submissions/copies/small")
    expected = [
        f"searching 15 photos for copies; the groups will be in {out / 'groups.csv'}",
        "12 labelled and 3 unlabelled photos show 5 sources: 5 of 3 photos.",
        "No group has conflicting labels.",
        "No group has labelled and unlabelled photos together.",
        "No decision of the search is doubtful.",
        f"review: {out / 'copies.html'}",
    ]
    run_command("find_copies.py", "--data.root", small)
    assert capsys.readouterr().out.splitlines() == expected
    groups = pd.read_csv(out / "groups.csv", dtype=str)
    assert partition(groups) == [list(range(first, first + 3)) for first in range(0, 15, 3)]

    run_command("find_copies.py", "--data.root", small)  # nothing is left to do
    assert capsys.readouterr().out.splitlines() == expected[1:]

    run_command("find_copies.py", "--data.root", small, "--out", tmp_path / "elsewhere" / "groups")
    assert capsys.readouterr().out.splitlines()[-1] == f"review: {tmp_path / 'elsewhere' / 'groups' / 'copies.html'}"
    assert (tmp_path / "elsewhere" / "groups" / "groups.csv").read_bytes() == (out / "groups.csv").read_bytes()


def test_the_command_ends_with_a_message_where_there_are_no_photos(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_command("find_copies.py", "--data.root", tmp_path / "nowhere")
    assert stopped.value.code == 2
    assert re.match("error: data.root .*nowhere is not a folder", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # test_evidence.py compares some of them
@pytest.mark.skipif(not SHARED_PHOTOS.exists(), reason=f"no real photos in {SHARED_PHOTOS}")
def test_copies_of_real_photos_are_found(tmp_path):
    """Of every other source, which is 750 photos."""
    truth = pd.read_csv(SHARED_PHOTOS.with_name("photos_truth.csv"), dtype=str)
    truth = truth[truth["source"].isin(sorted(set(truth["source"]))[::2])]
    shutil.copytree(SHARED_PHOTOS, tmp_path / "photos", copy_function=os.symlink)
    for name, rows in truth.groupby("set"):
        path = tmp_path / f"photos/{name}/{name}/{name}.csv"
        table = pd.read_csv(path, dtype=str)
        path.unlink()
        table[table["image_id"].isin(rows["image_id"])].to_csv(path, index=False)
    groups = find_copies(Competition(tmp_path / "photos"), tmp_path / "out").merge(
        truth, on=["image_id", "set"], validate="one_to_one"
    )
    assert len(groups) == len(truth) == 750
    precision, recall = pair_scores(groups["group"], groups["source"])
    assert precision >= 0.995
    assert recall >= 0.97


def digests_of(compared: list) -> list[tuple[bytes, ...]]:
    return [tuple(record["digest"].tobytes() for record in records) for *records, _ in compared]


def test_a_search_with_links_or_other_labels_describes_and_compares_nothing_again(small, tmp_path, monkeypatch):
    out, competition, compared = tmp_path / "out", Competition(small), []
    replace_comparison(monkeypatch, recording(compare, compared))
    before, earlier = find_copies(competition, out), digests_of(compared)
    (tmp_path / "links.csv").write_text("image_id_a,set_a,image_id_b,set_b,same\n001,train,004,train,true\n")
    compared.clear()
    monkeypatch.setattr(copies, "describe_photo", refuse)
    after = find_copies(competition, out, tmp_path / "links.csv")
    assert partition(before)[:2] == [[0, 1, 2], [3, 4, 5]]
    assert partition(after) == [[0, 1, 2, 3, 4, 5], *partition(before)[2:]]
    assert len(earlier) == len(set(earlier)) > 5
    assert not set(earlier) & set(digests_of(compared))
    replace_comparison(monkeypatch, refuse)
    table = small / "train/train.csv"
    table.write_text(table.read_text().replace(",1\n", ",2\n", 1))
    assert find_copies(Competition(small), out).equals(after)
    shutil.move(small, tmp_path / "elsewhere")
    assert find_copies(Competition(tmp_path / "elsewhere"), tmp_path / "others").equals(before)


def test_what_was_looked_up_is_kept_for_later_searches(small, tmp_path, monkeypatch):
    join, found = copies.join, []

    def look_first(photos, links, look, *again):
        pair = next(pair for pair in combinations(photos, 2) if pair not in links)
        found.append((pair, look(*pair)))
        return join(photos, links, look, *again)

    monkeypatch.setattr(copies, "join", look_first)
    find_copies(Competition(small), tmp_path / "out")
    replace_comparison(monkeypatch, refuse)
    find_copies(Competition(small), tmp_path / "other")
    assert found[0] == found[1]


def test_links_that_a_person_checked_are_certain_and_stay_for_later_searches(tmp_path, monkeypatch):
    """One joins two sources, another divides one."""
    truth, out = write_small(tmp_path / "cars"), tmp_path / "out"
    competition = Competition(tmp_path / "cars")
    true = partition(find_copies(competition, out).assign(group=truth["source"]))
    assert partition(find_copies(competition, out)) == true
    joined, divided = (true[0], true[1]), true[2]
    ids = truth["image_id"] + "," + truth["set"]
    rows = [f"{ids[joined[0][1]]},{ids[joined[1][2]]},true", f"{ids[divided[0]]},{ids[divided[2]]},false"]
    (tmp_path / "links.csv").write_text("\n".join(["image_id_a,set_a,image_id_b,set_b,same", *rows]))
    groups = find_copies(competition, out, tmp_path / "links.csv")
    found = partition(groups)
    assert sorted(joined[0] + joined[1]) in found
    assert groups["group"].iloc[divided[0]] != groups["group"].iloc[divided[2]]
    assert [rows for rows in found if rows in true] == true[3:]
    with monkeypatch.context() as patch:
        patch.setattr(copies, "_search", refuse)
        assert find_copies(competition, out).equals(groups)
        assert find_copies(competition, out, tmp_path / "links.csv").equals(groups)
    table = tmp_path / "cars/train/train.csv"
    table.write_text(table.read_text().replace(",1\n", ",2\n", 1))  # the search that this needs keeps the answers
    assert find_copies(Competition(tmp_path / "cars"), out).equals(groups)


def test_a_second_file_of_links_adds_to_the_first_and_may_correct_it(tmp_path):
    truth, out = write_small(tmp_path / "cars"), tmp_path / "out"
    competition = Competition(tmp_path / "cars")
    first, second, third = partition(truth.rename(columns={"source": "group"}))[:3]
    ids = truth["image_id"] + "," + truth["set"]

    def found(*rows: tuple[int, int, str]) -> pd.Series:
        lines = [f"{ids[one]},{ids[other]},{same}" for one, other, same in rows]
        (tmp_path / "links.csv").write_text("\n".join(["image_id_a,set_a,image_id_b,set_b,same", *lines]))
        return find_copies(competition, out, tmp_path / "links.csv")["group"]

    found((first[0], second[0], "true"))
    group = found((third[0], third[2], "false"))
    assert group[first[0]] == group[second[0]]
    assert group[third[0]] != group[third[2]]
    group = found((second[0], first[0], "false"))
    assert group[first[0]] != group[second[0]]
    assert group[third[0]] != group[third[2]]
    with pytest.raises(InputError, match="differ, but other links or equal pixels make them copies"):
        found((first[1], second[0], "true"), (first[0], first[1], "true"))
    assert (out / "copies.json").exists()  # what was found is still there
    assert find_copies(competition, out)["group"].equals(group)


@pytest.mark.parametrize(("row", "message"), [("same", "equal pixels make them copies"), ("broken", "cannot be read")])
def test_links_that_no_search_can_follow_are_refused(tmp_path, row, message):
    photos = [{"set": "train", "source": "a", "label": "1", "pixels": small_source(1)}] * 2
    photos.append(photos[0] | {"pixels": b"no photo"})
    write_photos(tmp_path / "cars", photos)
    other = {"same": "002", "broken": "003"}[row]
    (tmp_path / "links.csv").write_text(f"image_id_a,image_id_b,same\n001,{other},false\n")
    with pytest.raises(InputError, match=message):
        find_copies(Competition(tmp_path / "cars"), tmp_path / "out", tmp_path / "links.csv")
