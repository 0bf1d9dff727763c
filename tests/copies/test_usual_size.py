"""The sizes of most groups tell which photos still lack copies, as far as Bayes' rule goes."""

import math
from itertools import combinations, product

import pytest
from given_odds import Odds

from trunkfold.copies.grouping import join
from trunkfold.copies.usual_size import LIMIT, PRIOR, UsualSize


def test_evidence_is_the_inverse_square_of_the_share_of_incomplete_photos():
    """Of 100 pairs of photos of different sources, so many are both in incomplete groups by chance."""
    usual = UsualSize.of([3] * 30 + [1] * 10)
    share = (10 + PRIOR) / (100 + PRIOR)
    assert usual == UsualSize(3, pytest.approx(math.log(1 / share**2)))
    assert [usual.log_odds_of(size) for size in (2, 3, 4, 6)] == [usual.log_odds] * 2 + [-usual.log_odds] * 2


def test_without_copies_or_a_common_size_sizes_prove_nothing():
    assert UsualSize.of([]) == UsualSize.of([1] * 500) == UsualSize()
    assert UsualSize.of([1] * 500 + [2]).log_odds < 0.01
    assert UsualSize.of(range(1, 12)).log_odds < 0.5
    assert UsualSize.of([2]).log_odds < 0.4  # two photos are no rule
    assert UsualSize.of(range(2, 30)) == UsualSize()  # as of bursts or films: no size has a tenth of the photos


def test_a_few_large_groups_are_not_usual_and_the_evidence_is_limited():
    assert UsualSize.of([3] * 100 + [6] * 5) == UsualSize(3, pytest.approx(-2 * math.log(40 / 340)))
    assert UsualSize.of([3] * 4000) == UsualSize(3, LIMIT)
    assert UsualSize.of([2] * 40 + [3] * 10).size == 3  # photos in pairs may lack a third
    assert UsualSize.of([3] * 40 + [1] * 30).size == 3


SURE, UNLIKELY = Odds(8), Odds(-2)


def triples(count: int) -> dict[tuple[int, int], Odds]:
    return {pair: SURE for first in range(0, 3 * count, 3) for pair in combinations(range(first, first + 3), 2)}


def joined(photos: int, links: dict, look=lambda one, other: Odds(-6)) -> list[list[int]]:
    return [group.members for group in join(range(photos), links, look) if group.members[-1] >= 90]


def test_photos_that_lack_copies_join_by_evidence_that_is_too_weak_for_others():
    """90 photos are in triples; of three others, one copy was not recognized."""
    missed = {(90, 91): SURE, (90, 92): UNLIKELY, (91, 92): UNLIKELY}
    assert joined(93, triples(30) | missed) == [[90, 91, 92]]
    assert joined(93, triples(5) | missed, lambda *_: Odds(-9))[-1] == [92]  # of 93 photos, most have no copies
    different = {pair: Odds(-LIMIT - 0.1) for pair in missed}
    assert joined(93, triples(30) | different) == [[90], [91], [92]]


def test_photos_that_cannot_be_aligned_are_no_link_even_if_both_lack_copies():
    assert joined(92, triples(30) | {(90, 91): Odds(-1, inliers=0)}) == [[90], [91]]


def test_complete_groups_keep_out_what_looks_alike():
    alone = {(one, 90): Odds(3) for one in range(3)}
    assert joined(91, triples(30) | alone) == [[90]]
    assert join(range(4), triples(1) | {(one, 3): Odds(3) for one in range(3)}, None)[0].members == [0, 1, 2, 3]
    groups = triples(32) | {pair: Odds(7) for pair in product((90, 91, 92), (93, 94, 95))}
    assert joined(96, groups) == [[90, 91, 92], [93, 94, 95]]  # the margin alone would let them merge


def test_a_person_decides_against_all_sizes():
    groups = triples(32) | {(90, 93): Odds(1000.0, verdict=1)}
    assert joined(96, groups) == [[90, 91, 92, 93, 94, 95]]
    assert joined(92, triples(30) | {(90, 91): Odds(-1000.0, verdict=-1)}) == [[90], [91]]


def test_photos_that_lack_copies_are_searched_again_until_nothing_is_found():
    """Among 93 photos, a copy of 92 was no candidate; among three it is."""
    asked = []

    def search_again(photos: list[int]) -> dict:
        asked.append(photos)
        return {(91, 92): Odds(6)} if len(asked) == 1 else {}

    links = triples(30) | {(90, 91): SURE}
    groups = join(range(93), links, lambda *_: Odds(2), search_again)
    assert groups[-1].members == [90, 91, 92]
    assert not any(group.lacks_copies for group in groups)
    assert asked == [[90, 91, 92], []]  # afterwards no photo lacks copies
    assert links == triples(30) | {(90, 91): SURE}


def test_all_photos_may_lack_copies_where_sizes_prove_little():
    asked = []

    def search_again(photos: list[int]) -> dict:
        asked.append(photos)
        return {(20, 21): SURE} if len(asked) == 1 else {}

    groups = join(range(40), triples(3), lambda *_: Odds(-6), search_again)
    assert [20, 21] in [group.members for group in groups]
    assert asked == [list(range(40))] * 2
    assert not any(group.lacks_copies for group in groups)


def test_exact_duplicates_complete_a_group():
    """Photos 90 and 91 are the only ones of their source without exact duplicates; 92 has two."""
    links = triples(30) | {(90, 91): SURE, (90, 92): UNLIKELY, (91, 92): UNLIKELY}
    for duplicates, groups in (({}, [[90, 91, 92]]), ({92: 2}, [[90, 91], [92]]), ({90: 1}, [[90, 91], [92]])):
        found = join(range(93), links, lambda *_: Odds(-6), duplicates=duplicates)
        assert [group.members for group in found[30:]] == groups
        assert [group.size for group in found[:30]] == [3] * 30
        assert sum(group.size for group in found) == 93 + sum(duplicates.values())
