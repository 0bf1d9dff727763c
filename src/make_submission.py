"""Predict the test photos with a run's ensemble and write its submission; several runs are averaged.

python src/make_submission.py
python src/make_submission.py --run submissions/a submissions/b --weights 2 1
"""

import logging
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import Accelerator

from trunkfold.config.parsing import Parser, load_config
from trunkfold.config.schema import CacheConfig, Config
from trunkfold.data.tables import read_unlabelled
from trunkfold.errors import InputError, exit_on_input_error
from trunkfold.evaluation.consensus import average_groups, labels_of_copies
from trunkfold.evaluation.decoding import decode
from trunkfold.evaluation.predictions import (
    average,
    probabilities_of,
    probability_table,
    read_folds,
    read_predictions,
)
from trunkfold.files import write_csv, write_json
from trunkfold.images.workers import worker_deaths_explained
from trunkfold.model.ensemble import load_ensemble, predict
from trunkfold.model.features import FeatureSource
from trunkfold.output.blending import blend_runs, check_blend
from trunkfold.output.submission import check_submission, find_sample, make_submission, read_test
from trunkfold.report.console import summary
from trunkfold.report.page import write_report
from trunkfold.runs import Stopwatch, newest_run, read_metrics
from trunkfold.split.dataset import class_prior, load_unlabelled
from trunkfold.split.groups import groups_of, load_run_groups
from trunkfold.training.accelerator import start_process

logger = logging.getLogger("trunkfold")


def main() -> None:
    """Predict with each run, average them, check and write the submission, report."""
    options = parse_options()
    runs = options.run or [newest_run()]
    configs = [load_run_config(run, options.root, options.cache) for run in runs]
    check(runs, configs, options)
    accelerator = start_process(configs[0].train)
    for run, config in zip(runs, configs, strict=True):
        predict_test(run, config, accelerator)

    if accelerator.is_main_process:
        run = runs[0] if len(runs) == 1 else blend_runs(runs, options.weights, options.name, configs[0].decode.metric)
        copy_labels = configs[0].decode.copy_labels if options.copy_labels is None else options.copy_labels == "true"
        write_submission(run, runs[0], configs[0], copy_labels)
        write_report(run)
        print(f"\n{summary(run)}")
    accelerator.end_training()


def parse_options() -> Namespace:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, nargs="+", help="Folders of runs; by default the newest.")
    parser.add_argument("--weights", type=float, nargs="+", help="A weight for each run; by default equal ones.")
    parser.add_argument("--name", type=str, help="Folder name for the average of several runs; by default A+B.")
    parser.add_argument("--data.root", dest="root", type=Path, help="Folder of the photos, if it has moved since.")
    parser.add_argument("--cache.dir", dest="cache", type=Path, help="Folder for decoded photos (default: the run's).")
    parser.add_argument(
        "--decode.copy_labels",
        dest="copy_labels",
        choices=("true", "false"),
        help="Give test photos the label of their labelled copy (default: as in the run).",
    )
    return parser.parse_args()


def check(runs: list[Path], configs: list[Config], options: Namespace) -> None:
    """Raise an `InputError` for what can be known to be wrong before anything is predicted."""
    if len(runs) > 1:
        check_blend(runs, options.weights, options.name)
    elif options.weights is not None or options.name is not None:
        raise InputError("--weights and --name are for the average of several runs: name them after --run")
    for run, config in zip(runs, configs, strict=True):
        read_folds(run / "folds.csv")
        read_test(config.data.root, read_metrics(run)["classes"])


def load_run_config(run: Path, root: Path | None, cache_dir: Path | None) -> Config:
    """The configuration of a finished run, perhaps with other folders for the photos and their cache."""
    metrics = read_metrics(run)
    if "runs" in metrics:
        raise InputError(f"{run} is an average of runs: name those after --run")
    config = load_config(run / "config.yaml")
    if {str(label): name for label, name in (config.data.classes or {}).items()} != metrics["classes"]:
        raise InputError(f"{run}: config.yaml has other data.classes than metrics.json: was one of them changed?")
    if config.data.image_size is None:
        raise InputError(f"{run / 'config.yaml'} has no data.image_size: it is not the one that the training wrote")
    data, cache = replace(config.data, root=root or config.data.root), CacheConfig(cache_dir or config.cache.dir)
    return replace(config, data=data, cache=cache)


