"""Grouping of linked photos: strongest links first, and groups merge if the evidence between them agrees."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice, product

from trunkfold.copies.evidence import LIMITS, Evidence

WITNESSES = 4  # photos per group compared before a merge; groups are rarely larger
# Mean log-odds that groups of several photos need to merge, since copies would have been recognized before. Drawn cars
# of one model, the closest look-alikes we know, reach 4.3.
MARGIN = 5.0


@dataclass
class Group:
    """Photos that are copies of one source.

    Attributes:
        members: Indices of the photos.
        links: Pairs that joined them, each with its evidence; one fewer than members.
    """

    members: list[int]
    links: list[tuple[int, int, Evidence]] = field(default_factory=list)

    @property
    def weakest(self) -> tuple[int, int, Evidence]:
        """The least certain link."""
        return min(self.links, key=lambda link: link[2].strength)


def join(
    photos: Iterable[int], links: dict[tuple[int, int], Evidence], look: Callable[[int, int], Evidence]
) -> list[Group]:
    """Group photos that are copies.

    Links are taken in the order of their strength, and those by verdict last, when groups are complete. Two groups
    merge if the mean log-odds of the pairs between them are positive, or exceed a margin if both have several photos.
    So one doubtful pair neither chains two groups nor keeps them apart.

    Args:
        photos: Their indices.
        links: Evidence of pairs (smaller index first).
        look: Returns the evidence of any other pair; called only until a decision is certain.

    Returns:
        All groups, including those of one photo, ordered by first member.
    """
    group_of = {photo: Group([photo]) for photo in photos}
    evidence = dict(links)
    verdicts = {pair: found.log_odds for pair, found in links.items() if found.verdict}

    def agree(one: Group, other: Group) -> bool:
        pairs = product(islice(one.members, WITNESSES), islice(other.members, WITNESSES))
        pairs = {(min(pair), max(pair)) for pair in pairs}
        pairs |= {pair for pair in verdicts if {id(group_of[photo]) for photo in pair} == {id(one), id(other)}}
        needed = len(pairs) * needed_log_odds(one, other)
        total = sum(evidence[pair].log_odds for pair in pairs if pair in evidence)
        missing = sorted(pair for pair in pairs if pair not in evidence)
        lowest, highest = LIMITS
        while total + len(missing) * lowest <= needed < total + len(missing) * highest:  # undecided
            pair = missing.pop()
            evidence[pair] = look(*pair)
            total += evidence[pair].log_odds
        return total > needed

    copies = sorted(((pair, found) for pair, found in links.items() if found.log_odds > 0), key=lambda link: link[0])
    for (first, second), found in sorted(copies, key=lambda link: (link[1].verdict, -link[1].strength)):
        one, other = group_of[first], group_of[second]
        if one is other or not agree(one, other):
            continue
        one.members += other.members
        one.links += [*other.links, (first, second, found)]
        group_of.update(dict.fromkeys(other.members, one))
    for group in (groups := list({id(group): group for group in group_of.values()}.values())):
        group.members.sort()
    return sorted(groups, key=lambda group: group.members[0])


def needed_log_odds(one: Group, other: Group) -> float:
    """Return the mean log-odds between two groups above which they merge."""
    return MARGIN if min(len(one.members), len(other.members)) > 1 else 0.0
