"""Datasets are read completely, and all problems are reported at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import LABELS, write_competition

from trunkfold.config.schema import CacheConfig, Config, DataConfig, SplitConfig, TrainConfig
from trunkfold.csv_table import read_numbered_table
from trunkfold.errors import InputError
from trunkfold.split.dataset import class_prior, load_labelled, side_to_keep
from trunkfold.split.groups import read_groups


def make_config(root, **split) -> Config:
    data = DataConfig(root=root, image_size=14, classes=None)
    split = SplitConfig(**{"groups": str(root / "groups.csv"), **split})
    return Config(data=data, split=split, cache=CacheConfig(root.parent / "cache"))


def test_a_competition_is_read_with_groups_folds_and_photos(competition):
    labelled = load_labelled(make_config(competition))
    table = labelled.table
    assert list(table.columns) == ["image_id", "filename", "label", "group", "fold"]
    assert table["image_id"].tolist() == [str(number) for number in range(1, 91)]
    assert labelled.classes == {"1": "1", "2": "2", "3": "3"}
    assert labelled.targets.tolist() == [int(label) - 1 for label in table["label"]]
    group = table.set_index("image_id")["group"]
    assert group["4"] == group["6"] == "source 1"
    assert labelled.groups["image_id"].tolist() == [str(number) for number in range(1, 103)]  # the unlabelled ones too
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    assert {pixels.shape for pixels in labelled.pixels} == {(16, 21, 3)}  # 30 x 40, reduced to 8/7 of the model's 14


def test_photos_lie_at_the_rows_of_their_names(competition):
    """The class decides the colour: 1 is blue, 2 green, 3 red (OpenCV wrote them)."""
    labelled = load_labelled(make_config(competition))
    brightest = [int(pixels.mean((0, 1)).argmax()) for pixels in labelled.pixels]
    assert brightest == [2 - target for target in labelled.targets]


def test_rows_by_fold_hold_every_row_once_fold_after_fold(competition):
    labelled = load_labelled(make_config(competition))
    assert sorted(labelled.rows_by_fold) == list(range(90))
    assert (np.diff(labelled.fold_of_row[labelled.rows_by_fold]) >= 0).all()


def test_class_names_are_the_configs_in_its_order(competition):
    config = make_config(competition)
    config = replace(config, data=replace(config.data, classes={3: "red", 1: "blue", 2: "green"}))
    labelled = load_labelled(config)
    assert labelled.classes == {"3": "red", "1": "blue", "2": "green"}
    assert labelled.targets[:7:3].tolist() == [1, 2, 0]  # labels 1, 2, 3


def test_unrelated_options_do_not_change_the_folds(competition):
    config = make_config(competition)
    named = replace(config.data, image_size=20, classes={3: "c", 2: "b", 1: "a"}, workers=1)
    other = replace(config, data=named, train=TrainConfig(seed=9, epochs=2), augment="none")
    folds = [load_labelled(each).table["fold"].tolist() for each in (config, other)]
    assert folds[0] == folds[1]


def test_everything_wrong_is_told_at_once(competition):
    """Rows, photos and a class that is too small, in one message."""
    folder = competition / "train" / "train"
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table.loc[0, "label"] = ""
    table.loc[1, "label"] = "rare"
    table.loc[3, "image_id"] = "3"
    table.to_csv(folder / "train.csv", index=False)
    (folder / "images" / "7.png").unlink()
    (folder / "images" / "8.png").write_bytes(b"")
    (folder / "images" / "9.png").write_text("<html>")
    with pytest.raises(InputError) as raised:
        load_labelled(make_config(competition))
    assert str(raised.value).splitlines() == [
        "6 problems:",
        "  - train.csv: 1 duplicate image_id: 3",
        "  - train.csv: no label in line 2",
        "  - class 'rare' has 1 groups of photos, too few for 5 folds and a hold-out of 13.5%: "
        "lower split.folds or split.holdout, or remove the class",
        "  - 1 photo missing: 7.png",
        "  - 1 photo empty (0 bytes): 8.png",
        "  - 1 photo unreadable: 9.png (not an image)",
    ]


def test_a_single_problem_is_told_without_a_list(competition):
    (competition / "train" / "train" / "images" / "7.png").unlink()
    with pytest.raises(InputError, match=r"^1 photo missing: 7.png$"):
        load_labelled(make_config(competition))


@pytest.mark.parametrize("choice", ["copies", "none"])
def test_what_can_be_said_at_once_is_said_before_copies_are_searched_for(choice, competition, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trunkfold.split.groups.find_copies", lambda *_: pytest.fail("searched"))
    folder = competition / "train" / "train"
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table.loc[0, "label"] = ""
    table.to_csv(folder / "train.csv", index=False)
    for name in ("7.png", "9.png"):
        (folder / "images" / name).unlink()
    with pytest.raises(InputError) as raised:
        load_labelled(make_config(competition, groups=choice))
    assert str(raised.value).splitlines() == [
        "2 problems:",
        "  - train.csv: no label in line 2",
        "  - 2 photos missing: 7.png, 9.png",
    ]
    assert not (tmp_path / "submissions").exists()


def test_a_random_split_keeps_the_groups_that_were_found_and_divides_them(competition, monkeypatch):
    """They are what the warning is made of."""
    found = load_labelled(make_config(competition)).groups
    monkeypatch.setattr("trunkfold.split.groups.find_copies", lambda *_: found)
    tables = {choice: load_labelled(make_config(competition, groups=choice)).table for choice in ("none", "copies")}
    true = [f"source {row // 3}" for row in range(90)]
    for table in tables.values():
        assert table["group"].tolist() == true
    divided = {choice: (table.groupby("group")["fold"].nunique() > 1).any() for choice, table in tables.items()}
    assert divided == {"none": True, "copies": False}


def test_each_table_is_parsed_once_although_the_search_needs_them_too(competition, monkeypatch):
    """The search itself is covered by a table of groups; its key is not."""
    parsed, found = [], read_groups(competition / "groups.csv").assign(set="train")

    def read(path: Path, columns: list[str]) -> pd.DataFrame:
        parsed.append(path.name)
        return read_numbered_table(path, columns)

    monkeypatch.setattr("trunkfold.data.tables.read_numbered_table", read)
    monkeypatch.setattr("trunkfold.split.groups.find_copies", lambda *_: found)
    load_labelled(make_config(competition, groups="copies"))
    assert sorted(parsed) == ["test.csv", "train.csv"]


def test_the_size_of_the_test_set_is_known(competition):
    """Of groups that name no test photos, test.csv tells; without it, as many photos as are labelled."""
    groups = read_groups(competition / "groups.csv").iloc[:90][["image_id", "group"]]
    groups.to_csv(competition / "groups.csv", index=False)
    assert load_labelled(make_config(competition)).test_photos == 12
    (competition / "test/test/test.csv").unlink()
    assert load_labelled(make_config(competition)).test_photos == 90


def test_any_number_of_classes_is_read(tmp_path):
    labels = tuple(f"kind {number}" for number in range(12))
    root = write_competition(tmp_path, sources=24, labels=labels, nested=False)
    labelled = load_labelled(make_config(root, folds=2, holdout=0.0))
    assert sorted(labelled.classes) == sorted(labels)
    assert len(LABELS) < len(labelled.classes) == labelled.targets.max() + 1


def test_photos_are_kept_an_eighth_larger_than_the_model_sees_them():
    assert side_to_keep(224) == 256
    assert side_to_keep(100) == 115


def test_the_class_prior_is_the_hold_outs_or_else_that_of_all():
    folds = pd.DataFrame({"label": ["a", "a", "b", "b", "b"], "fold": ["0", "-1", "-1", "-1", "-1"]})
    classes = {"b": "B", "a": "A", "c": "C"}
    assert class_prior(folds, classes).tolist() == [0.75, 0.25, 0.0]
    assert class_prior(folds.assign(fold="0"), classes).tolist() == [0.6, 0.4, 0.0]
