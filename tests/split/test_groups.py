"""Groups are read from a file or found by a search, and matched to photos by id and set."""

from pathlib import Path

import pandas as pd
import pytest

from trunkfold.data.tables import Competition
from trunkfold.errors import InputError
from trunkfold.split import groups as groups_module
from trunkfold.split.groups import group_problems, groups_of, load_groups, read_groups, read_run_groups

IDS = pd.Series(["1", "2", "03"])
FOUND = pd.DataFrame({"image_id": ["1", "7"], "set": ["train", "test"], "group": ["g1", "g1"]})


def write_groups(folder: Path, text: str) -> Path:
    (folder / "groups.csv").write_text(text)
    return folder / "groups.csv"


@pytest.fixture
def searched(monkeypatch) -> list[Path]:
    """The folders that were searched for copies; each search finds `FOUND`."""
    folders: list[Path] = []

    def find(competition: Competition, cache: Path) -> pd.DataFrame:
        folders.append(competition.root)
        return FOUND

    monkeypatch.setattr(groups_module, "find_copies", find)
    return folders


def test_groups_are_read_by_id_as_texts(tmp_path):
    file = write_groups(tmp_path, "group,image_id\n01,03\nx,2\n1,1\nx,99\n")
    assert groups_of(IDS, "train", read_groups(file)).tolist() == ["1", "x", "01"]


def test_a_file_without_sets_is_about_the_photos_of_both(tmp_path):
    groups = read_groups(write_groups(tmp_path, "image_id,group\n1,a\n2,b\n"))
    assert list(groups.columns) == ["image_id", "set", "group"]
    assert groups["set"].tolist() == ["", ""]
    assert groups_of(IDS, "train", groups).tolist() == groups_of(IDS, "test", groups).tolist() == ["a", "b", ""]


def test_a_file_with_sets_keeps_the_same_ids_of_both_apart(tmp_path):
    file = write_groups(tmp_path, "image_id,set,group\n1,test,t\n1,train,a\n2,train,a\n03,train,b\n03,test,u\n")
    groups = read_groups(file)
    assert groups_of(IDS, "train", groups).tolist() == ["a", "a", "b"]
    assert groups_of(IDS, "test", groups).tolist() == ["t", "", "u"]


def test_a_row_without_a_set_is_about_both(tmp_path):
    groups = read_groups(write_groups(tmp_path, "image_id,set,group\n1,train,a\n2,,b\n03,test,c\n"))
    assert groups_of(IDS, "train", groups).tolist() == ["a", "b", ""]
    assert groups_of(IDS, "test", groups).tolist() == ["", "b", "c"]


def test_groups_stand_at_the_index_of_the_ids():
    ids = pd.Series(["7", "1"], index=[12, 5])
    groups = groups_of(ids, "test", FOUND)
    assert groups.to_dict() == {12: "g1", 5: ""}
    assert groups.name == "group"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "groups.csv does not exist"),
        ("image_id,source\n1,a\n", "groups.csv has no column group"),
        ("image_id,group\n1,a\n1,b\n2,a\n", "groups.csv: 1 duplicate image_id: 1"),
        ("image_id,set,group\n1,train,a\n1,test,b\n2,test,a\n2,test,a\n", "1 duplicate image_id: 2$"),
        ("image_id,set,group\n1,Train,a\n", "groups.csv: set must be train or test, not Train"),
    ],
)
def test_a_groups_file_that_cannot_be_used_is_named(text, message, tmp_path):
    file = tmp_path / "groups.csv" if text is None else write_groups(tmp_path, text)
    with pytest.raises(InputError, match=message):
        load_groups(str(file), Competition(tmp_path), tmp_path)


def test_an_id_with_and_without_a_set_is_ambiguous_and_named(tmp_path):
    """Which of the two groups is photo 1 of the training set in?"""
    file = write_groups(tmp_path, "image_id,set,group\n1,train,a\n1,,b\n2,,c\n")
    with pytest.raises(InputError, match=r"1 duplicate image_id: 1"):
        read_groups(file)


