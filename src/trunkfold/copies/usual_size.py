"""The usual number of copies, which tells likely further copies from look-alikes.

Where most photos are in groups of three, a photo of a smaller group has copies that were not found, and one of a
complete group has no more. Two photos whose copies were not found are in incomplete groups; of two others, each is in
one as often as any photo. So the odds that photos of incomplete groups are copies increase by the inverse square of the
share of such photos (Bayes' rule), and those of other pairs decrease as much.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

LEAST_SHARE = 0.1  # of the grouped photos, in groups of the usual size
PRIOR = 10  # incomplete photos assumed before any is counted, so that a few groups prove little
TELLING = 1.0  # log-odds above which sizes are a rule: more than 40 % of the photos are in groups of the usual size
LIMIT = 5.0  # log-odds; nearly all aligned photos of different sources have less than -LIMIT


@dataclass(frozen=True)
class UsualSize:
    """The usual size of groups.

    Attributes:
        size: Photos in the largest groups that are common; 0 if there are no groups of several photos.
        log_odds: Evidence, up to `LIMIT`, that two photos of incomplete groups are copies.
    """

    size: int = 0
    log_odds: float = 0.0

    @classmethod
    def of(cls, sizes: Iterable[int]) -> "UsualSize":
        """Estimate it from the number of photos in each group."""
        photos = Counter()
        for size in sizes:
            photos[size] += size
        grouped = sum(count for size, count in photos.items() if size > 1)
        if not grouped:
            return cls()
        common = (size for size, count in photos.items() if size > 1 and count >= LEAST_SHARE * grouped)
        usual = max(common, default=0)
        everything = photos.total()
        incomplete = (everything - photos[usual] + PRIOR) / (everything + PRIOR)
        return cls(usual, min(-2 * math.log(incomplete), LIMIT))

    @property
    def is_telling(self) -> bool:
        """Whether the size is a rule."""
        return self.log_odds > TELLING

    def lacks_copies(self, size: int) -> bool:
        """Return whether a group of this size probably is incomplete."""
        return size < self.size and self.is_telling

    def log_odds_of(self, size: int) -> float:
        """Return the evidence for a group of this size."""
        return self.log_odds if size <= self.size else -self.log_odds
