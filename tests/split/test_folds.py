"""Copies are never separated, every photo is assigned, and folds depend on the split's options only."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from trunkfold.config.schema import SplitConfig
from trunkfold.errors import InputError
from trunkfold.split.folds import HELD_OUT, ONLY_LEARNED, assign_folds, learned_from, split_problems

RIPIK = Path(__file__).parents[3] / "shared" / "data" / "ripik_train.csv"


def make_table(groups_of_class: dict[str, int], copies: int = 3) -> pd.DataFrame:
    """Photos of pure groups of `copies`, in an order that mixes the classes."""
    labels = [label for label, groups in groups_of_class.items() for _ in range(groups)]
    table = pd.DataFrame(
        {"label": np.repeat(labels, copies), "group": np.repeat([f"g{n}" for n in range(len(labels))], copies)}
    )
    table = table.sample(frac=1, random_state=0, ignore_index=True)
    table.insert(0, "image_id", [str(number) for number in range(1, len(table) + 1)])
    return table


TABLE = make_table({"a": 60, "b": 30, "c": 10})


def fold_of_id(table: pd.DataFrame, split: SplitConfig) -> dict[str, int]:
    return dict(zip(table["image_id"], assign_folds(table, split), strict=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("holdout", [0.0, 0.135, 0.3])
def test_no_group_straddles_folds_or_the_hold_out(seed, holdout):
    folds = assign_folds(TABLE, SplitConfig(seed=seed, holdout=holdout))
    assert (folds.groupby(TABLE["group"]).nunique() == 1).all()


def test_groups_of_unequal_size_and_mixed_labels_stay_whole():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image_id": [str(n) for n in range(400)], "label": rng.choice(["a", "b"], 400)})
    table["group"] = [f"g{n}" for n in np.sort(rng.integers(0, 60, 400))]
    folds = assign_folds(table, SplitConfig())
    assert (folds.groupby(table["group"]).nunique() == 1).all()
    assert set(folds) == {HELD_OUT, 0, 1, 2, 3, 4}


def test_every_row_is_in_one_fold_or_held_out():
    folds = assign_folds(TABLE, SplitConfig(folds=4))
    assert folds.index.equals(TABLE.index)
    assert set(folds) == {HELD_OUT, 0, 1, 2, 3}


def test_hold_out_and_folds_have_their_shares_of_every_class():
    """100 groups of 3: 20 held out; of 60, 30 and 10 groups a fifth, and a fifth of the rest in each fold."""
    folds = assign_folds(TABLE, SplitConfig(holdout=0.2))
    counts = pd.crosstab(folds, TABLE["label"]) // 3
    assert counts.loc[HELD_OUT].tolist() == [12, 6, 2]
    for fold in range(5):
        assert counts.loc[fold].tolist() == pytest.approx([9.6, 4.8, 1.6], abs=1)


def test_a_class_with_just_enough_groups_is_in_every_fold_and_in_the_hold_out():
    table = make_table({"a": 40, "b": 6})
    assert not list(split_problems(table, SplitConfig()))
    for seed in range(10):
        folds = assign_folds(table, SplitConfig(seed=seed))
        assert set(folds[table["label"] == "b"]) == {HELD_OUT, 0, 1, 2, 3, 4}


def test_without_a_hold_out_every_photo_is_in_a_fold():
    assert set(assign_folds(TABLE, SplitConfig(holdout=0.0))) == {0, 1, 2, 3, 4}


def test_the_order_of_the_rows_does_not_matter():
    shuffled = TABLE.sample(frac=1, random_state=1)
    for table in (shuffled, shuffled.reset_index(drop=True)):
        assert fold_of_id(table, SplitConfig()) == fold_of_id(TABLE, SplitConfig())


def test_the_names_of_the_groups_do_not_matter():
    names = {name: f"{number * 7919 % 101} renamed" for number, name in enumerate(TABLE["group"].unique())}
    renamed = TABLE.assign(group=TABLE["group"].map(names))
    assert fold_of_id(renamed, SplitConfig()) == fold_of_id(TABLE, SplitConfig())


def test_the_seed_decides_about_folds_and_hold_out():
    first, second = SplitConfig(seed=1, holdout=0.0), SplitConfig(seed=2, holdout=0.0)
    assert fold_of_id(TABLE, first) == fold_of_id(TABLE, first) != fold_of_id(TABLE, second)
    held_out = [assign_folds(TABLE, SplitConfig(seed=seed)) == HELD_OUT for seed in (1, 1, 2)]
    assert held_out[0].equals(held_out[1])
    assert not held_out[0].equals(held_out[2])


@pytest.mark.skipif(not RIPIK.exists(), reason="the competition's label file is not on this machine")
def test_legacy_is_the_split_of_the_student_projects():
    table = pd.read_csv(RIPIK, dtype=str)
    table["group"] = table["image_id"]
    held_out = table[assign_folds(table, SplitConfig(holdout="legacy")) == HELD_OUT]
    assert len(held_out) == 973
    assert held_out["label"].value_counts().sort_index().tolist() == [21, 309, 77, 275, 170, 121]


def test_one_fold_of_the_legacy_split_is_that_of_the_student_projects():
    """scikit-learn's train_test_split, twice, both times with random_state=42: 5,230, 997 and 973 photos."""
    ids = [str(number) for number in range(1, 7201)]
    table = pd.DataFrame({"image_id": ids, "label": "a", "group": ids})
    folds = assign_folds(table, SplitConfig(groups="none", holdout="legacy", folds=1))
    rest, held_out = train_test_split(np.arange(7200), test_size=0.135, random_state=42)
    learning, validating = train_test_split(rest, test_size=0.16, random_state=42)
    assert (len(learning), len(validating), len(held_out)) == (5230, 997, 973)
    for rows, fold in ((learning, ONLY_LEARNED), (validating, 0), (held_out, HELD_OUT)):
        assert set(folds.iloc[rows]) == {fold}


