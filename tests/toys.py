"""A toy competition small enough to reason about, and helpers shared by several tests."""

import errno
import os
import re
import runpy
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from trunkfold.data.pixel_cache import CachedPhotos, load_photos
from trunkfold.evaluation.predictions import scored_table

LABELS = ("1", "2", "3")
COPIES = 3
ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


def write_competition(
    root: Path,
    sources: int = 30,
    unlabelled_sources: int = 4,
    labels: tuple[str, ...] = LABELS,
    nested: bool = True,
    copies: int = COPIES,
    crossing: int = 0,
) -> Path:
    """Write a competition of coloured pictures, each source there three times; the class decides the colour.

    Classes take turns, so each has `sources / len(labels)` groups. `nested` chooses Kaggle's train/train layout. The
    first `crossing` unlabelled sources are the first labelled ones once more. groups.csv, with the true groups, lies in
    the root.
    """
    rng = np.random.default_rng(0)
    folders = {name: root / name / name if nested else root / name for name in ("train", "test")}
    rows: dict[str, list[dict]] = {"train": [], "test": []}
    groups, bases = [], {}
    for source in range(sources + unlabelled_sources):
        part = "train" if source < sources else "test"
        shown = source - sources if sources <= source < sources + crossing else source
        label = labels[shown % len(labels)]
        if shown not in bases:
            bases[shown] = rng.integers(0, 256, (30, 40, 3)) // 2
            bases[shown][..., labels.index(label) % 3] += 100
        base = bases[shown]
        for copy in range(copies):
            image_id = str(source * copies + copy + 1)
            pixels = np.clip(base[:, :: -1 if copy == 1 else 1] + rng.integers(-9, 10, base.shape), 0, 255)
            (folders[part] / "images").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folders[part] / "images" / f"{image_id}.png"), pixels.astype(np.uint8))
            rows[part].append({"image_id": image_id, "filename": f"{image_id}.png", "label": label})
            groups.append({"image_id": image_id, "group": f"source {shown}"})
    pd.DataFrame(rows["train"]).to_csv(folders["train"] / "train.csv", index=False)
    pd.DataFrame(rows["test"]).drop(columns="label").to_csv(folders["test"] / "test.csv", index=False)
    pd.DataFrame(rows["test"])[["image_id", "label"]].assign(label=labels[0]).to_csv(
        root / "sample_submission.csv", index=False
    )
    pd.DataFrame(groups).to_csv(root / "groups.csv", index=False)
    return root


def cache_photos(folder: Path, pixels: Sequence[np.ndarray]) -> CachedPhotos:
    """The given pictures as decoded photos in a cache, all below `folder`."""
    (folder / "photos").mkdir()
    paths = [str(folder / "photos" / f"{row}.png") for row in range(len(pixels))]
    for path, picture in zip(paths, pixels, strict=True):
        cv2.imwrite(path, picture[..., ::-1])
    return load_photos(paths, max(max(picture.shape) for picture in pixels), folder / "cache").pixels


def png_of(width: int, height: int) -> bytes:
    """A small file that claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


def run_command(script: str, *args: object) -> None:
    """Run an entry script in this process, as `python src/<script> <args>` would."""
    before = sys.argv
    sys.argv = [script, *map(str, args)]
    try:
        runpy.run_path(str(SOURCE / script), run_name="__main__")
    finally:
        sys.argv = before


def start_interruptible(command: Sequence[object], **options: object) -> subprocess.Popen:
    """Start a program that SIGINT ends, with its output in a pipe.

    Tests in the background of a script ignore interrupts, and programs started there would too.
    """
    own = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True, **options)
    finally:
        signal.signal(signal.SIGINT, own)


def argmax_table(folds: pd.DataFrame, probabilities: np.ndarray, classes: dict[str, str]) -> pd.DataFrame:
    """A scored table whose predictions are the most probable classes."""
    labels = pd.Series(np.array(list(classes))[probabilities.argmax(1)], folds.index)
    return scored_table(folds, probabilities, classes, labels)


def leave_out_figures(patch: pytest.MonkeyPatch) -> None:
    """Leave out what takes two thirds of a toy run, figures and most simulated leaderboards; one whole run per module
    still has all of it.
    """
    for name in ("score_sections.save_figure", "score_sections.save_picture", "photo_sections.save_figure"):
        patch.setattr(f"trunkfold.report.{name}", lambda *_: "data:,")
    patch.setattr("trunkfold.output.outputs.draw_sheet", lambda *_, **__: b"")
    patch.setattr("trunkfold.evaluation.leaderboard.SIMULATIONS", 100)


@contextmanager
def in_new_folder(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """Work in a new folder, without figures: set-up of a run that several tests share."""
    folder = factory.mktemp(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        leave_out_figures(patch)
        yield folder


def refuse_writes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A folder on a disk that is mounted read-only, for those who may not mount."""
    real = tempfile.TemporaryFile

    def refuse(*args, dir, **options):
        if folder in (Path(dir), *Path(dir).parents):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(*args, dir=dir, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


def printed_commands(page: Path, heading: str = "") -> list[str]:
    """Commands in the sh blocks of a page, or of one section, that run this kit; `cp` is one too."""
    text = page.read_text()
    if heading:
        text = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    lines = [re.sub(r"^for .* do (.*) & done; wait$", r"\1", line).partition("   #")[0] for line in lines]
    return [line for line in lines if "src/" in line or line.startswith("cp ") and heading]
