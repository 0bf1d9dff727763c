"""submissions/index.html: all runs with their scores, submissions and pages, newest first."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from trunkfold.errors import InputError
from trunkfold.files import is_writable
from trunkfold.html import write_html
from trunkfold.run_folder import SUBMISSIONS, RunFolder

INDEX = "index.html"
OTHERS = {"study.html": "study", "copies.html": "copies", "comparison.html": "comparison"}


def write_index() -> None:
    """Write the page of all runs, if submissions/ is readable and writable: the index must not fail a run."""
    if not is_writable(SUBMISSIONS):
        return
    with suppress(InputError, OSError):  # another process may remove what is listed
        folders = (path for path in SUBMISSIONS.iterdir() if path.is_dir())
        rows = [row for row in map(_row, map(RunFolder, folders)) if row]
        rows.sort(key=lambda row: row["time"], reverse=True)
        others = sorted(path for name in OTHERS for path in SUBMISSIONS.rglob(name))
        pages = {f"{OTHERS[path.name]}: {_link(path.parent)}".removesuffix(": ."): _link(path) for path in others}
        write_html(SUBMISSIONS / INDEX, INDEX, rows=rows, pages=pages)


def write_index_after(*written: Path | None) -> None:
    """Write the page of all runs if one of these files or folders is below submissions/."""
    if any(path is not None and path.resolve().is_relative_to(SUBMISSIONS.resolve()) for path in written):
        write_index()


def _row(run: RunFolder) -> dict | None:
    """Return the table row of a run; None if the folder is not a run."""
    found = next((path for path in (run.metrics, run.state) if path.exists()), None)
    if found is None:
        return None
    links = {path.name: _link(path) for path in (run.report, run.submission) if path.exists()}
    row = {"name": run.name, "time": datetime.fromtimestamp(found.stat().st_mtime), "links": links, "problem": None}
    if found == run.state:
        return {**row, "problem": "not finished"}
    try:
        return {**row, "metrics": run.read_metrics()}
    except InputError:
        return {**row, "problem": "metrics.json is damaged or was written by another version"}


def _link(path: Path) -> str:
    return path.relative_to(SUBMISSIONS).as_posix()
