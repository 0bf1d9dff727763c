"""Dropped photos are absent everywhere, and relabelled photos have the new label everywhere."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import leave_out_figures, run_command, write_competition

from trunkfold.config.schema import CacheConfig, Config, DataConfig, RunConfig, SplitConfig
from trunkfold.errors import InputError
from trunkfold.split.dataset import Labelled, load_labelled


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def load(root: Path, drop: Path | None = None, relabel: Path | None = None, classes: dict | None = None) -> Labelled:
    data = DataConfig(root=root, image_size=14, classes=classes, drop=drop, relabel=relabel)
    split = SplitConfig(groups=str(root / "groups.csv"))
    return load_labelled(Config(data=data, split=split, cache=CacheConfig(root.parent / "cache")))


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"image_id": str, "label": str})


def test_the_photos_are_without_the_dropped_and_with_the_new_labels(competition, tmp_path):
    """Photos 1 to 3 show source 0 of class 1, photos 4 to 6 source 1 of class 2."""
    drop = write(tmp_path / "drop.csv", "image_id\n2\n88\n")
    relabel = write(tmp_path / "relabel.csv", "image_id,suggestion\n4,3\n5,3\n6,2\n")
    before, after = load(competition), load(competition, drop, relabel)
    ids = [str(number) for number in range(1, 91) if number not in (2, 88)]
    assert after.table["image_id"].tolist() == ids
    assert after.table.index.tolist() == list(range(88))
    assert after.table.set_index("image_id")["label"].loc[["1", "3", "4", "5", "6", "7"]].tolist() == list("113323")
    assert after.describe().startswith("88 photos in 30 groups, 3 classes: 2 dropped, 2 relabelled, ")
    assert "dropped" not in before.describe()
    for row, image_id in enumerate(ids):  # each photo kept its pixels and its group
        old = int(image_id) - 1
        assert np.array_equal(after.pixels[row], before.pixels[old])
        assert after.table["group"][row] == before.table["group"][old]
    pd.testing.assert_frame_equal(after.groups, before.groups)  # of all photos


def test_only_one_of_the_two_is_told(competition, tmp_path):
    relabel = write(tmp_path / "relabel.csv", "image_id,suggestion\n4,3\n")
    assert (
        load(competition, relabel=relabel)
        .describe()
        .startswith("90 photos in 30 groups, 3 classes: 1 relabelled, 15 held out")
    )
    drop = write(tmp_path / "drop.csv", "image_id\n4\n")
    assert ": 1 dropped, 15 held out" in load(competition, drop).describe()


def test_the_search_for_copies_sees_all_photos(competition, tmp_path, monkeypatch):
    groups = load(competition).groups
    monkeypatch.setattr("trunkfold.split.groups.find_copies", lambda *_: groups)
    drop = write(tmp_path / "drop.csv", "image_id\n1\n2\n3\n5\n")
    data = DataConfig(root=competition, image_size=14, classes=None, drop=drop)
    labelled = load_labelled(Config(data=data, cache=CacheConfig(tmp_path / "cache")))
    table = labelled.table.set_index("image_id")
    assert table.loc[["4", "6", "90"], "group"].tolist() == ["source 1", "source 1", "source 29"]
    assert labelled.groups is groups


def test_a_photo_that_cannot_be_read_can_be_dropped(competition, tmp_path):
    (competition / "train/train/images/7.png").unlink()
    with pytest.raises(InputError, match=r"1 photo missing: 7.png"):
        load(competition)
    assert "7" not in set(load(competition, write(tmp_path / "drop.csv", "image_id\n7\n")).table["image_id"])


def test_a_class_that_nothing_is_left_of_is_named(competition, tmp_path):
    rare = [str(number) for number in range(1, 91) if (number - 1) // 3 % 3 == 2]  # those of class 3
    drop = write(tmp_path / "drop.csv", "image_id\n" + "\n".join(rare))
    relabel = write(tmp_path / "relabel.csv", "image_id,suggestion\n" + "\n".join(f"{one},1" for one in rare))
    for option in ({"drop": drop}, {"relabel": relabel}):
        with pytest.raises(InputError, match=r"train.csv: no photo has the label 3 c of data.classes: remove it"):
            load(competition, **option, classes={1: "a", 2: "b", 3: "c"})
        labelled = load(competition, **option)
        assert list(labelled.classes) == ["1", "2"]
        # what a run's config.yaml then says repeats it
        assert list(load(competition, **option, classes=labelled.classes).classes) == ["1", "2"]


def test_a_class_that_too_little_is_left_of_is_named(competition, tmp_path):
    rare = [str(number) for number in range(1, 77) if (number - 1) // 3 % 3 == 2]
    drop = write(tmp_path / "drop.csv", "image_id\n" + "\n".join(rare))
    with pytest.raises(InputError, match="class '3' has 2 groups of photos, too few for 5 folds"):
        load(competition, drop)


def test_a_strange_label_can_be_corrected(competition, tmp_path):
    table = competition / "train/train/train.csv"
    write_csv = read(table)
    write_csv.loc[3, "label"] = "typo"
    write_csv.to_csv(table, index=False)
    classes = {1: "a", 2: "b", 3: "c"}
    with pytest.raises(InputError, match=r"label 'typo' of 1 photos \(first in line 5\)"):
        load(competition, write(tmp_path / "drop.csv", "image_id\n1\n2\n"), classes=classes)
    relabel = write(tmp_path / "relabel.csv", "image_id,suggestion\n4,2\n")
    assert load(competition, relabel=relabel, classes=classes).table["label"][3] == "2"


@pytest.mark.parametrize(
    ("drop", "relabel", "messages"),
    [
        ("missing", None, ["{drop} does not exist"]),
        (None, "missing", ["{relabel} does not exist"]),
        ("id\n1\n", None, ["{drop} has no column image_id: its first line must name image_id, but names id"]),
        (
            None,
            "image_id\n1\n",
            [
                "{relabel} has no column suggestion: its first line must name image_id, suggestion, but names image_id",
            ],
        ),
        ("image_id\n", None, ["{drop} has a header but no rows"]),
        ("image_id\n999\n1\nx\n", None, ["data.drop {drop}: 2 image_ids not in train.csv: 999, x"]),
        (
            None,
            "image_id,label,suggestion\n91,1,1\n1,1,2\n",
            ["data.relabel {relabel}: 1 image_id not in train.csv: 91"],
        ),
        (None, "image_id,suggestion\n91,1\n", ["data.relabel {relabel}: 1 image_id not in train.csv: 91"]),
        ("image_id\n1\n2\n1\n", None, ["data.drop {drop}: 1 duplicate image_id: 1"]),
        (
            None,
            "image_id,suggestion\n1,2\n1,3\n",
            ["data.relabel {relabel}: 1 duplicate image_id: 1"],
        ),
        (
            None,
            "image_id,suggestion\n1,7\n2,\n3,7\n4,1\n",
            [
                "data.relabel {relabel}: suggestion '' of image_id 2 is not one of the labels (1, 2, 3)",
                "data.relabel {relabel}: suggestion '7' of image_id 1, 3 is not one of the labels (1, 2, 3)",
            ],
        ),
        (
            None,
            "image_id,label,suggestion\n1,1,2\n4,1,3\n",
            [
                "data.relabel {relabel}: label differs from train.csv for image_id 4: the file was written for "
                "different labels; review these photos again, then correct or remove the column label"
            ],
        ),
        (
            "image_id,label\n1,1\n4,3\n",
            None,
            [
                "data.drop {drop}: label differs from train.csv for image_id 4: the file was written for "
                "different labels; review these photos again, then correct or remove the column label"
            ],
        ),
        (
            "image_id\n1\n4\n",
            "image_id,suggestion\n4,3\n7,1\n",
            ["data.drop and data.relabel both list image_id 4: remove it from one of them"],
        ),
        (
            "image_id\n" + "\n".join(str(number) for number in range(1, 91)),
            None,
            ["data.drop {drop} lists every photo of train.csv: no photo is left to train on"],
        ),
    ],
)
def test_what_is_wrong_with_the_files_is_named(drop, relabel, messages, competition, tmp_path):
    paths = {"drop": drop and tmp_path / "drop.csv", "relabel": relabel and tmp_path / "relabel.csv"}
    for name, text in {"drop": drop, "relabel": relabel}.items():
        if text not in (None, "missing"):
            write(paths[name], text)
    with pytest.raises(InputError) as raised:
        load(competition, **paths)
    expected = [message.format(**paths) for message in messages]
    told = str(raised.value).splitlines()
    assert told == expected if len(told) == 1 else [f"  - {line}" for line in expected] == told[1:]


def test_all_that_is_wrong_is_told_before_the_search_for_copies(competition, tmp_path, monkeypatch):
    monkeypatch.setattr("trunkfold.split.groups.find_copies", lambda *_: pytest.fail("searched"))
    data = DataConfig(root=competition, image_size=14, classes=None, drop=write(tmp_path / "d.csv", "image_id\n0\n"))
    with pytest.raises(InputError, match="not in train.csv: 0"):
        load_labelled(Config(data=data, cache=CacheConfig(tmp_path / "cache")))


def test_a_file_that_the_new_run_would_delete_is_refused(competition, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, other = (Path("submissions") / name / "label_issues.csv" for name in ("toy", "other"))
    for path in (own, other):
        path.parent.mkdir(parents=True)
        write(path, "image_id,suggestion\n4,3\n")
    data = DataConfig(root=competition, image_size=14, classes=None)
    config = Config(data=data, split=SplitConfig(str(competition / "groups.csv")), run=RunConfig("toy", restart=True))
    for option in ("drop", "relabel"):
        for path in (own, own.absolute()):
            with pytest.raises(InputError, match=rf"data.{option} .*toy/label_issues.csv would be deleted .* move it"):
                load_labelled(replace(config, data=replace(data, **{option: path})))
        load_labelled(replace(config, data=replace(data, **{option: other})))
        load_labelled(replace(config, data=replace(data, **{option: own}), run=RunConfig("toy")))


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a run that was trained on corrected photos, and what it printed."""
    folder = tmp_path_factory.mktemp("corrected")
    root = write_competition(folder / "input")
    write(folder / "drop.csv", "image_id\n10\n11\n12\n20\n")
    write(  # as label_issues.csv has them
        folder / "relabel.csv",
        "image_id,filename,label,suggestion,p_label,p_suggestion,group,reason\n"
        "4,4.png,2,3,0.1,0.9,source 1,the model disagrees\n"
        '5,5.png,2,3,0.1,0.9,source 1,"the model, and its copies"\n',
    )
    options = {"data.root": root, "data.classes": "null", "data.image_size": 64, "model.name": "test_convnext"}
    options |= {"model.pretrained": "false", "split.groups": root / "groups.csv", "split.folds": 3}
    options |= {"train.batch_size": 12, "train.epochs": 1, "run.name": "toy"}
    options |= {"data.drop": "drop.csv", "data.relabel": "relabel.csv"}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.chdir(folder)
        leave_out_figures(patch)
        run_command("train_folds.py", *(word for key, value in options.items() for word in (f"--{key}", value)))
    return folder, out.getvalue()


