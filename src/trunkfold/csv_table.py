"""Reading of CSV files as strings, without conversion of values; errors name the line."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from trunkfold.errors import InputError, first_few

LINE = "(line)"  # column with the line each row starts in
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
csv.field_size_limit(2**24)


def read_text_table(path: Path, columns: Sequence[str], may_be_empty: bool = False) -> pd.DataFrame:
    """Read a CSV file as strings without surrounding whitespace, and check that it has rows and at least `columns`.

    Raises:
        InputError: The file is missing, empty, not a CSV file, or lacks columns; the message names the line.
    """
    return _read(path, columns, may_be_empty).drop(columns=LINE)


def read_numbered_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read only `columns`, and add the column `LINE` with the line in which each row starts."""
    return _read(path, columns)[[*columns, LINE]]


def _read(path: Path, columns: Sequence[str], may_be_empty: bool = False) -> pd.DataFrame:
    lines, rows = _read_rows(path)
    if may_be_empty and len(rows) < 2:
        return pd.DataFrame(columns=[*columns, LINE], dtype=object)
    if not rows:
        raise InputError(f"{path} is empty: it needs the columns {', '.join(columns)}")
    header = rows[0]
    while header and not header[-1]:  # spreadsheets leave empty columns at the end
        header = header[:-1]
    _check_header(path, header, columns)
    if len(rows) == 1:
        raise InputError(f"{path} has a header but no rows")
    for line, row in zip(lines, rows, strict=True):
        if any(row[len(header) :]):
            raise InputError(
                f"{path}, line {line} has {len(row)} values for {len(header)} columns: is there a comma without quotes?"
            )
    table = pd.DataFrame([(row + [""] * len(header))[: len(header)] for row in rows[1:]], columns=header, dtype=object)
    for column in columns:
        broken = [line for line, value in zip(lines[1:], table[column], strict=True) if "\n" in value or "\r" in value]
        if broken:
            raise InputError(
                f"{path}: {column} spans several lines, starting in line {first_few(broken)}: is a quote missing?"
            )
    return table.astype(str).assign(**{LINE: lines[1:]})


def _read_rows(path: Path) -> tuple[list[int], list[list[str]]]:
    """Return the starting line and the values of each row, without empty rows."""
    text = _read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    lines, rows, begins = [], [], 1
    try:
        for row in reader:
            values = [value.strip() for value in row]
            if any(values):
                lines.append(begins)
                rows.append(values)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {begins} cannot be read as CSV: {error}") from error
    return lines, rows


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line} is not in UTF-8 but in {kind}: save it as CSV UTF-8") from error
    if "\0" in text:
        raise InputError(f"{path} is not a text file: save it as CSV UTF-8")
    return text


def _check_header(path: Path, header: list[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    separators = [name for sign, name in SEPARATORS.items() if len(header) == 1 and sign in header[0]]
    if missing and separators:
        raise InputError(f"{path} separates its values by {separators[0]}: save it with commas")
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}: its first line must name {', '.join(columns)}, but names "
            f"{first_few(header)}"
        )
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    if repeated:
        raise InputError(f"{path} has several columns named {first_few(repr(column) for column in repeated)}")
