"""The dataset of a run: validated tables, folds and decoded photos."""

import math
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from trunkfold.config.schema import Config
from trunkfold.copies.search import describe_certainty, search_key
from trunkfold.data.corrections import check_corrections_stay, correct_labels
from trunkfold.data.photos import missing_photos
from trunkfold.data.pixel_cache import CachedPhotos, load_photos
from trunkfold.data.tables import Competition, class_names, label_problems, table_problems
from trunkfold.errors import InputError, raise_problems
from trunkfold.split.folds import HELD_OUT, assign_folds, split_problems
from trunkfold.split.groups import SEARCHED, group_problems, groups_of, load_groups

MARGIN = 8 / 7  # photos are cached larger than the model's input, for crops: 256 pixels for 224


@dataclass(frozen=True)
class Labelled:
    """The labelled photos of a run.

    Attributes:
        table: One row per photo: image_id, filename, label, group, fold (-1: held out, -2: only trained on).
        classes: Name of each label, in the order of all tables and logits.
        pixels: uint8 (height, width, 3) by row.
        groups: image_id, set and group of all photos, including unlabelled ones if known.
        corrected: Number of photos of train.csv that were "dropped" and "relabelled".
        test_photos: Size of the test set; the number of labelled photos if unknown.
        search_key: Key of the search for copies that found the groups; None if they are from a file.
        certainty: Expected errors of that search in one sentence.
    """

    table: pd.DataFrame
    classes: dict[str, str]
    pixels: CachedPhotos
    groups: pd.DataFrame
    corrected: dict[str, int] = field(default_factory=dict)
    test_photos: int = 0
    search_key: str | None = None
    certainty: str = ""

    @property
    def key(self) -> str:
        """Identify pixels, labels, groups and folds."""
        table = self.table[["image_id", "label", "group", "fold"]].to_csv(index=False)
        return f"{self.pixels.key} {uuid.uuid5(uuid.NAMESPACE_OID, table).hex}"

    @property
    def targets(self) -> np.ndarray:
        """Class index of each row."""
        return self.table["label"].map({label: place for place, label in enumerate(self.classes)}).to_numpy()

    @property
    def fold_of_row(self) -> np.ndarray:
        """Fold of each row, -1 for held-out rows, -2 for rows that are only trained on."""
        return self.table["fold"].to_numpy()

    @property
    def rows_by_fold(self) -> np.ndarray:
        """All rows sorted by fold, so that a batch of features passes through few tails."""
        return np.argsort(self.fold_of_row, kind="stable")

    def describe(self) -> str:
        """Summarize the numbers of photos, groups and classes, and the split."""
        held_out, validating = (self.fold_of_row == HELD_OUT).sum(), (self.fold_of_row >= 0).sum()
        folds = self.fold_of_row.max() + 1
        single = f"{validating} for validation, the others for training"
        others = f"the others in {folds} folds" if folds > 1 else single
        corrected = [f"{count} {what}" for what, count in self.corrected.items() if count]
        return (
            f"{len(self.table)} photos in {self.table['group'].nunique()} groups, {len(self.classes)} classes: "
            + ", ".join([*corrected, f"{held_out} held out", others])
        )


def load_labelled(config: Config) -> Labelled:
    """Read train.csv and its photos, correct labels, find groups, and assign hold-out and folds.

    Args:
        config: Configuration with an image size.

    Raises:
        InputError: All problems with rows, photos, groups and classes, in one message.
    """
    check_corrections_stay(config)
    competition = Competition(config.data.root)
    table, corrected, problems = correct_labels(competition.train, config.data)
    problems = [*table_problems(competition.train, "train.csv"), *problems, *label_problems(table, config.data.classes)]
    searched = config.split.groups in SEARCHED
    if searched:  # the search takes minutes, so report problems that are cheap to find first
        raise_problems([*problems, *missing_photos(table["path"]).describe_unreadable(table["filename"])])
    groups = load_groups(config.split.groups, competition, config.cache.dir)
    table["group"] = groups_of(table["image_id"], "train", groups)
    problems += [*group_problems(table, config.split.groups), *split_problems(table, config.split)]
    photos = load_photos(table["path"], side_to_keep(config.data.image_size), config.cache.dir)
    raise_problems([*problems, *photos.describe_unreadable(table["filename"])])
    table["fold"] = assign_folds(table, config.split)
    return Labelled(
        table=table[["image_id", "filename", "label", "group", "fold"]],
        classes=class_names(table["label"], config.data.classes),
        pixels=photos.pixels,
        groups=groups,
        corrected=corrected,
        test_photos=_count_test_photos(competition, groups) or len(table),
        search_key=search_key(competition) if searched else None,
        certainty=describe_certainty(competition) if searched else "",
    )


def _count_test_photos(competition: Competition, groups: pd.DataFrame) -> int:
    found = int((groups["set"] == "test").sum())
    if not found:
        with suppress(InputError):  # an invalid test.csv is reported by make_submission.py and does not stop training
            return len(competition.test)
    return found


def side_to_keep(image_size: int) -> int:
    """Return the short side in pixels of decoded photos."""
    return math.ceil(image_size * MARGIN)


def class_prior(folds: pd.DataFrame, classes: Mapping[str, str]) -> np.ndarray:
    """Return the share of each class among the held-out photos, or all photos without a hold-out: shape (classes,)."""
    held_out = folds[folds["fold"].astype(int) == HELD_OUT]
    labels = (held_out if len(held_out) else folds)["label"]
    return labels.value_counts(normalize=True).reindex(list(classes), fill_value=0.0).to_numpy()