def test_a_run_learns_and_scores_the_corrected_photos_alone(corrected):
    folder, out = corrected
    run = folder / "submissions/toy"
    folds, oof, holdout = (read(run / f"{name}.csv").set_index("image_id") for name in ("folds", "oof", "holdout"))
    given = read(folder / "input/train/train/train.csv").set_index("image_id")["label"]
    left = given.drop(["10", "11", "12", "20"])
    assert folds.index.tolist() == left.index.tolist()
    left[["4", "5"]] = "3"
    assert folds["label"].tolist() == left.tolist()
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    scored = pd.concat([oof, holdout])
    assert sorted(scored.index) == sorted(left.index)
    assert scored["label"].to_dict() == left.to_dict()
    assert len(read(run / "groups.csv")) == 102
    assert "86 photos in 29 groups, 3 classes: 4 dropped, 2 relabelled, " in out


def test_its_configuration_repeats_it(corrected, monkeypatch):
    folder, _ = corrected
    monkeypatch.chdir(folder)
    run_command("train_folds.py", "--config", "submissions/toy/config.yaml", "--run.name", "again")
    for name in ("folds.csv", "oof.csv", "holdout.csv"):
        assert (folder / "submissions/again" / name).read_text() == (folder / "submissions/toy" / name).read_text()


def test_it_predicts_without_the_files(corrected, monkeypatch):
    """What it learned from lies in folds.csv."""
    folder, _ = corrected
    monkeypatch.chdir(folder)
    for name in ("drop.csv", "relabel.csv"):
        (folder / name).rename(folder / f"moved {name}")
    run_command("make_submission.py", "--run", "submissions/toy", "--decode.copy_labels", "true")
    assert len(read(folder / "submissions/toy/submission.csv")) == 12
    for name in ("drop.csv", "relabel.csv"):
        (folder / f"moved {name}").rename(folder / name)
