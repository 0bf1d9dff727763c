"""Evidence of two photos that a test gives, without photos."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Odds:
    """Evidence of given log-odds; without inliers, the photos could not be aligned."""

    log_odds: float
    verdict: int = 0
    inliers: int = 10

    @property
    def strength(self) -> float:
        return self.log_odds
