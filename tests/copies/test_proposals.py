"""The closest candidates are compared first, others only where copies may be missing, and none twice."""

import numpy as np
import pytest

from trunkfold.copies.proposals import CLOSEST, Proposals

PHOTOS = [2, 3, 5, 7, 11]
CANDIDATES = {(2, 3): 0, (2, 5): CLOSEST - 1, (2, 7): CLOSEST, (3, 5): CLOSEST, (5, 11): 5, (7, 11): 7}


@pytest.fixture
def asked() -> list[list[int]]:
    return []


@pytest.fixture
def proposals(asked) -> Proposals:
    """Among fewer photos, there is one candidate more."""

    def find(photos) -> np.ndarray:
        asked.append(list(photos))
        found = {pair: rank for pair, rank in CANDIDATES.items() if set(pair) <= set(photos)}
        found |= {} if photos == PHOTOS else {(3, 7): 0}
        return np.array([(*pair, rank) for pair, rank in found.items()], int).reshape(-1, 3)

    return Proposals(PHOTOS, find)


def test_the_closest_come_first(proposals):
    assert proposals.closest() == [(2, 3), (2, 5)]
    assert proposals.proposed == {(2, 3), (2, 5)}


def test_further_candidates_are_those_of_the_given_photos_then_those_among_them_alone(proposals, asked):
    proposals.closest()
    assert proposals.further([3, 7]) == [(2, 7), (3, 5), (7, 11)]
    assert asked == [PHOTOS]
    assert proposals.further([3, 7]) == [(3, 7)]
    assert asked == [PHOTOS, [3, 7]]
    assert proposals.further([3, 7]) == []
    assert proposals.further([11]) == [(5, 11)]
    assert proposals.proposed == {*CANDIDATES, (3, 7)}


def test_candidates_among_all_photos_are_not_found_again(proposals, asked):
    assert len(proposals.further(PHOTOS)) == len(CANDIDATES)
    assert proposals.further(PHOTOS) == proposals.further([]) == proposals.further([2]) == []
    assert asked == [PHOTOS]


def test_known_pairs_are_never_proposed():
    table = np.array([(*pair, rank) for pair, rank in CANDIDATES.items()])
    proposals = Proposals(PHOTOS, lambda photos: table, known={(2, 3): None, (7, 11): None})
    assert proposals.closest() == [(2, 5)]
    assert proposals.further(PHOTOS) == [(2, 7), (3, 5), (5, 11)]
