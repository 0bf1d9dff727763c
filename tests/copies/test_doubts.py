"""The decisions of a search, the most doubtful first, and the errors to expect of them."""

import math

import pytest

from trunkfold.copies.doubts import expected_errors, find_doubts
from trunkfold.copies.evidence import Evidence
from trunkfold.copies.grouping import join


def known(probability: float, verdict: int = 0) -> Evidence:
    """Evidence of a given probability, or a verdict."""
    found = Evidence(verdict=verdict)
    if not verdict:
        vars(found)["strength"] = math.log(probability / (1 - probability))
    return found


def doubts_of(evidence: dict, photos: int = 4) -> list:
    return find_doubts(join(range(photos), evidence, lambda *_: known(0.1)), evidence)


def test_each_link_and_each_two_groups_kept_apart_is_one_decision():
    evidence = {(0, 1): known(0.9), (0, 2): known(0.2), (1, 2): known(0.3), (2, 3): known(0.01)}
    apart, link, *others = doubts_of(evidence)
    odds = math.sqrt(0.2 / 0.8 * 0.3 / 0.7)  # of the mean log-odds
    assert (apart.pair, apart.joined) == ((1, 2), False)
    assert apart.error == pytest.approx(odds / (1 + odds))
    assert (link.pair, link.joined) == ((0, 1), True)
    assert link.error == pytest.approx(0.1)
    assert [other.pair for other in others] == [(2, 3)]
    errors = expected_errors([apart, link, *others])
    assert errors == {"false": 0.1, "missed": round(apart.error + 0.01, 2)}


def test_what_a_person_decided_is_not_doubted():
    evidence = {(0, 1): known(0.9, verdict=1), (1, 2): known(0.3), (0, 2): known(0.3, verdict=-1), (2, 3): known(0.2)}
    assert [doubt.pair for doubt in doubts_of(evidence)] == [(2, 3)]
