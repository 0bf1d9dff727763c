"""A run is a folder under submissions/: which is the newest, what its metrics say, and how long its phases took."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trunkfold.errors import InputError

SUBMISSIONS = Path("submissions")
AUGMENTED = "augmented.png"  # in figures/
THUMBNAILS = Path("figures", "photos")
NONE = type(None)
METRICS = {  # what metrics.json holds, where it holds it
    **{name: (dict,) for name in ("classes", "split", "seconds", "parameters")},
    **{name: (NONE, dict) for name in ("oof", "holdout", "leak", "consensus", "copy_labels")},
    "folds": (list,),
}


def newest_run() -> Path:
    """The run that finished training last.

    Raises:
        InputError: There is none.
    """
    finished = [path.parent for path in SUBMISSIONS.glob("*/metrics.json") if (path.parent / "config.yaml").exists()]
    if not finished:
        raise InputError(f"no finished run under {SUBMISSIONS}/: train one first with src/train_folds.py")
    return max(finished, key=lambda folder: (folder / "metrics.json").stat().st_mtime)


def read_metrics(folder: Path) -> dict:
    """A run's metrics.json.

    Returns:
        All that it holds; `classes` (name of each label) and `split` at the least.

    Raises:
        InputError: It is missing, is not JSON, or holds something else.
    """
    path = folder / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} is missing: {folder} is not a run, or did not finish training") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    for name, kinds in METRICS.items():
        if not isinstance(metrics, dict) or not isinstance(metrics.get(name, kinds[0]()), kinds):
            raise InputError(f"{path} is damaged: it has no {name}, or another kind of them")
    classes = metrics.get("classes", {})
    if len(classes) < 2 or not all(isinstance(name, str) for name in classes.values()):
        raise InputError(f"{path} is damaged: its classes are no labels with names")
    return metrics


class Stopwatch:
    """Seconds by phase: `with stopwatch("training"): ...`.

    Attributes:
        started: When it was made, on the monotonic clock.
        seconds: Of each phase that has ended, in order.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[phase] = round(time.perf_counter() - started, 3)
