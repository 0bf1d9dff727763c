"""The demo competition: drawn cars in the competition's layout, with its imbalance and its three copies a source."""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for news, seconds when offline

import albumentations as A
import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from trunkfold.demo.canvas import ASPECT
from trunkfold.demo.damages import draw_photo
from trunkfold.errors import InputError

COPIES = 3
COMPETITION_COUNTS = {1: 171, 2: 2349, 3: 534, 4: 2079, 5: 1185, 6: 882}
FEWEST_SOURCES = 8  # a class needs one for each of five folds and some to hold out
BATCH = 5 * COPIES  # 3 labelled sources and 2 unlabelled ones: the least that keeps 3 : 2 exact
FEWEST_PHOTOS = 3 * BATCH  # 6 unlabelled sources, one per class


@dataclass(frozen=True)
class DemoOptions:
    """Options that determine every byte of a demo competition.

    Attributes:
        photos: Labelled and unlabelled photos together, 3 : 2; rounded down to a multiple of 15.
        size: Long side of a photo in pixels; the short one is three quarters of it.
        seed: Seed of everything that is drawn.
    """

    photos: int = 900
    size: int = 128
    seed: int = 0


def make_demo(out: Path, options: DemoOptions) -> bool:
    """Draw a demo competition and write it under `out`, in the layout that Kaggle unpacks.

    Beside the competition's own files there are groups.csv (image_id, group), which says what is a copy of what, and
    answer_key.csv (image_id, set, source, label), which nothing but a curious person should read.

    Returns:
        Whether it was drawn; False where `out` already holds a competition drawn with the same options.

    Raises:
        InputError: An option makes no sense, or `out` exists and is something else.
    """
    _check(options)
    if out.exists():
        if _recorded_options(out) == asdict(options):
            return False
        raise InputError(f"{out} exists and is not this demo competition: delete it or choose another --out")
    table = plan_photos(options.photos, options.seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write beside {out} ({error.strerror}): choose another --out") from error
    try:
        content = partial / "content"  # mkdtemp's own folder is for its owner's eyes only, and rename keeps that
        _write_tables(content, table, options)
        _write_photos(content, table, options)
        content.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def plan_photos(photos: int, seed: int) -> pd.DataFrame:
    """Decide what each photo shows, before anything is drawn.

    Returns:
        One row per photo, in the order of image_id (1, 2, ...; labelled photos first): image_id, filename, set ("train"
        or "test"), source, label, copy (0..2).
    """
    rng = np.random.default_rng([seed, 0])
    batches = photos // BATCH
    train = share_out(3 * batches, COMPETITION_COUNTS, min(FEWEST_SOURCES, 3 * batches // len(COMPETITION_COUNTS)))
    test = share_out(2 * batches, train, 1)
    # Numbered at random, not class by class, or a group's number would give the label away.
    numbers = iter(1 + rng.permutation(5 * batches))
    parts = []
    for name, counts in (("train", train), ("test", test)):
        labels = np.repeat(list(counts), list(counts.values()))
        part = pd.DataFrame({"set": name, "source": [next(numbers) for _ in labels], "label": labels})
        part = part.loc[part.index.repeat(COPIES)].assign(copy=np.tile(np.arange(COPIES), len(labels)))
        parts.append(part.iloc[rng.permutation(len(part))])
    table = pd.concat(parts, ignore_index=True)
    ids = table.index + 1
    table.insert(0, "image_id", ids)
    table.insert(1, "filename", ids.astype(str) + ".jpg")
    return table


def share_out(total: int, shares: dict[int, int], fewest: int) -> dict[int, int]:
    """Split `total` in proportion to `shares`, each part at least `fewest`; exact, by largest remainders."""
    exact = np.array(list(shares.values())) / sum(shares.values()) * total
    parts = np.maximum(np.floor(exact).astype(int), fewest)
    while (missing := total - parts.sum()) != 0:
        gap = exact - parts
        if missing < 0:  # the minimum was paid out of nothing: take it back where most is left
            gap[parts <= fewest] = np.inf
        parts[np.argmax(gap) if missing > 0 else np.argmin(gap)] += np.sign(missing)
    return dict(zip(shares, parts.tolist(), strict=True))


def _check(options: DemoOptions) -> None:
    if options.photos < FEWEST_PHOTOS:
        raise InputError(
            f"photos {options.photos} is too few: {len(COMPETITION_COUNTS)} classes with {COPIES} copies a source, "
            f"labelled and unlabelled, need at least {FEWEST_PHOTOS}"
        )
    if not 32 <= options.size <= 1024:
        raise InputError(f"size {options.size} must be 32 to 1024 pixels: on smaller photos no damage can be seen")
    if options.seed < 0:
        raise InputError(f"seed {options.seed} must not be negative")


def _recorded_options(out: Path) -> Any:
    try:
        return json.loads((out / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_tables(root: Path, table: pd.DataFrame, options: DemoOptions) -> None:
    train, test = table[table["set"] == "train"], table[table["set"] == "test"]
    files = {
        "train/train/train.csv": train[["image_id", "filename", "label"]],
        "test/test/test.csv": test[["image_id", "filename"]],
        "sample_submission.csv": test[["image_id"]].assign(label=2),
        "groups.csv": table[["image_id", "source"]].rename(columns={"source": "group"}),
        "answer_key.csv": table[["image_id", "set", "source", "label"]],
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content.to_csv(path, index=False, lineterminator="\n")
    (root / "demo.json").write_text(json.dumps(asdict(options)) + "\n", encoding="utf-8")


def _write_photos(root: Path, table: pd.DataFrame, options: DemoOptions) -> None:
    augment = _copier(options.size)
    for name in ("train", "test"):
        (root / name / name / "images").mkdir()
    with tqdm(total=len(table), desc="drawing", unit="photo") as bar:
        for (source, label), copies in table.groupby(["source", "label"]):
            # Streams of its own for each source: a photo depends on seed and number, not on what was drawn before.
            rng = np.random.default_rng([options.seed, 1, source])
            drawn = draw_photo(label, round(2 * options.size / ASPECT), rng)  # twice the size: room to crop and turn
            for name, filename, copy in zip(copies["set"], copies["filename"], copies["copy"], strict=True):
                augment.set_random_seed(int(np.random.default_rng([options.seed, 2, source, copy]).integers(2**31)))
                pixels = cv2.cvtColor(augment(image=drawn)["image"], cv2.COLOR_RGB2BGR)
                _, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
                (root / name / name / "images" / filename).write_bytes(jpeg.tobytes())
                bar.update()


def _copier(size: int) -> A.Compose:
    """Return the augmentation that makes copies of a source like those of the competition."""
    height = round(size / ASPECT)
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Rotate(limit=12, border_mode=cv2.BORDER_REFLECT_101, p=0.7),
            A.RandomResizedCrop(
                (height, size), scale=(0.8, 1), ratio=(0.95 * ASPECT, 1.05 * ASPECT), interpolation=cv2.INTER_AREA
            ),
            A.HueSaturationValue(hue_shift_limit=8, sat_shift_limit=20, val_shift_limit=8, p=0.7),
            A.RandomBrightnessContrast(brightness_limit=0.12, contrast_limit=0.12, p=0.7),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 0.7), p=0.3),
            A.GaussNoise(std_range=(0.005, 0.02), p=0.4),
            A.ImageCompression(quality_range=(45, 90), p=0.5),
        ]
    )
