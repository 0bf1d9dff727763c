"""The folder of a run under submissions/; only this module defines and writes its files."""

import shutil
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trunkfold.errors import InputError
from trunkfold.files import LOCK, check_writable, write_bytes, write_csv, write_text
from trunkfold.metrics import Metrics, from_json, to_json

SUBMISSIONS = Path("submissions")
SETS = {"holdout": "hold-out", "oof": "out-of-fold"}  # sets of scored photos, each with a table of predictions
METRICS = "metrics.json"


@dataclass(frozen=True)
class FoldFiles:
    """Files with one fold's tuned weights: peft's adapter and its configuration, and the rest of the tail."""

    adapter: Path
    adapter_config: Path
    tail: Path


class RunFolder:
    """Paths of a run's files, with methods to read its metrics and, with `write`, to write its files."""

    def __init__(self, path: Path, write: bool = False) -> None:
        self.path, self.write, self.name = path, write, path.absolute().name
        self.config = path / "config.yaml"
        self.folds = path / "folds.csv"
        self.groups = path / "groups.csv"
        self.history = path / "history.csv"
        self.shared = path / "shared.safetensors"  # the weights that all folds share
        self.embeddings = path / "embeddings.safetensors"  # of the labelled photos
        self.label_issues = path / "label_issues.csv"
        self.test_probabilities = path / "test_probabilities.csv"
        self.submission = path / "submission.csv"
        self.metrics = path / METRICS
        self.report = path / "report.html"
        self.figures = path / "figures"
        self.augmented = self.figures / "augmented.png"  # samples of augmented photos
        self.thumbnails = self.figures / "photos"
        self.trackers = path / "trackers"  # files of run.trackers
        self.state = path / "state.safetensors"  # checkpoint of an unfinished run
        self.lock = path / LOCK

    def __str__(self) -> str:
        return str(self.path)

    def predictions(self, name: str) -> Path:
        """Return the path of the prediction table of one of `SETS`."""
        return self.path / f"{name}.csv"

    def fold(self, fold: int) -> FoldFiles:
        """Return the paths of one fold's tail."""
        folder = self.path / f"fold_{fold}"
        return FoldFiles(
            folder / "adapter_model.safetensors", folder / "adapter_config.json", folder / "tail.safetensors"
        )

    def saved_folds(self) -> set[str]:
        """Return the names of the folders with tails."""
        return {path.name for path in self.path.glob("fold_*")}

    def foreign_files(self) -> list[str]:
        """Return the names of files and folders that are not a run's, apart from its folds."""
        return sorted({path.name for path in self.path.glob("[!.]*")} - {path.name for path in self._paths()})

    def _paths(self) -> list[Path]:
        own = [path for path in vars(self).values() if isinstance(path, Path) and path != self.path]
        return [*own, *map(self.predictions, SETS)]

    def figure(self, name: str) -> Path:
        """Return the path of a figure's PNG file."""
        return self.figures / f"{name}.png"

    def thumbnail(self, row: int) -> Path:
        """Return the path of the thumbnail of a row of folds.csv."""
        return self.thumbnails / f"{row}.jpg"

    def heat_map(self, row: int) -> Path:
        """Return the path of the thumbnail with a Grad-CAM overlay."""
        return self.thumbnails / f"{row}-cam.jpg"

    @property
    def is_trained(self) -> bool:
        """Whether the folder holds trained weights; an average of runs does not."""
        return self.shared.exists()

    @property
    def is_finished(self) -> bool:
        """Whether the folder has results, and no checkpoint of a training that is yet to end."""
        return self.metrics.exists() and not self.state.exists()

    def read_metrics(self) -> Metrics:
        """Read metrics.json.

        Raises:
            InputError: The file is missing, damaged, or written by another version.
        """
        try:
            return from_json(self.metrics.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{self.metrics} is missing: {self} is not a run, or did not finish training") from error
        except OSError as error:
            raise InputError(f"{self.metrics} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InputError(f"{self.metrics} is damaged or was written by another version: {error}") from error

    def save(self, content: pd.DataFrame | Metrics | str | bytes, path: Path) -> None:
        """Write one of the run's files atomically.

        Raises:
            WriteError: The file cannot be written, or the disk is full.
            RuntimeError: The run was opened for reading (a bug).
        """
        if not self.write:
            raise RuntimeError(f"{path} must not be written: the run is read-only")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pd.DataFrame):
            write_csv(content, path)
        elif isinstance(content, bytes):
            write_bytes(content, path)
        else:
            write_text(to_json(content) if isinstance(content, Metrics) else content, path)

    def copy_tables(self, run: "RunFolder") -> None:
        """Copy all files that the report needs from another run, without its weights."""
        self.remove_tables()
        for path in (*run._tables(), *run.figures.rglob("*.*")):
            if path.exists():
                self.save(path.read_bytes(), self.path / path.relative_to(run.path))

    def remove_tables(self) -> None:
        """Remove the files that `copy_tables` copies."""
        for path in self._tables():
            path.unlink(missing_ok=True)
        shutil.rmtree(self.figures, ignore_errors=True)

    def _tables(self) -> list[Path]:
        return [self.config, self.folds, self.groups, self.history, self.label_issues, *map(self.predictions, SETS)]

    def check_writable(self, fix: str) -> None:
        """Check that every file can be written, see `trunkfold.files.check_writable`."""
        check_writable([*(path for path in self._paths() if path.suffix), self.thumbnail(0)], fix)


def chosen_run(path: Path | None = None) -> RunFolder:
    """Return the run selected by `--run`, by default the one that finished training last.

    Raises:
        InputError: There is no finished run.
    """
    if path is not None:
        return RunFolder(path)
    runs = [RunFolder(path.parent) for path in SUBMISSIONS.glob(f"*/{METRICS}")]
    finished = [run for run in runs if run.is_trained and run.is_finished]
    if not finished:
        raise InputError(f"no finished run under {SUBMISSIONS}/: train one first with src/train_folds.py")
    return max(finished, key=lambda run: run.history.stat().st_mtime)  # a submission rewrites the metrics


def add_run_options(parser: ArgumentParser, labelled: bool = False) -> None:
    """Add the options of a command that uses a finished run, and its labelled photos (`--data.root`, as `root`)."""
    parser.add_argument("--run", type=Path, help="Folder of a finished run; by default the newest.")
    if labelled:
        place = "Current folder of the labelled photos; by default the run's data.root."
        parser.add_argument("--data.root", dest="root", type=Path, help=place)
