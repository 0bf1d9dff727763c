"""Order in which pairs are compared: the closest candidates first, others only where copies may be missing."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from trunkfold.copies.evidence import Pair

CLOSEST = 2  # candidates of each kind per photo that are compared first; with three copies, the others are these


class Proposals:
    """Candidate pairs of a search, each proposed once.

    Attributes:
        proposed: Pairs that were proposed.
    """

    def __init__(
        self, photos: Sequence[int], find: Callable[[Sequence[int]], np.ndarray], known: Iterable[Pair] = ()
    ) -> None:
        """Find the candidates among all photos.

        Args:
            photos: Rows of the photos.
            find: Returns the candidates among some of these rows, with their ranks, see
                `trunkfold.copies.candidates.find_candidates`.
            known: Pairs that are never proposed.
        """
        self._photos, self._find, self._candidates = photos, find, find(photos)
        self.proposed = set(known)

    def closest(self) -> list[Pair]:
        """Propose the closest candidates of all photos."""
        return self._propose(self._candidates[self._candidates[:, 2] < CLOSEST])

    def further(self, photos: list[int]) -> list[Pair]:
        """Propose further candidates of some photos, whose copies may not be found yet.

        First all of their candidates, then, when these were proposed, their candidates among these photos alone.
        """
        pairs = self._propose(self._candidates[np.isin(self._candidates[:, :2], photos).any(1)])
        if not pairs and 1 < len(photos) < len(self._photos):
            pairs = self._propose(self._find(photos))
        return pairs

    def _propose(self, candidates: np.ndarray) -> list[Pair]:
        pairs = [pair for pair in map(tuple, candidates[:, :2].tolist()) if pair not in self.proposed]
        self.proposed.update(pairs)
        return pairs
