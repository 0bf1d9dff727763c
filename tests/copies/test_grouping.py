"""Photos join when the evidence between them adds up: one doubtful pair chains no groups and keeps none apart."""

from itertools import combinations, permutations

import numpy as np
import pytest
from given_odds import Odds

from trunkfold.copies.evidence import DECIDED, IDENTICAL
from trunkfold.copies.grouping import WITNESSES, Group, join

SURE, WEAK, NOTHING, DIFFERENT = Odds(8), Odds(1.5), Odds(-2.5), Odds(-6)
KNOWN, REJECTED = Odds(DECIDED, 1), Odds(-DECIDED, -1)


def never(one: int, other: int) -> Odds:
    pytest.fail(f"asked for {one} and {other}")


def groups_of(photos: int, links: dict, look=lambda one, other: NOTHING) -> list[list[int]]:
    return [group.members for group in join(range(photos), links, look)]


def all_pairs(*groups: list[int], evidence: Odds = SURE) -> dict[tuple[int, int], Odds]:
    return {pair: evidence for group in groups for pair in combinations(group, 2)}


def between(one: list[int], other: list[int], evidence: Odds) -> dict[tuple[int, int], Odds]:
    return {(first, second): evidence for first in one for second in other}


def test_without_links_each_photo_is_alone():
    assert groups_of(3, {}, never) == [[0], [1], [2]]
    assert groups_of(0, {}, never) == []
    assert groups_of(2, {(0, 1): NOTHING}, never) == [[0], [1]]
    assert groups_of(2, {(0, 1): DIFFERENT}, never) == [[0], [1]]


def test_copies_of_copies_join_although_two_of_them_were_not_recognized():
    assert groups_of(3, {(0, 1): SURE, (1, 2): SURE}) == [[0, 1, 2]]
    assert groups_of(2, {(0, 1): WEAK}) == [[0, 1]]


def test_a_doubtful_link_does_not_outweigh_what_speaks_against_it():
    assert groups_of(3, {(0, 1): SURE, (1, 2): WEAK}) == [[0, 1], [2]]
    assert groups_of(3, {(0, 1): SURE, (1, 2): WEAK, (0, 2): WEAK}) == [[0, 1, 2]]


def test_two_groups_need_more_than_a_photo_does():
    """Copies of one source would have been recognized while the groups grew."""
    links = all_pairs([0, 1], [2, 3])
    assert groups_of(4, links | between([0, 1], [2, 3], Odds(4))) == [[0, 1], [2, 3]]
    assert groups_of(4, links | between([0, 1], [2, 3], Odds(6))) == [[0, 1, 2, 3]]
    assert groups_of(3, {(0, 1): SURE, (0, 2): Odds(2), (1, 2): Odds(2)}) == [[0, 1, 2]]


def test_one_doubtful_pair_does_not_chain_two_groups():
    pairs = all_pairs([0, 1], [2, 3])
    for link in (WEAK, Odds(7)):
        assert groups_of(4, pairs | {(1, 2): link}) == [[0, 1], [2, 3]]


def test_one_doubtful_pair_does_not_keep_two_groups_apart():
    links = all_pairs([0, 1], [2, 3]) | between([0, 1], [2, 3], SURE)
    assert groups_of(4, links | {(0, 3): NOTHING}) == [[0, 1, 2, 3]]
    links = all_pairs([0, 1, 2], [3, 4, 5]) | between([0, 1, 2], [3, 4, 5], Odds(7))
    assert groups_of(6, links | {(0, 3): DIFFERENT}) == [[0, 1, 2, 3, 4, 5]]


def test_look_alikes_stay_apart_although_one_pair_of_them_seems_certain():
    links = all_pairs([0, 1, 2], [3, 4, 5], evidence=Odds(9)) | between([0, 1, 2], [3, 4, 5], DIFFERENT)
    assert groups_of(6, links | {(0, 3): SURE}) == [[0, 1, 2], [3, 4, 5]]


def test_a_verdict_outweighs_everything():
    links = all_pairs([0, 1], [2, 3], evidence=Odds(9))
    assert groups_of(4, links | between([0, 1], [2, 3], DIFFERENT) | {(0, 3): KNOWN}) == [[0, 1, 2, 3]]
    assert groups_of(4, links | between([0, 1], [2, 3], SURE) | {(1, 2): REJECTED}) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(("verdict", "groups"), [(REJECTED, 2), (KNOWN, 1)])
def test_a_verdict_counts_in_large_groups_too(verdict, groups):
    halves = list(range(9)), list(range(9, 18))
    other = SURE if verdict == REJECTED else DIFFERENT
    links = all_pairs(*halves, evidence=Odds(9)) | between(*halves, other) | {(8, 17): verdict}
    assert len(groups_of(18, links)) == groups


def test_members_are_sorted_and_groups_are_in_the_order_of_their_first_members():
    links = all_pairs([5, 6, 1], [3, 0, 4])
    links = {(min(pair), max(pair)): evidence for pair, evidence in links.items()}
    assert groups_of(7, links) == [[0, 3, 4], [1, 5, 6], [2]]
    assert [group.members for group in join([6, 5, 4, 3, 2, 1, 0], links, never)] == [[0, 3, 4], [1, 5, 6], [2]]


