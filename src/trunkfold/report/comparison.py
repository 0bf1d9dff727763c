"""Runs side by side, those of one split together, and whether each can be distinguished from the best."""

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
from trunkfold.evaluation.predictions import read_folds, read_predictions
from trunkfold.evaluation.scores import COVERAGE, paired_difference
from trunkfold.metrics import Metrics, Split
from trunkfold.run_folder import METRICS, RunFolder

DISTINCT, UNKNOWN = "distinguishable", "inconclusive"
NO_SPLIT = "blends of runs with different splits, for which no honest score exists"
TEST_PHASES = ("reading test photos", "test prediction")  # of make_submission.py, which not every run has seen


@dataclass(frozen=True, eq=False)
class Run:
    """The compared properties of a run.

    Attributes:
        numbers: Its own columns of the comparison.
        classes: Name of each label.
        leak: Whether copies of scored photos were in training.
        recipe: Its configuration without name and seed: runs with the same one differ by chance; None if not known.
        folds: label, group and fold by image_id; empty for a blend of several splits.
        predicted: The out-of-fold prediction by image_id; empty for such a blend.
    """

    numbers: dict
    classes: dict[str, str]
    leak: bool
    recipe: Config | None
    folds: pd.DataFrame
    predicted: pd.Series

    @property
    def split(self) -> tuple:
        """Equal for runs whose scores can be compared."""
        return frozenset(self.classes.items()), frozenset(self.folds[["label", "fold"]].itertuples())


