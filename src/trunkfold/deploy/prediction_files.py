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
        rows: The rows.
        class_names: Class names, for the columns p_<name> of a CSV file.
        path: .csv or .jsonl file, written atomically; None prints CSV.

    Returns:
        Number of photos that could not be read.

    Raises:
        WriteError: The file cannot be written, or the disk is full.
    """
    with _opened(path) as file:
        as_json = path is not None and path.suffix.lower() == ".jsonl"
        return _write_json(rows, file) if as_json else _write_csv(rows, list(class_names), file)


def _write_json(rows: Iterable[Mapping], file: TextIO) -> int:
    unreadable = 0
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        unreadable += row["problem"] is not None
    return unreadable


def _write_csv(rows: Iterable[Mapping], class_names: list[str], file: TextIO) -> int:
    before = ["path", "label", "name", "confidence", "unlike_training", "novelty"]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*before, *(PREFIX + name for name in class_names), "heatmap", "problem"])
    unreadable = 0
    for row in rows:
        probabilities = row["probabilities"] or dict.fromkeys(class_names)
        cells = [row[key] for key in before] + [probabilities[name] for name in class_names]
        writer.writerow([_cell(value) for value in [*cells, row["heatmap"], row["problem"]]])
        unreadable += row["problem"] is not None
    return unreadable


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.8g}" if isinstance(value, float) else str(value)


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    # File names may not be valid UTF-8: their bytes are preserved.
    if path is None:
        sys.stdout.reconfigure(errors="surrogateescape")
        yield sys.stdout
        return
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield file
