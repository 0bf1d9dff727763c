"""The content of metrics.json: frozen dataclasses whose fields are its keys."""

import json
from dataclasses import asdict, dataclass, field

from pydantic import TypeAdapter, ValidationError

from trunkfold.assessment import Assessment, Interval

FORMAT = 1  # version of the format; increase when a key changes its name or meaning


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
    """Gain from each part of the predictions, by set; folds_alone is None without a hold-out."""

    oof: list[Gain]
    holdout: list[Gain] | None
    folds_alone: list[Alone] | None


@dataclass(frozen=True)
class Consensus:
    """Effect of averaging over copies: gain in macro F1 by set, and the number of test photos whose label changed."""

    macro_f1_gain: dict[str, float] = field(default_factory=dict)
    test_labels_changed: int | None = None


@dataclass(frozen=True)
class CopyLabels:
    """Test photos with a labelled copy: whether the label was used, their number, and how many predictions differ."""

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


@dataclass(frozen=True, kw_only=True)
class Metrics(Assessment):
    """The whole file; unknown values are None or empty.

    Attributes:
        classes: Name of each label, in the order of all tables.
        weights: SHA-256 of the initial weights.
        runs: Share of each run in an average, by folder.
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
            raise ValueError("it has fewer than two classes")
        for scores in self.by_set().values():
            shape = [len(row) for row in scores.confusion_matrix]
            if list(scores.per_class) != list(self.classes.values()) or shape != len(shape) * [len(self.classes)]:
                raise ValueError("its scores and its classes do not match")

    @property
    def temperature(self) -> float:
        """Temperature that calibrates the probabilities; 1 if unknown (an average of runs with different splits)."""
        return self.calibration.temperature if self.calibration else 1.0


_ADAPTER = TypeAdapter(Metrics)


def to_json(metrics: Metrics) -> str:
    """Return indented JSON that starts with the format."""
    values = asdict(metrics)
    return json.dumps({"format": values.pop("format"), **values}, indent=2) + "\n"


def from_json(content: bytes) -> Metrics:
    """Parse and check metrics.json.

    Raises:
        ValueError: The file is damaged or has another format; the message gives the reason.
    """
    try:
        values = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if isinstance(values, dict) and values and (found := values.get("format")) != FORMAT:
        raise ValueError(f"it has format {found}, not {FORMAT}: another version of trunkfold wrote it")
    try:
        return _ADAPTER.validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{place}: {first['msg']}") from error
