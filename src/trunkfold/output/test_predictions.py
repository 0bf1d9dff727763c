"""Prediction of the test photos with finished runs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from trunkfold.config.parsing import load_config
from trunkfold.config.rules import check_run_name
from trunkfold.config.schema import CacheConfig, Config
from trunkfold.data.pixel_cache import load_photos
from trunkfold.data.tables import Competition
from trunkfold.errors import InputError, first_few, raise_problems
from trunkfold.evaluation.consensus import average_groups, labels_of_copies
from trunkfold.evaluation.decoding import decode
from trunkfold.evaluation.error_analysis import read_placed, read_suspects
from trunkfold.evaluation.history import read_history
from trunkfold.evaluation.predictions import average, probabilities_of, probability_table, read_folds
from trunkfold.files import is_writable
from trunkfold.images.workers import worker_deaths_explained
from trunkfold.metrics import Consensus, CopyLabels, Metrics
from trunkfold.model.ensemble import load_ensemble, predict
from trunkfold.model.features import FeatureSource
from trunkfold.model.half_precision import on_device
from trunkfold.output.provenance import Stopwatch
from trunkfold.output.submission import check_test, make_submission
from trunkfold.run_folder import SUBMISSIONS, RunFolder
from trunkfold.split.dataset import class_prior, side_to_keep
from trunkfold.split.groups import groups_of, load_groups, read_run_groups

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SubmissionRun:
    """A finished run and the competition to predict, read and checked before prediction.

    Attributes:
        folder: Folder of the run, opened for writing if possible.
        config: Configuration, possibly with other folders for photos and cache.
        competition: Tables of the competition; test.csv lists the photos to predict.
        groups: Groups of its photos; None if they must be searched for again, as the photos have changed.
    """

    folder: RunFolder
    config: Config
    metrics: Metrics
    folds: pd.DataFrame
    competition: Competition
    groups: pd.DataFrame | None = None


@dataclass(frozen=True, eq=False)
class Predictions:
    """A run's predictions of the test photos.

    Attributes:
        table: image_id and probabilities.
        known: Label of each photo's labelled copies; missing if there are none.
        metrics: Metrics of the run, with the duration of the prediction and the effect of the consensus.
    """

    table: pd.DataFrame
    known: pd.Series
    metrics: Metrics


def read_runs(paths: Sequence[Path], root: Path | None, cache_dir: Path | None) -> list[SubmissionRun]:
    """Read and check finished runs and the test photos.

    Args:
        paths: Folders of the runs.
        root: Current folder of the photos; None uses the runs' data.root.
        cache_dir: Folder of all caches; None uses the runs' cache.dir.

    Raises:
        InputError: A run is an average, or a file is missing, damaged or inconsistent with another; one message lists
            the problems of all runs.
    """
    runs, problems, competitions = [], [], {}
    for path in paths:
        try:
            runs.append(_read_run(RunFolder(path, write=is_writable(path)), root, cache_dir, competitions))
        except InputError as error:
            problems.append(str(error))
    raise_problems(problems)
    return runs


def _read_run(
    folder: RunFolder, root: Path | None, cache_dir: Path | None, competitions: dict[Path, Competition]
) -> SubmissionRun:
    """Read a run for `read_runs`; `competitions` are those read before, by their folder."""
    metrics = folder.read_metrics()
    if metrics.runs:
        raise InputError(f"{folder} is an average of runs and has no weights: pass --run {' '.join(metrics.runs)}")
    config = read_run_config(folder, metrics)
    data, cache = replace(config.data, root=root or config.data.root), CacheConfig(cache_dir or config.cache.dir)
    config = replace(config, data=data, cache=cache)
    folds = read_folds(folder.folds, metrics.classes)
    # Users may have edited these files, which the report needs after prediction.
    read_suspects(folder, folds)
    read_history(folder)
    read_placed(folder, folds, metrics.classes)
    competition = competitions.get(data.root)
    if competition is None:
        competition = competitions[data.root] = Competition(data.root)
        check_test(competition, metrics.classes)
    groups = read_run_groups(folder.groups, metrics.search_key, config.split.groups, folds["image_id"], competition)
    return SubmissionRun(folder, config, metrics, folds, competition, groups)


def read_run_config(run: RunFolder, metrics: Metrics) -> Config:
    """Read the configuration of a trained run, and compare it with its metrics.

    Raises:
        InputError: The file was changed after training.
    """
    config = load_config(run.config)
    if {str(label): name for label, name in (config.data.classes or {}).items()} != metrics.classes:
        raise InputError(f"{run.config} and {run.metrics} have different classes: restore the file that was edited")
    if config.data.image_size is None:
        raise InputError(f"{run.config} has no data.image_size: restore the file that training wrote")
    if config.train.mixed_precision == "fp16" and not torch.cuda.is_available():  # trained on a GPU, used without one
        return replace(config, train=replace(config.train, mixed_precision="auto"))
    return config


def choose_output(runs: Sequence[SubmissionRun], name: str | None) -> RunFolder:
    """Choose the output folder and check that it is writable.

    Args:
        name: Name of a folder under submissions/; None uses the folder of a single writable run.

    Raises:
        InputError: The folder contains a training run or something else, or is not writable.
    """
    single = runs[0].folder if len(runs) == 1 else None
    if name is None and single and single.write:
        out = single
    else:
        name = name or (f"{single.name}-submission" if single else "+".join(run.folder.name for run in runs))
        check_run_name("--out", name)
        out = RunFolder(SUBMISSIONS / name, write=True)
        if out.is_trained:
            raise InputError(f"{out} contains a trained run: choose another --out")
        if foreign := out.foreign_files():
            raise InputError(f"{out} contains {first_few(foreign)}, which no submission has: choose another --out")
    out.check_writable("choose another --out, or free space")
    return out


def predict_test(run: SubmissionRun, accelerator: Accelerator) -> Predictions:
    """Predict the test photos with a run's ensemble; all processes take part."""
    config, classes, watch, test = run.config, run.metrics.classes, Stopwatch(), run.competition.test
    with watch("reading test photos"):
        photos = load_photos(test["path"], side_to_keep(config.data.image_size), config.cache.dir)
        groups = run.groups
        if groups is None:
            groups = load_groups(config.split.groups, run.competition, config.cache.dir)
    backbone, tails = load_ensemble(run.folder, config, len(classes))
    trunk, *tails = (on_device(accelerator, part) for part in (backbone.trunk, *tails))
    source = FeatureSource(accelerator, trunk, photos.pixels, config, tails[0])
    with watch("test prediction"), worker_deaths_explained():
        views = [source.batches(np.arange(len(test)), view, f"predicting, {view}") for view in config.predict.views]
        members = np.ones((len(test), len(tails)), bool)
        probabilities = average(predict(accelerator, tails, members, views), members)
    metrics = replace(run.metrics, seconds={**run.metrics.seconds, **watch.seconds})
    group_of_row = groups_of(test["image_id"], "test", groups)
    if config.predict.consensus:
        shared = group_of_row.to_numpy(copy=True)
        shared[list(photos.unreadable)] = ""  # predictions of black images must not affect their copies
        alone, probabilities = probabilities, average_groups(probabilities, shared)
        changed = int((alone.argmax(1) != probabilities.argmax(1)).sum())
        consensus = replace(metrics.consensus or Consensus(), test_labels_changed=changed)
        metrics = replace(metrics, consensus=consensus)
    if photos.unreadable:
        probabilities[list(photos.unreadable)] = class_prior(run.folds, classes)
        for message in photos.describe_unreadable(test["filename"]):
            logger.warning("%s; their predictions are replaced by class shares of labelled photos", message)
    labelled = run.folds.assign(group=groups_of(run.folds["image_id"], "train", groups))
    known = labels_of_copies(group_of_row, labelled)
    return Predictions(probability_table(test["image_id"], probabilities, classes), known, metrics)


def save_submission(run: SubmissionRun, predictions: Predictions, out: RunFolder, copy_labels: bool | None) -> None:
    """Decode, and write probabilities, submission and metrics.

    Args:
        run: The run, or the first of the averaged runs.
        copy_labels: Whether photos get the label of a labelled copy; None uses the run's configuration.
    """
    table, known, classes = predictions.table, predictions.known, run.metrics.classes
    numbers = decode(probabilities_of(table, classes), run.config.decode.metric, predictions.metrics.temperature)
    label = pd.Series(np.array(list(classes))[numbers], table.index)
    used = run.config.decode.copy_labels if copy_labels is None else copy_labels
    different = int((known.notna() & (known != label)).sum())
    labels = known.fillna(label) if used else label
    submission = make_submission(run.competition.test, table[["image_id"]].assign(prediction=labels), classes)
    metrics = replace(predictions.metrics, copy_labels=CopyLabels(used, int(known.notna().sum()), different))
    out.save(table, out.test_probabilities)
    out.save(submission, out.submission)
    out.save(metrics, out.metrics)