def predict_test(run: Path, config: Config, accelerator: Accelerator) -> None:
    """Write test_probabilities.csv into a run's folder, and the seconds it took into its metrics.json."""
    classes = {str(label): name for label, name in config.data.classes.items()}
    watch = Stopwatch()
    with watch("reading test photos"):
        test, photos = load_unlabelled(config)
        groups = load_run_groups(run, config.split.groups, config.data.root)
    backbone, tails = load_ensemble(run, config, len(classes))
    trunk, tails = backbone.trunk.to(accelerator.device), [tail.to(accelerator.device) for tail in tails]
    source = FeatureSource(accelerator, trunk, photos.pixels, config, tails[0])
    with watch("test prediction"), worker_deaths_explained():
        rows = np.arange(len(test))
        views = [source.batches(rows, view, f"predicting, {view}") for view in config.predict.views]
        all_tails = np.ones((len(test), len(tails)), bool)
        probabilities = average(predict(accelerator, tails, all_tails, views), all_tails)
    if not accelerator.is_main_process:
        return
    metrics = read_metrics(run)
    if config.predict.consensus:
        group_of_row = groups_of(test["image_id"], "test", groups).to_numpy(copy=True)
        group_of_row[list(photos.unreadable)] = ""  # what was predicted of them is of a black picture
        alone, probabilities = probabilities, average_groups(probabilities, group_of_row)
        changed = int((alone.argmax(1) != probabilities.argmax(1)).sum())
        metrics["consensus"] = {**(metrics.get("consensus") or {}), "test_labels_changed": changed}
    if photos.unreadable:
        folds = read_folds(run / "folds.csv")
        probabilities[list(photos.unreadable)] = class_prior(folds, classes)
        for message in photos.describe_unreadable(test["filename"]):
            logger.warning("%s; they get the class shares of the hold-out instead of a prediction", message)
    write_csv(probability_table(test["image_id"], probabilities, classes), run / "test_probabilities.csv")
    metrics["seconds"] = {**metrics.get("seconds", {}), **watch.seconds}
    write_json(metrics, run / "metrics.json")


def write_submission(run: Path, trained: Path, config: Config, copy_labels: bool) -> None:
    """Decode test_probabilities.csv, check against the competition's files, and write submission.csv.

    Args:
        run: Whose probabilities.
        trained: A run that was trained: `run`, or the first of those that it averages.
        config: Its configuration.
        copy_labels: Whether photos take the label of a labelled copy.
    """
    metrics = read_metrics(run)
    classes = metrics["classes"]
    table = read_predictions(run / "test_probabilities.csv", classes)
    calibration = metrics.get("calibration") or {"temperature": 1.0}  # unknown of runs with different splits
    numbers = decode(probabilities_of(table, classes), config.decode.metric, calibration["temperature"])
    table["prediction"] = np.array(list(classes))[numbers]
    known = known_labels(table["image_id"], trained, config)
    metrics["copy_labels"] = {
        "used": copy_labels,
        "photos": int(known.notna().sum()),
        "different": int((known.notna() & (known != table["prediction"])).sum()),
    }
    if copy_labels:
        table["prediction"] = known.fillna(table["prediction"])
    test = read_unlabelled(config.data.root, [])
    submission = make_submission(test, table)
    check_submission(submission, test, list(classes), find_sample(config.data.root))
    write_csv(submission, run / "submission.csv")
    write_json(metrics, run / "metrics.json")


def known_labels(test_ids: pd.Series, run: Path, config: Config) -> pd.Series:
    """Label of each test photo's labelled copies, missing where there are none."""
    groups = load_run_groups(run, config.split.groups, config.data.root)
    folds = read_folds(run / "folds.csv")
    folds["group"] = groups_of(folds["image_id"], "train", groups)
    return labels_of_copies(groups_of(test_ids, "test", groups), folds)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
