"""Photos join when their evidence agrees: what looks alike by chance chains no groups, and what differs keeps apart."""

from itertools import combinations, permutations

import numpy as np
import pytest

from trunkfold.copies.grouping import WITNESSES, Group, join
from trunkfold.copies.matching import IDENTICAL, Evidence

SURE = Evidence(40, 0.9, 0.99, 0.1)
SAME = Evidence(10, 0.6, 0.88, 0.5)  # copies, but not beyond doubt
NOTHING = Evidence()
DIFFERENT = Evidence(30, 0.9, 0.6, 0.9)


def never(one: int, other: int) -> Evidence:
    pytest.fail(f"asked for {one} and {other}")


def groups_of(photos: int, links: dict, look=lambda one, other: NOTHING) -> list[list[int]]:
    return [group.members for group in join(range(photos), links, look)]


def all_pairs(*groups: list[int], evidence: Evidence = SURE) -> dict[tuple[int, int], Evidence]:
    return {pair: evidence for group in groups for pair in combinations(group, 2)}


def stronger(evidence: Evidence, by: float) -> Evidence:
    return Evidence(evidence.inliers, evidence.overlap, evidence.agreement + by, evidence.difference)


def test_the_made_up_evidence_is_what_it_is_called():
    assert SURE.sure
    assert SAME.same
    assert not SAME.sure
    assert DIFFERENT.different
    assert not NOTHING.same
    assert not NOTHING.different


def test_without_links_each_photo_is_alone():
    assert groups_of(3, {}, never) == [[0], [1], [2]]
    assert groups_of(0, {}, never) == []
    assert groups_of(2, {(0, 1): NOTHING}, never) == [[0], [1]]
    assert groups_of(2, {(0, 1): DIFFERENT}, never) == [[0], [1]]


def test_copies_of_copies_join():
    assert groups_of(3, {(0, 1): SURE, (1, 2): SURE}) == [[0, 1, 2]]
    assert groups_of(3, {(0, 1): SAME, (1, 2): SAME}) == [[0, 1, 2]]


def test_two_photos_join_by_one_doubtful_link():
    assert groups_of(2, {(0, 1): SAME}) == [[0, 1]]


def test_members_are_sorted_and_groups_are_in_the_order_of_their_first_members():
    links = all_pairs([5, 6, 1], [3, 0, 4])
    links = {(min(pair), max(pair)): evidence for pair, evidence in links.items()}
    assert groups_of(7, links) == [[0, 3, 4], [1, 5, 6], [2]]
    assert [group.members for group in join([6, 5, 4, 3, 2, 1, 0], links, never)] == [[0, 3, 4], [1, 5, 6], [2]]


def test_members_are_sorted_however_they_were_joined():
    assert groups_of(6, {(0, 5): SURE, (2, 5): stronger(SURE, -0.01)}) == [[0, 2, 5], [1], [3], [4]]


def test_numbers_of_photos_need_not_be_consecutive():
    assert [group.members for group in join([3, 70, 9], {(9, 70): SURE}, never)] == [[3], [9, 70]]


def test_one_link_does_not_chain_two_groups():
    pairs = all_pairs([0, 1], [2, 3])
    for link in (stronger(SURE, -0.01), SAME):
        assert groups_of(4, pairs | {(1, 2): link}) == [[0, 1], [2, 3]]


def test_half_of_the_pairs_join_two_groups_when_they_are_sure():
    pairs = all_pairs([0, 1], [2, 3])
    between = {(0, 2): SAME, (1, 3): SAME}
    assert groups_of(4, pairs | between) == [[0, 1], [2, 3]]
    assert groups_of(4, pairs | dict.fromkeys(between, stronger(SURE, -0.01))) == [[0, 1, 2, 3]]
    assert groups_of(4, pairs | {(0, 2): stronger(SURE, -0.01), (1, 3): SAME}) == [[0, 1], [2, 3]]


def test_what_is_looked_up_counts_like_what_was_known():
    pairs = all_pairs([0, 1], [2, 3]) | {(1, 2): stronger(SURE, -0.02)}
    assert groups_of(4, pairs, lambda one, other: SURE) == [[0, 1, 2, 3]]
    assert groups_of(4, pairs, lambda one, other: SAME) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("pair", [(0, 2), (0, 3), (1, 3)])