def test_photos_without_a_group_are_named_together(tmp_path):
    groups = read_groups(write_groups(tmp_path, "image_id,group\n1,a\n3,b\n2,\n"))
    table = pd.DataFrame({"image_id": IDS, "group": groups_of(IDS, "train", groups)})
    assert list(group_problems(table, "groups.csv")) == ["groups.csv has no group for 2 labelled photos: 2, 03"]
    assert list(group_problems(table.iloc[:2], "groups.csv")) == ["groups.csv has no group for 1 labelled photo: 2"]
    assert not list(group_problems(table.iloc[:1], "groups.csv"))


@pytest.mark.parametrize("choice", ["copies", "none"])
def test_copies_are_searched_for_also_to_say_what_a_random_split_leaks(choice, searched, tmp_path):
    assert load_groups(choice, Competition(tmp_path), tmp_path) is FOUND
    assert searched == [tmp_path]


def test_a_file_needs_no_search(searched, tmp_path):
    file = write_groups(tmp_path, "image_id,group\n1,a\n")
    assert load_groups(str(file), Competition(tmp_path), tmp_path)["group"].tolist() == ["a"]
    assert searched == []


def test_a_file_of_groups_with_sets_needs_no_valid_test_table(tmp_path):
    """Training reads train.csv only; make_submission.py reports what is wrong with test.csv."""
    for name in ("train", "test"):
        (tmp_path / name / "images").mkdir(parents=True)
    (tmp_path / "train/train.csv").write_text("image_id,filename,label\n1,1.jpg,1\n")
    (tmp_path / "test/test.csv").write_text("damaged")
    groups = load_groups(
        str(write_groups(tmp_path, "image_id,set,group\n1,train,a\n")), Competition(tmp_path), tmp_path
    )
    assert groups["group"].tolist() == ["a"]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run that knows the groups of the photos whose search key is "same"."""
    monkeypatch.setattr(groups_module, "search_key", lambda competition: competition.root.name)
    (tmp_path / "run").mkdir()
    write_groups(tmp_path / "run", "image_id,set,group\n1,train,a\n8,train,z\n8,test,a\n9,test,b\n")
    return tmp_path / "run"


@pytest.mark.parametrize("choice", ["copies", "none"])
def test_the_photos_of_a_run_have_its_groups(choice, run):
    groups = read_run_groups(run / "groups.csv", "same", choice, IDS, Competition(Path("elsewhere/same")))
    assert groups_of(pd.Series(["9", "8"]), "test", groups).tolist() == ["b", "a"]


@pytest.mark.parametrize("choice", ["copies", "none"])
def test_other_photos_need_a_new_search_whatever_their_ids(choice, run):
    assert read_run_groups(run / "groups.csv", "same", choice, IDS, Competition(Path("other"))) is None


def test_other_photos_stand_alone_where_groups_are_a_files(run):
    groups = read_run_groups(run / "groups.csv", "same", "groups.csv", IDS, Competition(Path("other")))
    assert groups_of(pd.Series(["8", "7"]), "test", groups).tolist() == ["a", ""]


def test_new_test_photos_with_ids_of_labelled_ones_do_not_get_their_groups(run):
    """Test photos of another folder, or of a later test.csv, which training could not compare with train.csv."""
    (run / "test/images").mkdir(parents=True)
    (run / "test/test.csv").write_text("image_id,filename\n2,2.png\n9,9.png\n")
    arguments = run / "groups.csv", None, "groups.csv", IDS, Competition(run)
    write_groups(run, "image_id,group\n1,a\n2,b\n9,c\n")
    with pytest.raises(InputError, match=r"run/groups\.csv: image_id 2 is in both train\.csv and test\.csv: add a col"):
        read_run_groups(*arguments)
    write_groups(run, "image_id,set,group\n1,,a\n2,train,b\n9,,c\n")
    assert groups_of(pd.Series(["2", "9"]), "test", read_run_groups(*arguments)).tolist() == ["", "c"]
