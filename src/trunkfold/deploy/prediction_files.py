"""Streaming output of predictions as CSV or JSON lines."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from trunkfold.errors import InputError
from trunkfold.evaluation.predictions import PREFIX
from trunkfold.files import check_writable, whole_file

KINDS = (".csv", ".jsonl")
BEFORE = ("path", "label", "name", "confidence", "unlike_training", "novelty")  # columns before the probabilities


def check_output(path: Path | None) -> None:
    """Raise an `InputError` unless predictions can be written to a path; call this before predicting."""
    if path is None:
        return
    if path.suffix.lower() not in KINDS:
        raise InputError(f"--out {path} must end in .csv or .jsonl")
    check_writable([path], "choose another --out")


def write_rows(rows: Iterable[Mapping], class_names: Iterable[str], path: Path | None) -> int:
    """Write rows of `trunkfold.deploy.predict.predict_files` as they arrive.

    Args:
        class_names: Class names, for the columns p_<name> of a CSV file.
        path: .csv or .jsonl file, written atomically; None prints CSV.

    Returns:
        Number of photos that could not be read.

    Raises:
        WriteError: The file cannot be written, or the disk is full.
    """
    names, unreadable = list(class_names), 0
    as_json = path is not None and path.suffix.lower() == ".jsonl"
    with _opened(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        if not as_json:
            writer.writerow([*BEFORE, *(PREFIX + name for name in names), "heatmap", "problem"])
        for row in rows:
            if as_json:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            else:
                probabilities = (row["probabilities"] or dict.fromkeys(names)).values()
                values = [*map(row.get, BEFORE), *probabilities, row["heatmap"], row["problem"]]
                writer.writerow(map(_cell, values))
            unreadable += row["problem"] is not None
    return unreadable


def _cell(value: str | float | bool | None) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.8g}" if isinstance(value, float) else value


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    # File names may not be valid UTF-8: their bytes are preserved.
    if path is None:
        sys.stdout.reconfigure(errors="surrogateescape")
        yield sys.stdout
        return
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield file