@pytest.mark.parametrize("seed", range(5))
def test_one_fold_divides_no_group_and_validates_a_share_of_every_class(seed):
    folds = assign_folds(TABLE, SplitConfig(folds=1, holdout=0.2, seed=seed))
    assert (folds.groupby(TABLE["group"]).nunique() == 1).all()
    counts = pd.crosstab(folds, TABLE["label"]) // 3
    assert counts.loc[HELD_OUT].tolist() == [12, 6, 2]
    assert counts.loc[0].sum() == 13  # 16 % of 80 groups, rounded up
    assert counts.loc[0].tolist() == pytest.approx([7.7, 3.8, 1.3], abs=1)
    assert counts.loc[ONLY_LEARNED].sum() == 67


def test_what_is_learned_from_is_all_but_the_hold_out_or_of_one_fold_all_but_the_validation():
    assert learned_from(np.array([0, 1, -1, 2])).tolist() == [True, True, False, True]
    assert learned_from(np.array([0, -2, -1, -2])).tolist() == [False, True, False, True]


def test_a_class_with_too_few_groups_is_named_with_both_fixes():
    table = make_table({"a": 40, "b": 5, "c": 6})
    assert list(split_problems(table, SplitConfig())) == [
        "class 'b' has 5 groups of photos, too few for 5 folds and a hold-out of 13.5%: "
        "lower split.folds or split.holdout, or remove the class"
    ]
    assert not list(split_problems(table, SplitConfig(holdout=0.0)))


def test_a_hold_out_that_cannot_hold_every_class_is_an_error():
    with pytest.raises(
        InputError, match=r"set of 1.0% of 100 groups cannot contain every class .*raise split.holdout, or set"
    ):
        assign_folds(TABLE, SplitConfig(holdout=0.01))


def test_without_groups_a_split_divides_copies_and_does_not_look_at_them():
    """Photos stay single however they are grouped; held out is a share of the photos, not of their groups."""
    alone = TABLE.assign(group=TABLE["image_id"])
    split = SplitConfig(groups="none", holdout=0.2)
    folds = assign_folds(TABLE, split)
    assert fold_of_id(TABLE, split) == fold_of_id(alone, split) == fold_of_id(TABLE.assign(group=""), split)
    divided = folds.groupby(TABLE["group"]).nunique() > 1
    assert divided.mean() > 0.5
    assert (folds == HELD_OUT).sum() == 60


@pytest.mark.parametrize("choice", ["copies", "some/groups.csv"])
def test_a_split_by_group_divides_none_wherever_its_groups_are_from(choice):
    folds = assign_folds(TABLE, SplitConfig(groups=choice))
    assert (folds.groupby(TABLE["group"]).nunique() == 1).all()


def test_without_groups_a_class_needs_photos_not_groups():
    """Three groups of three photos: too few groups for five folds, but enough photos."""
    table = make_table({"a": 40, "b": 3})
    assert len(list(split_problems(table, SplitConfig(groups="copies", holdout=0.0)))) == 1
    assert not list(split_problems(table, SplitConfig(groups="none", holdout=0.0)))
