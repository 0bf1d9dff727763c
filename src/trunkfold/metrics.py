"""The content of metrics.json: frozen dataclasses whose fields are its keys, read and written as JSON."""

import json
from dataclasses import asdict, dataclass, field

from pydantic import TypeAdapter, ValidationError

FORMAT = 1  # of the file; raise it when a key changes its name or meaning
Interval = tuple[float, float]  # low and high end of 95 %


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
    """Scores of one set of photos; rows of the confusion matrix are the truth, columns the prediction."""

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
    """Scores of the photos of a set that share a property."""

    photos: int
    accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class LeakScores:
    """Scores of the photos with and without a copy among the training photos; None where there are no such photos."""

    with_copies: PartScores | None
    without_copies: PartScores | None


@dataclass(frozen=True)
class Leak:
    """What a random split leaks, by set."""

    oof: LeakScores | None
    holdout: LeakScores | None


@dataclass(frozen=True)
class Bin:
    """A bin of a reliability diagram: mean confidence, and the share of its photos predicted correctly, with the 95 %
    Wilson interval of as many sources."""

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
    """Temperature fitted to the out-of-fold photos, and the reliability of each set."""

    temperature: float
    oof: Reliability
    holdout: Reliability | None


@dataclass(frozen=True)
class Range:
    """Where 95 % of the simulations are."""

    low: float
    high: float


@dataclass(frozen=True)
class Draws(Range):
    """Simulated scores."""

    mean: float


@dataclass(frozen=True)
class Histogram:
    """Shares of the simulations between neighbouring edges."""

    edges: list[float]
    public: list[float]
    private: list[float]


@dataclass(frozen=True)
class Rival:
    """Difference in private score that two equally good submissions stay below, and the share of equal labels."""

    agreement: float
    difference: float


@dataclass(frozen=True)
class Luck:
    """Simulated leaderboards, see `trunkfold.evaluation.leaderboard`; difference is public minus private."""

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
    """Macro F1 that the ensemble is expected to reach on new photos, see `trunkfold.evaluation.expected`.

    Attributes:
        macro_f1: The estimate.
        interval: 95 % interval of the score on endlessly many photos.
        leaderboard: 95 % interval of a private leaderboard's score; None where the test set is too small.
        gain: Macro F1 of the ensemble minus that of its single models on the hold-out; None where it is not known.
    """

    macro_f1: float
    interval: Interval
    leaderboard: Interval | None
    gain: float | None


@dataclass(frozen=True)
class Alone:
    """Scores of one fold's tail on the hold-out."""

    part: str
    macro_f1: float
    accuracy: float


@dataclass(frozen=True)
class Gain(Alone):
    """Scores without one part, and the macro F1 that the part adds."""

    gain: float
    interval: Interval


@dataclass(frozen=True)
class Ablation:
    """What each part of the predictions adds, by set; folds_alone is None without a hold-out."""

    oof: list[Gain]
    holdout: list[Gain] | None
    folds_alone: list[Alone] | None


@dataclass(frozen=True)
class Consensus:
    """What averaging over copies changed: macro F1 by set, and the number of test photos with another label."""

    macro_f1_gain: dict[str, float] = field(default_factory=dict)
    test_labels_changed: int | None = None


@dataclass(frozen=True)
class CopyLabels:
    """Test photos with a labelled copy: whether its label was used, how many, and how many were predicted otherwise."""

    used: bool
    photos: int
    different: int


@dataclass(frozen=True)
class Split:
    """The options of the split; holdout is a share or "legacy"."""

    groups: str
    folds: int
    holdout: float | str
    seed: int


@dataclass(frozen=True)
class Parameters:
    """Size of one fold's model."""

    trainable: int
    total: int


@dataclass(frozen=True)
class Memory:
    """Peak memory in GiB, None where it is unknown or there is no GPU."""

    process: float | None
    gpu: float | None


@dataclass(frozen=True)
class Sizes:
    """Sizes of the labelled photos in pixels: [smallest, median, largest] sides, and the most frequent sizes."""

    photos: int
    width: list[int] | None
    height: list[int] | None
    frequent: dict[str, int]


@dataclass(frozen=True)
class PhotoFacts:
    """Sizes of the labelled photos, and the number of groups of each size."""

    sizes: Sizes
    group_sizes: dict[str, int]


@dataclass(frozen=True)
class MadeWith:
    """Software, hardware and photos of a training."""

    versions: dict[str, str | None]
    commit: str | None
    device: str
    processes: int
    precision: str
    memory_gib: Memory
    data: PhotoFacts


@dataclass(frozen=True)
class Assessment:
    """What follows from a run's predictions; without oof, averaged runs have different splits; expected is None there,
    and where the split leaks."""

    oof: Scores | None = None
    holdout: Scores | None = None
    folds: list[FoldScores] = field(default_factory=list)
    leak: Leak | None = None
    calibration: Calibration | None = None
    luck: Luck | None = None
    expected: Expected | None = None

    def by_set(self) -> dict[str, Scores]:
        """Scores of the sets that there are, the hold-out's first."""
        return {name: found for name, found in (("holdout", self.holdout), ("oof", self.oof)) if found is not None}


@dataclass(frozen=True, kw_only=True)
class Metrics(Assessment):
    """The whole file; what a run does not have yet is None or empty.

    Attributes:
        classes: Name of each label, in the order of all tables.
        weights: SHA-256 of the weights that the run started from.
        runs: Share of each run in an average of several, by folder.
    """

    classes: dict[str, str]
    split: Split
    ablation: Ablation | None = None
    consensus: Consensus | None = None
    copy_labels: CopyLabels | None = None
    search_key: str | None = None
    parameters: Parameters | None = None
    weights: str | None = None
    made_with: MadeWith | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    images_per_second: float | None = None
    runs: dict[str, float] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError("it needs at least two classes")
        for scores in self.by_set().values():
            shape = [len(row) for row in scores.confusion_matrix]
            if list(scores.per_class) != list(self.classes.values()) or shape != len(shape) * [len(self.classes)]:
                raise ValueError("its scores are not of its classes")

    @property
    def temperature(self) -> float:
        """What calibrates the probabilities; 1 for an average of runs with different splits, where it is unknown."""
        return self.calibration.temperature if self.calibration else 1.0


_ADAPTER = TypeAdapter(Metrics)


def to_json(metrics: Metrics) -> str:
    """Indented JSON, the format first."""
    values = asdict(metrics)
    return json.dumps({"format": values.pop("format"), **values}, indent=2) + "\n"


def from_json(content: bytes) -> Metrics:
    """Parse and check metrics.json.

    Raises:
        ValueError: It is damaged or has another format; the message says what is wrong.
    """
    try:
        values = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    found = values.get("format") if isinstance(values, dict) else None
    if isinstance(values, dict) and values and found != FORMAT:
        raise ValueError(f"it has format {found}, not {FORMAT}: another version of trunkfold wrote it")
    try:
        return _ADAPTER.validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{place}: {first['msg']}") from error
