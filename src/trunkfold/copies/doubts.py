"""Doubts about a search's groups: expected errors, and the pairs that a person should compare."""

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean

from scipy.special import expit

from trunkfold.copies.evidence import LIMITS, Evidence, Pair
from trunkfold.copies.grouping import Group, needed_log_odds
from trunkfold.copies.usual_size import UsualSize

DOUBTFUL = 0.05  # probability of an error; the calibration has too few photos to tell smaller ones apart


@dataclass(frozen=True)
class Doubt:
    """A decision of the search that may be wrong.

    Attributes:
        pair: Two photos, the most telling pair of the decision.
        joined: Whether the photos are in one group.
        error: Probability that the decision is wrong.
    """

    pair: Pair
    joined: bool
    error: float


def find_doubts(groups: list[Group], evidence: dict[Pair, Evidence]) -> list[Doubt]:
    """Return the doubtful decisions of a search: links within groups, and groups that were kept apart.

    Args:
        groups: Groups of the search.
        evidence: Of all pairs that were compared.

    Returns:
        Decisions that are wrong with a probability of `DOUBTFUL` or more, the most doubtful first. Pairs with a verdict
        and groups of which no pair could be aligned are not among them.
    """
    group_of = {member: number for number, group in enumerate(groups) for member in group.members}
    usual = UsualSize.of(group.size for group in groups)
    doubts = [
        Doubt(
            (min(one, other), max(one, other)),
            True,
            float(expit(-found.strength - usual.log_odds_of(group.size))),
        )
        for group in groups
        for one, other, found in group.links
        if not found.verdict
    ]
    apart = defaultdict(list)
    for pair, found in evidence.items():
        between = frozenset(group_of[photo] for photo in pair)
        if len(between) == 2:
            apart[between].append((found.strength, pair))
    for between, pairs in apart.items():
        found = [evidence[pair] for _, pair in pairs]
        if any(each.inliers for each in found) and not any(each.verdict for each in found):
            needed = needed_log_odds(*(groups[number] for number in between), usual)
            # Limited above as in the decision, so that none is called more likely wrong than right.
            error = float(expit(fmean(min(each.strength, LIMITS[1]) for each in found) - needed))
            doubts.append(Doubt(max(pairs)[1], False, error))
    doubts = [doubt for doubt in doubts if doubt.error >= DOUBTFUL]
    return sorted(doubts, key=lambda doubt: (-doubt.error, doubt.pair))


def expected_errors(doubts: list[Doubt]) -> dict[str, float]:
    """Return the number of doubtful decisions, and the expected numbers of "false" and "missed" links among them."""
    return {
        "doubtful": len(doubts),
        "false": round(sum(doubt.error for doubt in doubts if doubt.joined), 2),
        "missed": round(sum(doubt.error for doubt in doubts if not doubt.joined), 2),
    }
