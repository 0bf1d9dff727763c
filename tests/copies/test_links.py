"""Pairs that a person has compared are read with what follows from them, and contradictions are named."""

import pandas as pd
import pytest

from trunkfold.copies.links import follow, keep_links, kept_links, read_links
from trunkfold.errors import InputError

PHOTOS = pd.DataFrame({"image_id": [*"abcdefx", "x"], "set": [*["train"] * 7, "test"], "bytes": range(8)})


def read(folder, *rows: str, header: str = "image_id_a,image_id_b,same") -> dict:
    (folder / "links.csv").write_text("\n".join([header, *rows]) + "\n")
    return follow(read_links(folder / "links.csv", PHOTOS), PHOTOS)


def test_what_follows_from_the_pairs_is_certain_too(tmp_path):
    found = read(tmp_path, "a,b,true", "c,b,True", "d,e,true", "e,a,false")
    same = {(0, 1), (0, 2), (1, 2), (3, 4)}
    different = {(0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4)}
    assert found == dict.fromkeys(same, True) | dict.fromkeys(different, False)


def test_photos_of_one_id_are_told_apart_by_their_sets(tmp_path):
    header = "image_id_a,set_a,image_id_b,set_b,same"
    assert read(tmp_path, "x,test,x,train,false", "a,,x,test,true", header=header) == {
        (0, 7): True,
        (6, 7): False,
        (0, 6): False,
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,b,maybe"], "same must be true or false, not maybe"),
        (["a,z,true"], "image_id_b z is neither in train.csv nor in test.csv"),
        (["a,x,true"], "image_id_b x is in train.csv and in test.csv: add set_b, train or test"),
        (["a,a,true"], "a is paired with itself"),
        (["a,b,true", "b,a,false"], "links say that a and b differ, but other links or equal pixels make them copies"),
        (["a,b,true", "b,c,true", "a,c,false"], "links say that a and c differ"),
        (["a,z,no", "y,b,true"], r"3 problems:[^$]*not no[^$]*image_id_a y[^$]*image_id_b z"),
    ],
)
def test_wrong_rows_are_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, *rows)
    assert "links.csv" in str(error.value)


def test_a_set_without_the_photo_is_named(tmp_path):
    with pytest.raises(InputError, match="image_id_a a is not in the set that set_a names"):
        read(tmp_path, "a,test,b,,true", header="image_id_a,set_a,image_id_b,set_b,same")


def test_a_photo_is_itself_however_its_set_is_given(tmp_path):
    with pytest.raises(InputError, match="a is paired with itself"):
        read(tmp_path, "a,train,a,,true", header="image_id_a,set_a,image_id_b,set_b,same")


def test_exact_duplicates_are_the_photo_that_they_repeat():
    """The third row has the pixels of the first."""
    assert follow([((0, 1), True), ((2, 3), False)], PHOTOS, {2: 0}) == {(0, 1): True, (0, 3): False, (1, 3): False}
    for links in ([((0, 2), False)], [((0, 1), True), ((1, 2), False)]):
        with pytest.raises(InputError, match="differ, but other links or equal pixels make them copies"):
            follow(links, PHOTOS, {2: 0})


def test_links_are_kept_for_photos_that_have_not_changed(tmp_path):
    links, file = [((0, 1), True), ((5, 7), False), ((6, 7), False)], tmp_path / "links.csv"
    found, none = kept_links(file, PHOTOS)
    assert found == []
    keep_links([], none, PHOTOS, file)
    assert not file.exists()
    keep_links(links, none, PHOTOS, file)
    assert kept_links(file, PHOTOS)[0] == links
    changed = PHOTOS.replace({"bytes": {1: 9}})
    found, others = kept_links(file, changed)
    assert found == links[1:]
    keep_links(found, others, changed, file)  # the answer about the other photo is still there when it is back
    assert sorted(kept_links(file, PHOTOS)[0]) == links
    fewer = PHOTOS[1:].reset_index(drop=True)
    assert kept_links(file, fewer)[0] == [((4, 6), False), ((5, 6), False)]
    file.write_text(file.read_text().splitlines()[0])
    assert kept_links(file, PHOTOS)[0] == []


def test_a_file_from_the_page_that_lies_beside_the_groups_is_kept_too(tmp_path):
    (tmp_path / "links.csv").write_text("image_id_a,set_a,image_id_b,set_b,same\na,train,b,train,true\n")
    assert kept_links(tmp_path / "links.csv", PHOTOS)[0] == [((0, 1), True)]