def finished_runs(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The folders of finished runs among what a shell's glob gives, and the rest, each named once.

    Raises:
        InputError: A path does not exist, or there is no finished run.
    """
    paths = list(dict.fromkeys(paths))
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist: name folders of runs, such as submissions/*")
    runs = [path for path in paths if RunFolder(path).metrics.is_file()]
    if not runs:
        raise InputError(f"there is no finished run among {first_few(paths)}: name folders with a {METRICS}")
    return runs, [path for path in paths if path not in runs]


def compare_runs(paths: Sequence[Path]) -> pd.DataFrame:
    """Compare finished runs; only those with the same photos, labels and folds are compared with each other.

    Args:
        paths: Their folders.

    Returns:
        One row per run, split after split (honest ones first, then leaky ones, then blends without a score), the best
        out-of-fold macro F1 first: run, split (a number), options (of the split, in words), apart (why it is another
        split than the first; ""), leak (whether its scores measure memory), photos, oof_macro_f1, oof_low, oof_high,
        holdout_macro_f1, holdout_low, holdout_high, oof_accuracy, seconds (of the training, from the photos to the
        out-of-fold predictions), trainable (parameters of a fold); and against the best of the split difference
        (in out-of-fold macro F1), difference_low, difference_high (95 % interval, see `_against`) and outcome
        ("distinguishable" or "inconclusive"); seed_std is the standard deviation of runs that differ in the seed alone.

    Raises:
        InputError: A run's files are missing, damaged or contradict each other.
    """
    splits: dict[tuple, list[Run]] = {}
    for name, folder in name_runs(paths).items():
        run = _read_run(folder, name)
        splits.setdefault(run.split, []).append(run)
    for runs in splits.values():
        runs.sort(key=lambda run: -run.numbers.get("oof_macro_f1", 0))
    ordered = sorted(splits.values(), key=lambda runs: (runs[0].predicted.empty, any(run.leak for run in runs)))
    rows = []
    for number, runs in enumerate(ordered, start=1):
        best, leak, (std, degrees) = runs[0], any(run.leak for run in runs), _seed_std(runs)
        shared = {"split": number, "apart": _why_apart(best, ordered[0][0]), "leak": leak, "seed_std": std}
        luck = 2**0.5 * std * t.ppf((1 + COVERAGE) / 2, degrees) if degrees else 0.0  # of the difference of two runs
        rows += [{**shared, **run.numbers, **({} if run is best else _against(run, best, luck))} for run in runs]
    columns = ["run", "split", "options", "apart", "leak", "photos"]
    columns += [f"{part}_{what}" for part in ("oof", "holdout") for what in ("macro_f1", "low", "high")]
    columns += ["oof_accuracy", "seconds", "trainable", "difference", "difference_low", "difference_high", "outcome"]
    columns += ["seed_std"]
    return pd.DataFrame(rows).reindex(columns=columns).astype({"photos": "Int64", "trainable": "Int64"})


def name_runs(paths: Sequence[Path]) -> dict[str, RunFolder]:
    """Runs by the names of their folders, or by their paths where names repeat."""
    names = [path.absolute().name for path in paths]
    return {
        name if names.count(name) == 1 else str(path): RunFolder(path) for path, name in zip(paths, names, strict=True)
    }


def _seed_std(runs: Sequence[Run]) -> tuple[float, int]:
    """Standard deviation of the out-of-fold macro F1 of runs that differ in the seed alone, pooled over their recipes,
    and its degrees of freedom."""
    scores = pd.Series([run.numbers.get("oof_macro_f1") for run in runs], dtype=float)
    of_recipe = scores.groupby([str(run.recipe or number) for number, run in enumerate(runs)])
    degrees = len(scores) - of_recipe.ngroups
    return (
        float(np.sqrt(((scores - of_recipe.transform("mean")) ** 2).sum() / degrees)) if degrees else np.nan
    ), degrees


def _recipe(run: RunFolder) -> Config | None:
    """The configuration of a trained run without what does not describe the training."""
    if not run.config.exists():
        return None
    with suppress(InputError):  # of another version
        config = load_config(run.config)
        return replace(config, run=RunConfig(), cache=CacheConfig(), train=replace(config.train, seed=0))
    return None


def _read_run(run: RunFolder, name: str) -> Run:
    metrics = run.read_metrics()
    numbers, classes, leak = _numbers(metrics), metrics.classes, metrics.leak is not None
    if metrics.oof is None:
        nothing = pd.DataFrame(columns=["label", "group", "fold"])
        return Run({"run": name, **numbers}, classes, leak, None, nothing, pd.Series(dtype=str))
    path, file = run.predictions("oof"), _folds_file(run, metrics)
    folds = read_folds(file).set_index("image_id")
    oof = read_predictions(path, classes)
    if "prediction" not in oof or not oof["prediction"].isin(list(classes)).all():
        raise InputError(f"{path} is damaged: prediction is missing, or is not one of the labels")
    scored = folds.index[folds["fold"] >= 0]
    if len(scored) != len(oof) or not oof["image_id"].isin(scored).all():
        raise InputError(f"{path} and {file} are about different photos")
    predicted = oof.set_index("image_id")["prediction"].reindex(scored)
    return Run({"run": name, "photos": len(folds), **numbers}, classes, leak, _recipe(run), folds, predicted)


def _folds_file(run: RunFolder, metrics: Metrics) -> Path:
    """folds.csv of a run; that of a blend is in the folders of the runs that it averages, all of one split."""
    averaged = [Path(name) for name in metrics.runs]
    folders = [run.path, *averaged, *(run.path.parent / path.name for path in averaged)]
    found = next((path for path in (RunFolder(folder).folds for folder in folders) if path.exists()), None)
    if found is None and averaged:
        raise InputError(f"{run} is a blend of {first_few(averaged)}, none of which has its folds: leave it out")
    return found or run.folds


def _numbers(metrics: Metrics) -> dict:
    """The columns that metrics.json gives."""
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
    """The paired difference to the best run; its interval adds what another seed may change, where that is known."""
    if run.predicted.empty:
        return {}
    photos = best.predicted.index
    truth, groups = (best.folds.loc[photos, column] for column in ("label", "group"))
    labels = list(best.classes)
    found = paired_difference(truth, run.predicted.loc[photos], best.predicted, groups, labels)
    low = found["difference"] - float(np.hypot(found["difference"] - found["low"], luck))
    high = found["difference"] + float(np.hypot(found["high"] - found["difference"], luck))
    return {
        "difference": found["difference"],
        "difference_low": low,
        "difference_high": high,
        "outcome": DISTINCT if low > 0 or high < 0 else UNKNOWN,
    }


def _why_apart(run: Run, first: Run) -> str:
    """In which way a split is not the first one."""
    if run.predicted.empty:
        return NO_SPLIT
    if run.classes != first.classes:
        return "other classes"
    shared = run.folds.index.intersection(first.folds.index)
    others = len(run.folds) + len(first.folds) - 2 * len(shared)
    moved = {
        what: int((run.folds.loc[shared, what] != first.folds.loc[shared, what]).sum()) for what in ("label", "fold")
    }
    reasons = [f"{counted(others, 'photo')} in only one of them"] if others else []
    reasons += [f"another {what} of {counted(count, 'photo')}" for what, count in moved.items() if count]
    return ", ".join(reasons)
