"""Errors that users can fix, printed as one message without a traceback."""

import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

SHOWN = 20


class InputError(ValueError):
    """The data, the configuration or a run's folder is invalid; the message names the problem and the fix."""


class DivergedError(InputError):
    """The training loss is not finite."""


class WriteError(InputError):
    """A file cannot be written; the previous one is intact."""


class OutOfTime(Exception):
    """The time limit is reached; a checkpoint is saved, and the message says how to resume."""


class MemoryFullError(InputError):
    """The device's memory is too small."""


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Exit with `error: <message>` on stderr and code 2 for an `InputError`, as argparse does.

    For `OutOfTime`, print its message and exit with code 0. Processes other than the first add their rank to errors,
    because an error may occur in only one of them.
    """
    rank = os.environ.get("RANK", "0")
    try:
        yield
    except InputError as error:
        print(f"error: {error}" if rank == "0" else f"error of process {rank}: {error}", file=sys.stderr)
        sys.exit(2)
    except OutOfTime as pause:
        if rank == "0":
            print(pause)
        sys.exit(0)


def raise_problems(problems: Iterable[str]) -> None:
    """Raise all problems as one `InputError`; do nothing if there are none."""
    problems = list(problems)
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        listed = [problem.replace("\n", "\n  ") for problem in problems]
        raise InputError("\n  - ".join([f"{len(problems)} problems:", *listed]))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 photo`, `2 photos`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name with the most similar spelling."""
    return difflib.get_close_matches(name, known, 1, cutoff=0)[0]


def first_few(names: Iterable[object]) -> str:
    """Return the first 20 names and the number of others: `a, b, c ... and 17 more`."""
    names = [str(name) for name in names]
    more = f" ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
