"""Copies, and only copies, share a prediction or a label."""

import numpy as np
import pandas as pd
import pytest

from trunkfold.evaluation.consensus import average_groups, average_in_folds, labels_of_copies


def random_probabilities(rows: int, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(classes), rows)


def test_each_group_gets_its_own_mean():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.4, 0.6]])
    averaged = average_groups(probabilities, np.array(["b", "a", "b", "a"]))
    np.testing.assert_allclose(averaged, [[0.7, 0.3], [0.3, 0.7], [0.7, 0.3], [0.3, 0.7]])


def test_groups_are_never_mixed():
    """What one group is predicted changes nothing in another, whatever the groups' sizes and order."""
    groups = np.random.default_rng(1).choice(["a", "b", "c", "d", ""], 60)
    probabilities = random_probabilities(60)
    averaged = average_groups(probabilities, groups)
    for name in "abcd":
        own = groups == name
        np.testing.assert_allclose(averaged[own], np.broadcast_to(probabilities[own].mean(0), (own.sum(), 3)))
    np.testing.assert_allclose(averaged.sum(1), 1)


@pytest.mark.parametrize("groups", [["", "", ""], ["", "a", ""], ["a", "b", "c"]])
def test_photos_that_stand_alone_keep_what_they_were_predicted(groups):
    """Also several of no group: they are nobody's copies, and not each other's."""
    probabilities = random_probabilities(3)
    np.testing.assert_array_equal(average_groups(probabilities, np.array(groups)), probabilities)


def test_the_given_probabilities_are_left_as_they_are():
    probabilities = random_probabilities(4)
    before = probabilities.copy()
    average_groups(probabilities, np.array(["a", "a", "", ""]))
    np.testing.assert_array_equal(probabilities, before)


def test_only_groups_that_no_fold_divides_are_averaged():
    """a lies in fold 0, b in two folds, c is held out, d is half held out, e is alone."""
    folds = pd.DataFrame({"group": list("abcdeabcd"), "fold": [0, 0, -1, -1, 1, 0, 1, -1, 1]})
    probabilities = random_probabilities(9)
    averaged = average_in_folds(probabilities, folds)
    np.testing.assert_array_equal(averaged[[1, 3, 4, 6, 8]], probabilities[[1, 3, 4, 6, 8]])
    for pair in ([0, 5], [2, 7]):
        np.testing.assert_allclose(averaged[pair], np.tile(probabilities[pair].mean(0), (2, 1)))


def test_folds_are_told_by_their_place_whatever_the_index_says():
    folds = pd.DataFrame({"group": list("abab"), "fold": [0, 0, 0, 1]})
    probabilities = random_probabilities(4)
    expected = average_in_folds(probabilities, folds)
    np.testing.assert_array_equal(average_in_folds(probabilities, folds.set_axis([3, 0, 9, 1])), expected)


FOLDS = pd.DataFrame({"group": ["a", "a", "b", "c", "c", "d"], "label": ["1", "1", "2", "1", "2", "3"]})


def test_a_photo_can_take_the_label_that_all_its_labelled_copies_have():
    """b and a agree with themselves; c contradicts itself; nothing is known of x, nor of photos without a group."""
    groups = pd.Series(["b", "a", "c", "x", "", "a"], index=[5, 3, 1, 0, 2, 4])
    labels = labels_of_copies(groups, FOLDS)
    assert labels.index.equals(groups.index)
    assert labels[labels.notna()].to_dict() == {5: "2", 3: "1", 4: "1"}


def test_a_photo_without_a_group_is_no_copy_of_a_labelled_one_without():
    folds = pd.DataFrame({"group": ["", "a"], "label": ["1", "2"]})
    assert labels_of_copies(pd.Series(["", "a"]), folds).isna().tolist() == [True, False]


def test_without_copies_there_are_no_labels():
    labels = labels_of_copies(pd.Series(["x", ""]), FOLDS)
    assert labels.isna().all()
    assert labels.fillna(pd.Series(["3", "1"])).tolist() == ["3", "1"]
