"""Tables keep ids and labels as strings, and report problems with line, id and fix."""

from pathlib import Path

import pandas as pd
import pytest
from toys import write_competition

from trunkfold.data.tables import Competition, class_names, find_table, label_problems, table_problems
from trunkfold.errors import InputError

HEADER = "image_id,filename,label\n"


def write_train(root: Path, text: str | bytes) -> Path:
    """A competition whose train.csv is `text`."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "train.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def problems_of(root: Path, text: str, classes: dict | None = None) -> list[str]:
    table = Competition(write_train(root, text)).train
    return [*table_problems(table, "train.csv"), *(label_problems(table, classes) if classes else ())]


@pytest.mark.parametrize("nested", [True, False], ids=["train/train", "train"])
def test_both_folder_layouts_are_found(nested, tmp_path):
    root = write_competition(tmp_path, sources=3, unlabelled_sources=1, nested=nested)
    labelled, unlabelled = Competition(root).train, Competition(root).test
    assert labelled["image_id"].tolist() == [str(number) for number in range(1, 10)]
    assert unlabelled["image_id"].tolist() == ["10", "11", "12"]
    assert all(Path(path).is_file() for path in [*labelled["path"], *unlabelled["path"]])


def test_labels_are_texts_whether_they_are_numbers_or_words(tmp_path):
    numbers = Competition(write_train(tmp_path, HEADER + "1,a.jpg,2\n2,b.jpg,1\n")).train
    words = Competition(write_train(tmp_path, HEADER + "1,a.jpg,cat\n2,b.jpg,None\n")).train
    assert numbers["label"].tolist() == ["2", "1"]
    assert words["label"].tolist() == ["cat", "None"]


def test_class_names_come_from_the_config_in_its_order():
    names = class_names(pd.Series(["1", "2"]), {2: "two", 1: "one"})
    assert list(names.items()) == [("2", "two"), ("1", "one")]


def test_labels_name_themselves_in_the_order_of_numbers_or_letters():
    assert list(class_names(pd.Series(["10", "9", "-1", "9"]), None)) == ["-1", "9", "10"]
    assert list(class_names(pd.Series(["b", "10", "9"]), None)) == ["10", "9", "b"]
    assert len(class_names(pd.Series([f"class {number}" for number in range(150)]), None)) == 150


def test_ids_keep_their_zeros_and_names_their_inner_blanks(tmp_path):
    table = Competition(write_train(tmp_path, HEADER + '007,"my car, left.jpg",x\n7,b.jpg,x\n')).train
    assert table["image_id"].tolist() == ["007", "7"]
    assert table["path"].tolist()[0] == str(tmp_path / "images" / "my car, left.jpg")


def test_a_byte_order_mark_windows_lines_and_outer_blanks_do_no_harm(tmp_path):
    text = b"\xef\xbb\xbf image_id , filename ,label\r\n 1 , a.jpg , x y \r\n"
    table = Competition(write_train(tmp_path, text)).train
    assert table[["image_id", "filename", "label"]].values.tolist() == [["1", "a.jpg", "x y"]]


def test_repeated_ids_and_file_names_are_all_named(tmp_path):
    problems = problems_of(tmp_path, HEADER + "1,a.jpg,x\n1,b.jpg,x\n2,b.jpg,x\n2,c.jpg,x\n")
    assert problems == [
        "train.csv: 2 duplicate image_ids: 1, 2",
        "train.csv: 1 duplicate filename: b.jpg",
    ]


def test_empty_cells_are_named_by_line(tmp_path):
    problems = problems_of(tmp_path, HEADER + "1,a.jpg,x\n2,b.jpg,\n3,c.jpg\n,d.jpg,x\n5,,x\n")
    assert problems == [
        "train.csv: no image_id in line 5",
        "train.csv: no filename in line 6",
        "train.csv: no label in line 3, 4",
    ]


def test_a_label_outside_the_classes_is_named_with_the_fix(tmp_path):
    problems = problems_of(tmp_path, HEADER + "1,a.jpg,1\n2,b.jpg,7\n3,c.jpg,2\n4,d.jpg,7\n", {1: "crack", 2: "dent"})
    assert problems == [
        "train.csv: label '7' of 2 photos (first in line 3) is not one of data.classes (1 crack, 2 dent): "
        "add it there, or pass --data.classes null to use the labels as names"
    ]


def test_a_class_without_photos_is_named_with_the_fix(tmp_path):
    problems = problems_of(tmp_path, HEADER + "1,a.jpg,1\n", {1: "crack", 2: "dent"})
    assert problems == [
        "train.csv: no photo has the label 2 dent of data.classes: "
        "remove it there, or pass --data.classes null to use the labels as names"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image_id,label\n1,x\n",
            "train.csv has no column filename: its first line must name image_id,",
        ),
        ("image_id;filename;label\n1;a;x\n", "train.csv separates its values by semicolons: save it with commas"),
        ("", "train.csv is empty: it needs the columns image_id, filename, label"),
        (HEADER, "train.csv has a header but no rows"),
        (HEADER + "1,a,b.jpg,x\n", "train.csv, line 2 has 4 values for 3 columns: is there a comma without quotes?"),
        (HEADER + "1,a.jpg,x\n2,b,c.jpg,x\n", "train.csv, line 3 has 4 values for 3 columns"),
        (HEADER.encode() + b"1,\xe9.jpg,x\n", "train.csv, line 2 is not in UTF-8 but in another encoding"),
    ],
)
def test_a_file_that_is_no_table_of_photos_is_named(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        _ = Competition(write_train(tmp_path, text)).train


def test_a_missing_root_is_named_with_the_option(tmp_path):
    with pytest.raises(InputError, match=r"data.root .*absent is not a folder: pass --data.root DIR"):
        find_table(tmp_path / "absent", "train.csv")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match="no train.csv under data.root"):
        find_table(tmp_path, "train.csv")


def test_test_csv_is_asked_for_where_it_is_needed(tmp_path):
    with pytest.raises(InputError, match="no test.csv under data.root"):
        _ = Competition(write_train(tmp_path, HEADER + "1,a.jpg,x\n")).test


def test_a_table_without_its_images_folder_is_named(tmp_path):
    (tmp_path / "train.csv").write_text(HEADER)
    with pytest.raises(InputError, match=r"train.csv has no images/ folder beside it"):
        find_table(tmp_path, "train.csv")


def test_a_folder_with_a_tables_name_is_not_a_table(tmp_path):
    """Kaggle unpacks train.csv.zip to train.csv/train.csv."""
    write_train(tmp_path / "train.csv", HEADER)
    (tmp_path / "images").mkdir()
    assert find_table(tmp_path, "train.csv") == tmp_path / "train.csv" / "train.csv"


def test_several_tables_are_all_named(tmp_path):
    for name in ("first", "second"):
        write_train(tmp_path / name, HEADER)
    with pytest.raises(InputError, match=r"several train.csv .*first/train.csv, .*second/train.csv; set data.root"):
        find_table(tmp_path, "train.csv")


def test_only_line_breaks_end_a_row(tmp_path):
    """Python's splitlines also splits at these two."""
    table = Competition(write_train(tmp_path, HEADER + "1,a\x85b.jpg,x\n2,c\u2028d.jpg,y\n")).train
    assert table["filename"].tolist() == ["a\x85b.jpg", "c\u2028d.jpg"]
