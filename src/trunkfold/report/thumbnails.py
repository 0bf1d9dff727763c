"""The pictures that a run saved for its report, read as addresses that a page embeds."""

from collections.abc import Sequence
from pathlib import Path

from trunkfold.html import data_address
from trunkfold.runs import THUMBNAILS


class Thumbnails:
    """Saved pictures by row of folds.csv, as addresses that a page embeds; None where there is no such picture."""

    def __init__(self, runs: Sequence[Path]) -> None:
        """Look in the first of these runs first; Grad-CAM of another run would not be about this one's prediction."""
        self.runs = runs

    def photo(self, row: int) -> str | None:
        """The photo."""
        found = (_address(run / THUMBNAILS / f"{row}.jpg") for run in self.runs)
        return next((address for address in found if address), None)

    def heat(self, row: int) -> str | None:
        """The photo under the heat of what predicted it."""
        return _address(self.runs[0] / THUMBNAILS / f"{row}-cam.jpg") if self.runs else None


def _address(path: Path) -> str | None:
    return data_address(path.read_bytes(), "jpeg") if path.exists() else None
