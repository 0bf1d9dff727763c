"""One kind of error for everything that the user can mend, told in one message without a traceback."""

import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

SHOWN = 20


class InputError(ValueError):
    """Something in the data, the configuration or a run's folder is wrong; the message names it and the fix."""


class DivergedError(InputError):
    """A training came to a loss that is not finite."""


class WriteError(InputError):
    """A file cannot be written; what was there before is unharmed."""


class OutOfTime(Exception):
    """The time that was given is over; all is saved, and the message says how to go on."""


class MemoryFullError(InputError):
    """The device's memory is too small."""


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turn an `InputError` into `error: <message>` on stderr and exit code 2, the convention of argparse.

    `OutOfTime` becomes its message and exit code 0.

    Of several processes, all but the first one add their rank: what one finds, the others may not.
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
        raise InputError(f"{len(problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in problems))


def counted(number: int, noun: str) -> str:
    """`1 photo`, `2 photos`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def nearest(name: str, known: Iterable[str]) -> str:
    """The name that is written most like it."""
    return difflib.get_close_matches(name, known, 1, cutoff=0)[0]


def first_few(names: Iterable[object]) -> str:
    """The first 20 names, and how many more there are: `a, b, c ... and 17 more`."""
    names = [str(name) for name in names]
    more = f" ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