def test_one_known_difference_keeps_groups_apart(pair):
    pairs = all_pairs([0, 1], [2, 3]) | all_pairs([0, 1, 2, 3], evidence=stronger(SURE, -0.01))
    pairs |= all_pairs([0, 1], [2, 3])
    assert groups_of(4, pairs) == [[0, 1, 2, 3]]
    assert groups_of(4, pairs | {pair: DIFFERENT}) == [[0, 1], [2, 3]]


def test_a_difference_keeps_a_photo_from_a_group_that_it_has_copies_in():
    pairs = all_pairs([0, 1, 2]) | dict.fromkeys([(0, 3), (1, 3)], SAME)
    assert groups_of(4, pairs) == [[0, 1, 2, 3]]
    assert groups_of(4, pairs | {(2, 3): DIFFERENT}) == [[0, 1, 2], [3]]
    assert groups_of(4, pairs, lambda one, other: DIFFERENT) == [[0, 1, 2], [3]]


def test_a_photo_joins_a_group_when_it_is_a_copy_of_half_of_it():
    assert groups_of(4, all_pairs([0, 1, 2]) | {(0, 3): SAME}) == [[0, 1, 2], [3]]
    assert groups_of(4, all_pairs([0, 1, 2]) | {(0, 3): SURE}) == [[0, 1, 2], [3]]
    assert groups_of(4, all_pairs([0, 1, 2]) | {(0, 3): SAME, (2, 3): SAME}) == [[0, 1, 2, 3]]
    assert groups_of(3, all_pairs([0, 1]) | {(0, 2): SAME}) == [[0, 1, 2]]


def test_the_strongest_links_are_taken_first():
    """Photo 2 may be with 0 or with 3, which differ."""
    for better, groups in (((0, 2), [[0, 2], [3]]), ((2, 3), [[0], [2, 3]])):
        links = {(0, 2): SURE, (2, 3): SURE, (0, 3): DIFFERENT, better: stronger(SURE, 0.01)}
        assert [group.members for group in join([0, 2, 3], links, never)] == groups


def test_only_pairs_that_are_not_known_are_looked_up_and_those_once():
    links = all_pairs([0, 1, 2], [3, 4, 5]) | {(2, 3): stronger(SURE, -0.01), (1, 4): stronger(SURE, -0.02)}
    asked = []

    def look(one: int, other: int) -> Evidence:
        asked.append((one, other))
        return NOTHING

    assert groups_of(6, links, look) == [[0, 1, 2], [3, 4, 5]]
    assert len(asked) == len(set(asked)) == 7
    assert set(asked) == {(one, other) for one in (0, 1, 2) for other in (3, 4, 5)} - links.keys()
    given = dict(links)
    join(range(6), links, look)
    assert links == given  # what was looked up is not written into what was passed


def test_of_large_groups_a_few_are_asked():
    half = range(10), range(10, 20)
    asked = []

    def look(one: int, other: int) -> Evidence:
        asked.append((one, other))
        return SURE

    links = all_pairs(*half) | {(0, 10): stronger(SURE, -0.01)}
    assert groups_of(20, links, look) == [list(range(20))]
    assert len(asked) <= WITNESSES**2


def test_links_are_one_fewer_than_members_and_the_weakest_is_known():
    weak = stronger(SURE, -0.03)
    (group,) = join(range(4), all_pairs([0, 1], [2, 3]) | all_pairs([0, 1, 2, 3], evidence=weak), never)
    assert len(group.links) == 3
    (group,) = join(range(3), {(0, 1): SURE, (1, 2): SAME, (0, 2): NOTHING}, never)
    assert group.links == [(0, 1, SURE), (1, 2, SAME)]
    assert group.weakest == (1, 2, SAME)
    assert Group([0, 1], [(0, 1, IDENTICAL)]).weakest == (0, 1, IDENTICAL)


def random_links(rng: np.random.Generator, photos: int, kinds: list[Evidence]) -> dict[tuple[int, int], Evidence]:
    pairs = [pair for pair in combinations(range(photos), 2) if rng.random() < 0.6]
    return {pair: kinds[rng.integers(len(kinds))] for pair in pairs}


def test_the_order_of_the_links_does_not_matter():
    rng = np.random.default_rng(0)
    for _ in range(30):
        links = {
            pair: stronger(evidence, rng.uniform(0, 0.01))
            for pair, evidence in random_links(rng, 8, [SURE, SAME, NOTHING, DIFFERENT]).items()
        }
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
        groups = groups_of(9, random_links(rng, 9, [SURE, SAME, DIFFERENT]), lambda one, other: NOTHING)
        assert sorted(member for group in groups for member in group) == list(range(9))
        assert groups == sorted(groups)
