"""Grouping of linked photos: strongest links first, and groups merge only if their photos agree."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice, product

from trunkfold.copies.matching import Evidence

WITNESSES = 4  # photos per group compared before a merge; groups are rarely larger


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

    Two photos are joined if they are copies. A photo joins a group if it is a copy of half of its members. Two groups
    merge if half of the pairs between them are certain copies. No pair between them may be known to differ: photos of
    two sources with a common background look alike if everything else was cropped, but not in all copies.

    Args:
        photos: Their indices.
        links: Evidence of pairs (smaller index first).
        look: Returns the evidence of any other pair.

    Returns:
        All groups, including those of one photo, ordered by first member.
    """
    group_of = {photo: Group([photo]) for photo in photos}
    evidence = dict(links)

    def between(one: Group, other: Group) -> list[Evidence]:
        pairs = product(islice(one.members, WITNESSES), islice(other.members, WITNESSES))
        pairs = [(min(pair), max(pair)) for pair in pairs]
        evidence.update({pair: look(*pair) for pair in pairs if pair not in evidence})
        return [evidence[pair] for pair in pairs]

    copies = sorted(((pair, found) for pair, found in links.items() if found.same), key=lambda link: link[0])
    for (first, second), found in sorted(copies, key=lambda link: link[1].strength, reverse=True):
        one, other = group_of[first], group_of[second]
        if one is other or not _belong_together(between(one, other), min(len(one.members), len(other.members))):
            continue
        one.members += other.members
        one.links += [*other.links, (first, second, found)]
        group_of.update(dict.fromkeys(other.members, one))
    for group in (groups := list({id(group): group for group in group_of.values()}.values())):
        group.members.sort()
    return sorted(groups, key=lambda group: group.members[0])


def _belong_together(pairs: list[Evidence], smaller: int) -> bool:
    if any(pair.different for pair in pairs):
        return False
    agreeing = [pair.same if smaller == 1 else pair.sure for pair in pairs]
    return 2 * sum(agreeing) >= len(agreeing)
