"""The demo competition: drawings in the original layout, with its class imbalance and three copies per source."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import checks for updates, slow when offline

import albumentations as A
import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from trunkfold.demo.canvas import ASPECT
from trunkfold.demo.damages import draw_photo
from trunkfold.errors import InputError
from trunkfold.files import whole_folder

COPIES = 3
COMPETITION_COUNTS = {1: 171, 2: 2349, 3: 534, 4: 2079, 5: 1185, 6: 882}
FEWEST_SOURCES = 8  # per class: one for each of five folds, and three for the hold-out
BATCH = 5 * COPIES  # photos of 3 labelled and 2 unlabelled sources, which keeps the ratio 3 : 2 exact
FEWEST_PHOTOS = 3 * BATCH  # 6 unlabelled sources, one per class


@dataclass(frozen=True)
class DemoOptions:
    """Options of make_demo_data.py, which determine every byte of a demo competition."""

    photos: int = 900
    size: int = 128
    seed: int = 0


def make_demo(out: Path, options: DemoOptions) -> bool:
    """Draw a demo competition and write it to `out`, in the layout of Kaggle's archive.

    In addition to the competition's files, it contains groups.csv (image_id, group) with the true groups of copies,
    and answer_key.csv (image_id, set, source, label), which the kit never reads.

    Returns:
        True if the competition was drawn, False if `out` already contains one drawn with the same options.

    Raises:
        InputError: An option is out of range, `out` exists and is something else, or it cannot be written.
    """
    _check(options)
    if out.exists():
        if _recorded_options(out) == asdict(options):
            return False
        raise InputError(f"{out} exists and is not this demo competition: delete it or choose another --out")
    table = plan_photos(options.photos, options.seed)
    with whole_folder(out) as partial:
        _write_tables(partial, table, options)
        _write_photos(partial, table, options)
    return True


def plan_photos(photos: int, seed: int) -> pd.DataFrame:
    """Plan source, label and set of each photo, before drawing.

    Returns:
        One row per photo, in the order of image_id (1, 2, ...; labelled photos first): image_id, filename, set ("train"
        or "test"), source, label, copy (0..2).
    """
    rng = np.random.default_rng([seed, 0])
    batches = photos // BATCH
    train = share_out(3 * batches, COMPETITION_COUNTS, min(FEWEST_SOURCES, 3 * batches // len(COMPETITION_COUNTS)))
    test = share_out(2 * batches, train, 1)
    # Numbered at random: in order of classes, the group numbers would reveal the labels.
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
    """Split `total` in proportion to `shares` by the largest-remainder method, with at least `fewest` per part."""
    exact = np.array(list(shares.values())) / sum(shares.values()) * total
    parts = np.maximum(np.floor(exact).astype(int), fewest)
    while (missing := total - parts.sum()) != 0:
        gap = exact - parts
        if missing < 0:  # raising parts to the minimum exceeded the total: reduce the other parts
            gap[parts <= fewest] = np.inf
        parts[np.argmax(gap) if missing > 0 else np.argmin(gap)] += np.sign(missing)
    return dict(zip(shares, parts.tolist(), strict=True))


def _check(options: DemoOptions) -> None:
    if options.photos < FEWEST_PHOTOS:
        raise InputError(
            f"--photos {options.photos} is too small: {len(COMPETITION_COUNTS)} classes with {COPIES} copies per "
            f"source, labelled and unlabelled, need at least {FEWEST_PHOTOS}"
        )
    if not 32 <= options.size <= 1024:
        raise InputError(f"--size {options.size} must be 32 to 1024 pixels: damage is invisible on smaller photos")
    if options.seed < 0:
        raise InputError(f"--seed {options.seed} must not be negative")


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
            # One random stream per source: a photo depends on seed and source only, not on earlier photos.
            rng = np.random.default_rng([options.seed, 1, source])
            drawn = draw_photo(label, round(2 * options.size / ASPECT), rng)  # twice the size, for crops and rotations
            for name, filename, copy in zip(copies["set"], copies["filename"], copies["copy"], strict=True):
                augment.set_random_seed(int(np.random.default_rng([options.seed, 2, source, copy]).integers(2**31)))
                pixels = cv2.cvtColor(augment(image=drawn)["image"], cv2.COLOR_RGB2BGR)
                _, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
                (root / name / name / "images" / filename).write_bytes(jpeg.tobytes())
                bar.update()


def _copier(size: int) -> A.Compose:
    """Return the augmentation that creates copies similar to those of the competition."""
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
