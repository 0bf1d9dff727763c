"""Scores of a run, part of metrics.json: frozen dataclasses whose fields are its keys."""

from dataclasses import dataclass, field

Interval = tuple[float, float]  # lower and upper bound of a 95 % interval


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; support is its number of photos."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Intervals:
    """Bootstrap intervals of a set's scores."""

    accuracy: Interval
    macro_f1: Interval


@dataclass(frozen=True)
class Scores:
    """Scores of one set of photos; the confusion matrix has true classes as rows and predicted ones as columns."""

    photos: int
    groups: int
    accuracy: float
    macro_f1: float
    intervals: Intervals
    per_class: dict[str, ClassScores]
    confusion_matrix: list[list[int]]


@dataclass(frozen=True)
class FoldScores:
    """Out-of-fold scores of one fold."""

    fold: int
    photos: int
    accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class PartScores:
    """Scores of a subset of photos."""

    photos: int
    accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class LeakScores:
    """Scores of photos with and without copies in the training set; None if there are no such photos."""

    with_copies: PartScores | None
    without_copies: PartScores | None


@dataclass(frozen=True)
class Leak:
    """Leakage of a random split, by set."""

    oof: LeakScores | None
    holdout: LeakScores | None


@dataclass(frozen=True)
class Bin:
    """A bin of a reliability diagram: mean confidence, and the share of photos predicted correctly.

    The interval is the 95 % Wilson interval for the bin's number of sources.
    """

    confidence: float
    accuracy: float
    photos: int
    interval: Interval = (0.0, 1.0)


@dataclass(frozen=True)
class Reliability:
    """Expected calibration error and negative log-likelihood, as predicted and after temperature scaling."""

    ece: float
    nll: float
    bins: list[Bin]
    ece_scaled: float
    nll_scaled: float
    bins_scaled: list[Bin]


@dataclass(frozen=True)
class Calibration:
    """Temperature fitted to out-of-fold predictions, and the reliability of each set."""

    temperature: float
    oof: Reliability
    holdout: Reliability | None


@dataclass(frozen=True)
class Range:
    """Interval that contains 95 % of the simulations."""

    low: float
    high: float


@dataclass(frozen=True)
class Draws(Range):
    """Simulated scores."""

    mean: float


@dataclass(frozen=True)
class Histogram:
    """Share of the simulations in each bin."""

    edges: list[float]
    public: list[float]
    private: list[float]


@dataclass(frozen=True)
class Rival:
    """Difference in private score that equally good submissions rarely exceed, by the share of photos they agree on."""

    agreement: float
    difference: float


@dataclass(frozen=True)
class Luck:
    """Simulated leaderboards, see `trunkfold.evaluation.leaderboard`; `difference` is public minus private score."""

    photos: int
    public_share: float
    simulations: int
    public: Draws
    private: Draws
    difference: Range
    histogram: Histogram
    told_apart: list[Rival]


@dataclass(frozen=True)
class Expected:
    """Expected macro F1 of the ensemble on new photos, see `trunkfold.evaluation.expected`.

    Attributes:
        macro_f1: Point estimate.
        interval: 95 % interval for the score on an infinite number of photos.
        leaderboard: 95 % interval for the score on the private leaderboard; None if the test set is too small.
        gain: Gain in macro F1 from averaging the folds, measured on the hold-out and shrunk; None if unknown.
    """

    macro_f1: float
    interval: Interval
    leaderboard: Interval | None
    gain: float | None


@dataclass(frozen=True)
class Assessment:
    """Scores of a run.

    `oof` is None if the averaged runs have different splits; `expected` is None in this case and if the split leaks.
    """

    oof: Scores | None = None
    holdout: Scores | None = None
    folds: list[FoldScores] = field(default_factory=list)
    leak: Leak | None = None
    calibration: Calibration | None = None
    luck: Luck | None = None
    expected: Expected | None = None

    def by_set(self) -> dict[str, Scores]:
        """Return the scores of each set that exists, hold-out first."""
        return {name: found for name, found in (("holdout", self.holdout), ("oof", self.oof)) if found is not None}