def test_numbers_of_photos_need_not_be_consecutive():
    assert [group.members for group in join([3, 70, 9], {(9, 70): SURE}, never)] == [[3], [9, 70]]


def test_what_is_looked_up_counts_like_what_was_known():
    pairs = all_pairs([0, 1], [2, 3]) | {(1, 2): Odds(7)}
    assert groups_of(4, pairs, lambda one, other: Odds(6)) == [[0, 1, 2, 3]]
    assert groups_of(4, pairs, lambda one, other: NOTHING) == [[0, 1], [2, 3]]


def test_the_strongest_links_are_taken_first():
    """Photo 2 may be with 0 or with 3, which differ."""
    for better, groups in (((0, 2), [[0, 2], [3]]), ((2, 3), [[0], [2, 3]])):
        links = {(0, 2): Odds(5), (2, 3): Odds(5), (0, 3): DIFFERENT, better: Odds(5.5)}
        assert [group.members for group in join([0, 2, 3], links, never)] == groups


def test_only_pairs_that_are_not_known_are_looked_up_and_those_once():
    links = all_pairs([0, 1, 2], [3, 4, 5]) | {(2, 3): Odds(5), (1, 4): Odds(4)}
    asked = []

    def look(one: int, other: int) -> Odds:
        asked.append((one, other))
        return NOTHING

    assert groups_of(6, links, look) == [[0, 1, 2], [3, 4, 5]]
    assert len(asked) == len(set(asked)) == 2  # of seven: whatever the others are, the mean is too low
    assert set(asked) < {(one, other) for one in (0, 1, 2) for other in (3, 4, 5)} - links.keys()
    given = dict(links)
    join(range(6), links, look)
    assert links == given  # what was looked up is not written into what was passed


def test_nothing_is_looked_up_for_a_photo_that_one_link_puts_into_a_group():
    assert groups_of(3, {(0, 1): SURE, (1, 2): Odds(7)}, never) == [[0, 1, 2]]


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_the_same_as_if_all_pairs_were_looked_up(seed):
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 6, 24)
    known, hidden = {}, {}
    for pair in combinations(range(24), 2):
        same = source[pair[0]] == source[pair[1]]
        odds = rng.uniform(-3, 8) if same else rng.choice([rng.uniform(-3, 0), rng.uniform(0, 6)], p=[0.8, 0.2])
        (hidden if odds <= 0 and rng.random() < 0.7 else known)[pair] = Odds(odds)
    asked = []

    def look(one: int, other: int) -> Odds:
        asked.append((one, other))
        return hidden[one, other]

    assert groups_of(24, known, look) == groups_of(24, known | hidden, never)
    assert 0 < len(asked) < len(hidden)


def test_of_large_groups_a_few_are_asked():
    asked = []

    def look(one: int, other: int) -> Odds:
        asked.append((one, other))
        return SURE

    links = all_pairs(range(10), range(10, 20)) | {(0, 10): Odds(7)}
    assert groups_of(20, links, look) == [list(range(20))]
    assert len(asked) <= WITNESSES**2


def test_links_are_one_fewer_than_members_and_the_weakest_is_known():
    links = all_pairs([0, 1], [2, 3]) | between([0, 1], [2, 3], Odds(6))
    (group,) = join(range(4), links, never)
    assert len(group.links) == 3
    assert group.weakest[2] == Odds(6)
    (group,) = join(range(3), {(0, 1): SURE, (1, 2): Odds(5), (0, 2): NOTHING}, never)
    assert group.links == [(0, 1, SURE), (1, 2, Odds(5))]
    assert group.weakest == (1, 2, Odds(5))
    assert Group([0, 1], [(0, 1, IDENTICAL)]).weakest == (0, 1, IDENTICAL)


def random_links(rng: np.random.Generator, photos: int) -> dict[tuple[int, int], Odds]:
    pairs = [pair for pair in combinations(range(photos), 2) if rng.random() < 0.6]
    return {pair: Odds(rng.uniform(-6, 8)) for pair in pairs}


def test_the_order_of_the_links_does_not_matter():
    rng = np.random.default_rng(0)
    for _ in range(30):
        links = random_links(rng, 8)
        expected = groups_of(8, links)
        for _ in range(5):
            assert groups_of(8, dict([list(links.items())[place] for place in rng.permutation(len(links))])) == expected


def test_the_order_of_equally_strong_links_does_not_matter():
    links = {(0, 1): SURE, (1, 2): SURE, (2, 3): SURE}
    results = [groups_of(4, dict(order)) for order in permutations(links.items())]
    assert all(result == results[0] for result in results)


def test_every_photo_is_in_one_group():
    rng = np.random.default_rng(1)
    for _ in range(20):
        groups = groups_of(9, random_links(rng, 9))
        assert sorted(member for group in groups for member in group) == list(range(9))
        assert groups == sorted(groups)
