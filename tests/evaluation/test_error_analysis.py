"""The report's photos are confident mistakes of different sources, and the selection is reproducible."""

import pandas as pd
import pytest
from made_up_run import CLASSES, make_run

from trunkfold.errors import InputError
from trunkfold.evaluation.error_analysis import (
    SUSPECTS,
    choose_photos,
    class_samples,
    confused_pairs,
    copies_of,
    placed,
    read_placed,
    read_suspects,
    surest_mistakes,
)
from trunkfold.evaluation.predictions import read_folds
from trunkfold.run_folder import RunFolder


def photos(labels: str, predictions: str, sure: list[float], groups: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": range(len(labels)),
            "label": list(labels),
            "prediction": list(predictions),
            "sure": sure,
            "group": list(groups),
        }
    )


def test_the_surest_mistakes_are_wrong_of_different_groups_and_come_surest_first():
    table = photos("11222", "12111", [0.99, 0.8, 0.7, 0.9, 0.85], "abcdd")
    assert surest_mistakes(table)["row"].tolist() == [3, 1, 2]
    assert surest_mistakes(table, 2)["row"].tolist() == [3, 1]
    assert surest_mistakes(table[:1]).empty


def test_pairs_of_classes_are_counted_by_direction_and_the_most_frequent_is_first():
    table = photos("1122233", "2111122", [0.5, 0.9, 0.6, 0.8, 0.7, 0.5, 0.4], "abcdcef")
    pairs = confused_pairs(table)
    assert pairs[0] == {"label": "2", "prediction": "1", "count": 3, "rows": [3, 4]}  # 2 and 4 are copies
    assert pairs[1] == {"label": "3", "prediction": "2", "count": 2, "rows": [5, 6]}
    assert [(pair["label"], pair["prediction"]) for pair in pairs[2:]] == [("1", "2")]


def test_samples_of_a_class_are_of_it_and_of_different_groups():
    folds = pd.DataFrame({"label": list("1112222222"), "group": list("aabcdefghi")})
    samples = class_samples(folds, {"1": "x", "2": "y", "3": "nobody"})
    assert samples == {"1": [0, 2], "2": [3, 5, 6, 7, 9], "3": []}


def test_of_many_classes_fewer_samples_are_shown():
    labels = [str(number % 200) for number in range(1000)]
    folds = pd.DataFrame({"label": labels, "group": range(1000)})
    samples = class_samples(folds, {label: label for label in set(labels)})
    assert {len(rows) for rows in samples.values()} == {1}


def test_copies_are_the_other_photos_of_the_group():
    folds = pd.DataFrame({"group": list("abaaaa")})
    assert copies_of(folds, [2, 1]) == {2: [0, 3, 4], 1: []}


def test_rows_are_those_of_the_folds_whatever_the_order_of_the_predictions():
    folds = pd.DataFrame({"image_id": ["x", "y", "z"], "group": ["g", "h", "i"]})
    table = pd.DataFrame({"image_id": ["z", "x"], "p_A": [0.2, 0.9], "p_B": [0.8, 0.1]})
    found = placed(table, folds, {"1": "A", "2": "B"})
    assert found[["row", "group", "sure"]].to_dict("list") == {"row": [2, 0], "group": ["i", "g"], "sure": [0.8, 0.9]}


@pytest.fixture
def run(tmp_path):
    return RunFolder(make_run(tmp_path))


def folds_of(run):
    return read_folds(run.folds, CLASSES)


def test_every_photo_of_the_page_is_among_the_rows(run):
    run.label_issues.write_text("image_id,label,suggestion\n50,1,2\n")
    folds = folds_of(run)
    gallery = choose_photos(read_placed(run, folds, CLASSES), read_suspects(run, folds), folds, CLASSES)
    assert set(gallery.mistakes) == {"holdout", "oof"}
    assert (gallery.mistakes["holdout"]["row"] >= 60).all()
    shown = {row for table in gallery.mistakes.values() for row in table["row"]} | {50}
    shown |= {row for pair in gallery.pairs for row in pair["rows"]}
    shown |= {row for rows in [*gallery.samples.values(), *gallery.copies.values()] for row in rows}
    assert gallery.rows == sorted(shown)
    assert gallery.copies[50]


def test_suspects_are_the_first_rows_of_the_file_and_known_photos(run):
    lines = [f"{number},1,2" for number in range(80, 40, -1)]
    run.label_issues.write_text("\n".join(["image_id,label,suggestion", "nobody,1,2", *lines]))
    suspects = read_suspects(run, folds_of(run))
    groups = folds_of(run)["group"].tolist()
    first = [row for row in range(80, 40, -1) if groups[row] not in groups[row + 1 : 81]]
    assert suspects["row"].tolist() == first[:SUSPECTS]  # one per source
    assert [photo["image_id"] for photos in suspects["photos"] for photo in photos][0] == "80"


HEADER = "image_id,label,suggestion\n"


@pytest.mark.parametrize("text", [None, "", HEADER, f"{HEADER},,\n,,\n", f"{HEADER}nobody,1,2\n"])
def test_without_suspects_there_are_none(text, run):
    if text is not None:
        run.label_issues.write_text(text)
    assert read_suspects(run, folds_of(run)).empty


def test_lines_that_a_spreadsheet_leaves_empty_are_no_suspects(run):
    run.label_issues.write_text(f"{HEADER},,\n50,1,2\n,,\n")
    assert read_suspects(run, folds_of(run))["row"].tolist() == [50]


def test_a_file_of_suspects_without_its_columns_is_named(run):
    run.label_issues.write_text("image_id,label\n1,2\n")
    with pytest.raises(InputError, match="label_issues.csv has no column suggestion"):
        read_suspects(run, folds_of(run))
