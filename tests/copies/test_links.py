"""Pairs that a person has compared are read with what follows from them, and contradictions are named."""

import pandas as pd
import pytest

from trunkfold.copies.links import read_links
from trunkfold.errors import InputError

PHOTOS = pd.DataFrame({"image_id": [*"abcdefx", "x"], "set": [*["train"] * 7, "test"]})


def read(folder, *rows: str, header: str = "image_id_a,image_id_b,same") -> dict:
    (folder / "links.csv").write_text("\n".join([header, *rows]) + "\n")
    return read_links(folder / "links.csv", PHOTOS)


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
        (["a,b,true", "b,a,false"], "b and a are said to differ, but other rows make them copies"),
        (["a,b,true", "b,c,true", "a,c,false"], "a and c are said to differ, but other rows make them copies"),
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
