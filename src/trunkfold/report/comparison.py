"""Comparison of runs, grouped by split: scores, and paired differences to the best run."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

from trunkfold.config.parsing import load_config
from trunkfold.config.schema import CacheConfig, Config, RunConfig
from trunkfold.errors import InputError, counted, first_few
from trunkfold.evaluation.predictions import read_folds, read_scored
from trunkfold.evaluation.scores import COVERAGE, paired_difference
from trunkfold.metrics import Metrics, Split
from trunkfold.run_folder import METRICS, RunFolder

DISTINCT, UNKNOWN = "distinguishable", "inconclusive"
NO_SPLIT = "blends of runs with different splits, which have no unbiased score"
TEST_PHASES = ("reading test photos", "test prediction")  # make_submission.py adds these to some runs only


@dataclass(frozen=True, eq=False)
class Run:
    """A run in a comparison.

    Attributes:
        numbers: Columns of the comparison that depend on this run alone.
        metrics: Its metrics.json; `leak` is set if copies of scored photos were in training.
        recipe: Configuration without name and seed; runs that share it differ only by chance. None if unknown.
        seed: Seed of the training; None if unknown.
        folds: label, group and fold by image_id; empty for a blend of several splits.
        predicted: Out-of-fold prediction by image_id; empty for a blend of several splits.
    """

    numbers: dict
    metrics: Metrics
    recipe: Config | None
    seed: int | None
    folds: pd.DataFrame
    predicted: pd.Series

    @property
    def split(self) -> tuple:
        """Key that is equal for runs whose scores can be compared."""
        return frozenset(self.metrics.classes.items()), frozenset(self.folds[["label", "fold"]].itertuples())


def finished_runs(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Split paths, such as those of a shell glob, into folders of finished runs and others, without duplicates.

    Raises:
        InputError: A path does not exist, or there is no finished run.
    """
    paths = list(dict.fromkeys(paths))
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist: pass folders of runs, such as submissions/*")
    runs = [path for path in paths if RunFolder(path).metrics.is_file()]
    if not runs:
        raise InputError(f"there is no finished run among {first_few(paths)}: pass folders that contain a {METRICS}")
    return runs, [path for path in paths if path not in runs]


def compare_runs(paths: Sequence[Path]) -> pd.DataFrame:
    """Compare finished runs, given by their folders, with each other if they share photos, labels and folds.

    Returns:
        One row per run, grouped by split (leak-free splits first, then leaky ones, then blends without a score) and
        sorted by out-of-fold macro F1. Columns: run, split (a number), options (description of the split), apart (how
        the split differs from the first one; may be ""), leak (whether copies of scored photos were in training),
        photos, oof_macro_f1, oof_low, oof_high, holdout_macro_f1, holdout_low, holdout_high, oof_accuracy, seconds
        (from loading the photos to the out-of-fold predictions), trainable (parameters per fold); relative to the best
        run of the split, difference (in out-of-fold macro F1), difference_low, difference_high (95 % interval, see
        `_against`) and outcome ("distinguishable" or "inconclusive"); seed_std is the standard deviation of runs that
        differ only in the seed.

    Raises:
        InputError: Files of a run are missing, damaged or inconsistent.
    """
    splits: dict[tuple, list[Run]] = {}
    for name, folder in name_runs(paths).items():
        run = _read_run(folder, name)
        splits.setdefault(run.split, []).append(run)
    for runs in splits.values():
        runs.sort(key=lambda run: -run.numbers.get("oof_macro_f1", 0))
    ordered = sorted(splits.values(), key=lambda runs: (runs[0].predicted.empty, any(run.metrics.leak for run in runs)))
    rows = []
    for number, runs in enumerate(ordered, start=1):
        best, leak, (std, degrees) = runs[0], any(run.metrics.leak for run in runs), _seed_std(runs)
        shared = {"split": number, "apart": _why_apart(best, ordered[0][0]), "leak": leak, "seed_std": std}
        # Half-width of the interval for the difference between two seeds.
        luck = 2**0.5 * std * t.ppf((1 + COVERAGE) / 2, degrees) if degrees else 0.0
        rows += [{**shared, **run.numbers, **({} if run is best else _against(run, best, luck))} for run in runs]
    columns = ["run", "split", "options", "apart", "leak", "photos"]
    columns += [f"{part}_{what}" for part in ("oof", "holdout") for what in ("macro_f1", "low", "high")]
    columns += ["oof_accuracy", "seconds", "trainable", "difference", "difference_low", "difference_high", "outcome"]
    columns += ["seed_std"]
    return pd.DataFrame(rows).reindex(columns=columns).astype({"photos": "Int64", "trainable": "Int64"})


def name_runs(paths: Sequence[Path]) -> dict[str, RunFolder]:
    """Map runs by folder name, or by path if several folders have the same name."""
    names = [path.absolute().name for path in paths]
    return {
        name if names.count(name) == 1 else str(path): RunFolder(path) for path, name in zip(paths, names, strict=True)
    }


def _seed_std(runs: Sequence[Run]) -> tuple[float, int]:
    """Return the standard deviation of out-of-fold macro F1 between seeds, pooled over recipes, and its degrees of
    freedom; runs that repeat a seed count once."""
    rows = [(str(run.recipe or number), run.seed, run.numbers.get("oof_macro_f1")) for number, run in enumerate(runs)]
    table = pd.DataFrame(rows, columns=["recipe", "seed", "score"]).drop_duplicates(["recipe", "seed"])
    scores, of_recipe = table["score"].astype(float), table["recipe"]
    degrees = len(scores) - of_recipe.nunique()
    if not degrees:
        return np.nan, degrees
    return float(np.sqrt(((scores - scores.groupby(of_recipe).transform("mean")) ** 2).sum() / degrees)), degrees


def _recipe(run: RunFolder) -> tuple[Config | None, int | None]:
    """Return the configuration without options that do not affect training, and the seed; None if it cannot be read."""
    with suppress(InputError):  # missing, or written by another version
        config = load_config(run.config)
        recipe = replace(config, run=RunConfig(), cache=CacheConfig(), train=replace(config.train, seed=0))
        return recipe, config.train.seed
    return None, None


def _read_run(run: RunFolder, name: str) -> Run:
    metrics = run.read_metrics()
    numbers = {"run": name, **_numbers(metrics)}
    if metrics.oof is None:
        nothing = pd.DataFrame(columns=["label", "group", "fold"])
        return Run(numbers, metrics, None, None, nothing, pd.Series(dtype=str))
    file = _folds_file(run, metrics)
    folds = read_folds(file, metrics.classes)
    oof = read_scored(run, "oof", folds, metrics.classes)
    if oof is None:
        raise InputError(f"{file} has no photo in a fold: restore the file that training wrote")
    folds = folds.set_index("image_id")
    predicted = oof.set_index("image_id")["prediction"].reindex(folds.index[folds["fold"] >= 0])
    return Run({"photos": len(folds), **numbers}, metrics, *_recipe(run), folds, predicted)


def _folds_file(run: RunFolder, metrics: Metrics) -> Path:
    """Return folds.csv of a run, or of a run that a blend averages: all of them share one split."""
    averaged = [Path(name) for name in metrics.runs]
    folders = [run.path, *averaged, *(run.path.parent / path.name for path in averaged)]
    found = next((path for path in (RunFolder(folder).folds for folder in folders) if path.exists()), None)
    if found is None and averaged:
        raise InputError(f"{run} is a blend of {first_few(averaged)}, none of which has a folds.csv: leave it out")
    return found or run.folds


def _numbers(metrics: Metrics) -> dict:
    """Return the columns read from metrics.json."""
    numbers = {"options": _in_words(metrics.split) if metrics.oof else NO_SPLIT}
    for part, scores in metrics.by_set().items():
        low, high = scores.intervals.macro_f1
        numbers |= {f"{part}_macro_f1": scores.macro_f1, f"{part}_low": low, f"{part}_high": high}
    if metrics.oof:
        numbers["oof_accuracy"] = metrics.oof.accuracy
    if metrics.seconds:
        numbers["seconds"] = sum(seconds for phase, seconds in metrics.seconds.items() if phase not in TEST_PHASES)
    if metrics.parameters:
        numbers["trainable"] = metrics.parameters.trainable
    return numbers


def _in_words(split: Split) -> str:
    by = "random by photo" if split.groups == "none" else f"by group ({split.groups})"
    share = split.holdout
    held_out = "no hold-out" if share == 0 else f"hold-out {share if share == 'legacy' else f'{share:.1%}'}"
    return f"{by}, {counted(split.folds, 'fold')}, {held_out}, seed {split.seed}"


def _against(run: Run, best: Run, luck: float) -> dict:
    """Return the paired difference to the best run; its interval includes seed variance where that is known."""
    if run.predicted.empty:
        return {}
    photos = best.folds.loc[best.predicted.index]
    predicted = run.predicted.loc[photos.index], best.predicted
    found = paired_difference(photos["label"], *predicted, photos["group"], list(best.metrics.classes))
    low = found["difference"] - float(np.hypot(found["difference"] - found["low"], luck))
    high = found["difference"] + float(np.hypot(found["high"] - found["difference"], luck))
    return {
        "difference": found["difference"],
        "difference_low": low,
        "difference_high": high,
        "outcome": DISTINCT if low > 0 or high < 0 else UNKNOWN,
    }


def _why_apart(run: Run, first: Run) -> str:
    """Describe how a split differs from the first one."""
    if run.predicted.empty:
        return NO_SPLIT
    if run.metrics.classes != first.metrics.classes:
        return "different classes"
    shared = run.folds.index.intersection(first.folds.index)
    others = len(run.folds) + len(first.folds) - 2 * len(shared)
    moved = {
        what: int((run.folds.loc[shared, what] != first.folds.loc[shared, what]).sum()) for what in ("label", "fold")
    }
    reasons = [f"{counted(others, 'photo')} in only one of them"] if others else []
    reasons += [f"different {what} for {counted(count, 'photo')}" for what, count in moved.items() if count]
    return ", ".join(reasons)
