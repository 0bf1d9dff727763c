"""The decisions of a search, the most doubtful first, and the errors to expect of them."""

import math

import pytest

from trunkfold.copies.doubts import expected_errors, find_doubts
from trunkfold.copies.evidence import NOT_ALIGNED, Evidence
from trunkfold.copies.grouping import MARGIN, join
from trunkfold.copies.usual_size import UsualSize


@pytest.fixture(autouse=True)
def few_groups(monkeypatch):
    """Three photos prove no usual size of groups; without any, the numbers here are simple."""
    monkeypatch.setattr(UsualSize, "of", lambda sizes: UsualSize())


def known(probability: float, verdict: int = 0) -> Evidence:
    """Evidence of a given probability, or a verdict."""
    found = Evidence(inliers=9, verdict=verdict)
    if not verdict:
        vars(found)["strength"] = math.log(probability / (1 - probability))
    return found


def doubts_of(evidence: dict, photos: int = 4) -> list:
    return find_doubts(join(range(photos), evidence, lambda *_: known(0.1)), evidence)


def test_each_link_and_each_two_groups_kept_apart_is_one_decision():
    evidence = {(0, 1): known(0.9), (0, 2): known(0.2), (1, 2): known(0.3), (2, 3): known(0.06)}
    apart, link, other = doubts_of(evidence)
    odds = math.sqrt(0.2 / 0.8 * 0.3 / 0.7)  # of the mean log-odds
    assert (apart.pair, apart.joined) == ((1, 2), False)
    assert apart.error == pytest.approx(odds / (1 + odds))
    assert (link.pair, link.joined) == ((0, 1), True)
    assert link.error == pytest.approx(0.1)
    assert (other.pair, other.joined) == ((2, 3), False)
    errors = expected_errors([apart, link, other])
    assert errors == {"doubtful": 3, "false": 0.1, "missed": round(apart.error + other.error, 2)}


def test_decisions_that_are_hardly_wrong_are_not_doubted():
    assert doubts_of({(0, 1): known(0.96), (2, 3): known(0.04)}) == []


def test_photos_that_could_not_be_aligned_are_doubted_only_beside_others():
    assert doubts_of({(0, 1): Evidence(), (2, 3): Evidence()}) == []
    evidence = {(0, 1): known(0.999), (1, 2): known(0.6), (0, 2): Evidence()}
    (doubt,) = doubts_of(evidence)
    odds = math.sqrt(0.6 / 0.4 * math.exp(NOT_ALIGNED))
    assert (doubt.pair, doubt.joined, doubt.error) == ((1, 2), False, pytest.approx(odds / (1 + odds)))


def test_what_a_person_decided_is_not_doubted():
    evidence = {(0, 1): known(0.9, verdict=1), (1, 2): known(0.3), (0, 2): known(0.3, verdict=-1), (2, 3): known(0.2)}
    assert [doubt.pair for doubt in doubts_of(evidence)] == [(2, 3)]


def test_two_groups_of_several_photos_are_doubted_by_what_they_need_to_merge():
    between = {(one, other): known(0.95) for one in (0, 1) for other in (2, 3)}
    (doubt,) = doubts_of({(0, 1): known(0.999), (2, 3): known(0.999)} | between)
    odds = 0.95 / 0.05 / math.exp(MARGIN)
    assert not doubt.joined
    assert doubt.error == pytest.approx(odds / (1 + odds))


def test_no_decision_is_called_more_likely_wrong_than_right():
    """One overwhelming pair does not join two groups, whose others are weak."""
    between = {(0, 2): known(1 - 1e-9), **dict.fromkeys([(0, 3), (1, 2), (1, 3)], known(0.88))}
    (doubt,) = doubts_of({(0, 1): known(1 - 1e-12), (2, 3): known(1 - 1e-12)} | between)
    assert (doubt.pair, doubt.joined) == ((0, 2), False)
    assert 0.1 < doubt.error < 0.5


def test_the_usual_size_of_groups_counts_in_doubts_as_in_the_decision(monkeypatch):
    monkeypatch.setattr(UsualSize, "of", lambda sizes: UsualSize(2, 1.0))
    *links, apart = doubts_of({(0, 1): known(0.7), (1, 2): known(0.2), (3, 4): known(0.3)}, photos=5)
    for doubt, pair, odds in zip([*links, apart], [(3, 4), (0, 1), (1, 2)], [7 / 3, 3 / 7, 1 / 4], strict=True):
        assert doubt.pair == pair
        assert doubt.error == pytest.approx(odds / math.e / (1 + odds / math.e))
    assert [doubt.joined for doubt in links] == [True, True]  # the first is a link because of the usual size
    assert not apart.joined  # a third photo would be one more than usual
