"""Grouping of linked photos: strongest links first, and groups merge if the evidence between them agrees."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from types import MappingProxyType

from trunkfold.copies.evidence import LIMITS, Evidence, Pair
from trunkfold.copies.usual_size import UsualSize

WITNESSES = 4  # photos per group compared before a merge; groups are rarely larger
# Mean log-odds that groups of several photos need to merge, since copies would have been recognized before. Drawn cars
# of one model, the closest look-alikes we know, reach 4.3.
MARGIN = 5.0
ROUNDS = 40  # at most; three to ten suffice


@dataclass
class Group:
    """Photos that are copies of one source.

    Attributes:
        members: Indices of the photos.
        links: Pairs that joined them, each with its evidence; one fewer than members.
        size: Number of photos, including exact duplicates that are not among the members.
        lacks_copies: Whether the group probably is incomplete, by the usual size.
    """

    members: list[int]
    links: list[tuple[int, int, Evidence]] = field(default_factory=list)
    size: int = 1
    lacks_copies: bool = False

    @property
    def weakest(self) -> tuple[int, int, Evidence]:
        """The least certain link."""
        return min(self.links, key=lambda link: link[2].strength)


def join(
    photos: Iterable[int],
    links: dict[Pair, Evidence],
    look: Callable[[int, int], Evidence],
    search_again: Callable[[list[int]], dict[Pair, Evidence]] = lambda photos: {},
    duplicates: Mapping[int, int] = MappingProxyType({}),
) -> list[Group]:
    """Group photos that are copies, until the groups agree with the usual size of groups.

    Links are taken in the order of their strength, and those by verdict last, when groups are complete. Two groups
    merge if the mean log-odds of the pairs between them exceed those that are needed, see `needed_log_odds`. So one
    doubtful pair neither chains two groups nor keeps them apart.

    Args:
        photos: Their indices.
        links: Evidence of pairs (smaller index first).
        look: Returns the evidence of any other pair; called only until a decision is certain.
        search_again: Returns the evidence of further pairs of photos whose copies may not be found yet: those that lack
            copies, or all photos if sizes prove little. Called until it returns nothing.
        duplicates: Number of exact duplicates of a photo, which are not among the `photos`.

    Returns:
        All groups, including those of one photo, ordered by first member.
    """
    sizes = {photo: 1 + duplicates.get(photo, 0) for photo in photos}
    links, evidence, usual = dict(links), dict(links), UsualSize()
    for _ in range(ROUNDS):
        groups = _join(sizes, links, evidence, look, usual)
        earlier, usual = usual, UsualSize.of(group.size for group in groups)
        if usual != earlier:
            continue
        uncertain = (group for group in groups if usual.lacks_copies(group.size) or not usual.is_telling)
        further = search_again(sorted(photo for group in uncertain for photo in group.members))
        if not further:
            break
        links |= further
        evidence |= further
    for group in groups:
        group.lacks_copies = usual.lacks_copies(group.size)
    return groups


def needed_log_odds(one: Group, other: Group, usual: UsualSize) -> float:
    """Return the mean log-odds between two groups above which they merge."""
    margin = MARGIN if min(len(one.members), len(other.members)) > 1 else 0.0
    return margin - usual.log_odds_of(one.size + other.size)


def _join(
    sizes: dict[int, int],
    links: dict[Pair, Evidence],
    evidence: dict[Pair, Evidence],
    look: Callable[[int, int], Evidence],
    usual: UsualSize,
) -> list[Group]:
    """Group photos that count as so many, given the usual size; add what was looked up to the `evidence`."""
    group_of = {photo: Group([photo], size=size) for photo, size in sizes.items()}
    verdicts = [pair for pair, found in links.items() if found.verdict]

    def agree(one: Group, other: Group) -> bool:
        pairs = product(islice(one.members, WITNESSES), islice(other.members, WITNESSES))
        pairs = {(min(pair), max(pair)) for pair in pairs}
        pairs |= {pair for pair in verdicts if {id(group_of[photo]) for photo in pair} == {id(one), id(other)}}
        needed = len(pairs) * needed_log_odds(one, other, usual)
        total = sum(evidence[pair].log_odds for pair in pairs if pair in evidence)
        missing = sorted(pair for pair in pairs if pair not in evidence)
        lowest, highest = LIMITS
        while total + len(missing) * lowest <= needed < total + len(missing) * highest:  # undecided
            pair = missing.pop()
            evidence[pair] = look(*pair)
            total += evidence[pair].log_odds
        return total > needed

    comparable = (pair for pair, found in links.items() if found.inliers or found.verdict)
    copies = [pair for pair in comparable if links[pair].strength > -usual.log_odds]
    for first, second in sorted(copies, key=lambda pair: (links[pair].verdict, -links[pair].strength, pair)):
        one, other = group_of[first], group_of[second]
        if one is other or not agree(one, other):
            continue
        one.members += other.members
        one.size += other.size
        one.links += [*other.links, (first, second, links[first, second])]
        group_of.update(dict.fromkeys(other.members, one))
    for group in (groups := list({id(group): group for group in group_of.values()}.values())):
        group.members.sort()
    return sorted(groups, key=lambda group: group.members[0])
