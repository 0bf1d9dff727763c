"""Predict the test photos with a run's ensemble and write its submission; several runs are averaged.

python src/make_submission.py
python src/make_submission.py --run submissions/a submissions/b --weights 2 1
"""

import logging
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from trunkfold.blending import blend_runs
from trunkfold.competition import class_prior, load_unlabelled
from trunkfold.config import Config, Parser, load_config
from trunkfold.ensemble import FeatureSource, average_probabilities, load_ensemble
from trunkfold.errors import exit_on_input_error
from trunkfold.predictions import decode, probabilities_of, probability_table, read_predictions
from trunkfold.process import start_process
from trunkfold.report import summary, write_report
from trunkfold.runs import Stopwatch, newest_run, read_metrics, write_csv, write_json
from trunkfold.submission import check_submission, find_sample, make_submission
from trunkfold.table import read_text_table, read_unlabelled

logger = logging.getLogger("trunkfold")


def main() -> None:
    """Predict with each run, average them, check and write the submission, report."""
    options = parse_options()
    runs = options.run or [newest_run()]
    configs = [load_run_config(run, options.data.root) for run in runs]
    accelerator = start_process(configs[0].train)
    for run, config in zip(runs, configs, strict=True):
        predict_test(run, config, accelerator)

    if accelerator.is_main_process:
        run = runs[0] if len(runs) == 1 else blend_runs(runs, options.weights, options.name)
        write_submission(run, configs[0].data.root)
        write_report(run)
        print(f"\n{summary(run)}")
    accelerator.end_training()


def parse_options() -> Namespace:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, nargs="+", help="Folders of runs; by default the newest.")
    parser.add_argument("--weights", type=float, nargs="+", help="A weight for each run; by default equal ones.")
    parser.add_argument("--name", type=str, help="Folder name for the average of several runs; by default A+B.")
    parser.add_argument("--data.root", type=Path, help="Where the photos lie now; by default where they lay.")
    return parser.parse_args()


def load_run_config(run: Path, root: Path | None) -> Config:
    """The configuration of a finished run, perhaps with another folder of photos."""
    read_metrics(run)
    config = load_config(run / "config.yaml")
    return config if root is None else replace(config, data=replace(config.data, root=root))


def predict_test(run: Path, config: Config, accelerator: Accelerator) -> None:
    """Write test_probabilities.csv into a run's folder, and the seconds it took into its metrics.json."""
    classes = {str(label): name for label, name in config.data.classes.items()}
    watch, size = Stopwatch(), config.data.image_size
    with watch("reading test photos"):
        test, photos = load_unlabelled(config.data.root, size, accelerator.is_main_process)
    backbone, tails = load_ensemble(run, config, len(classes))
    source = FeatureSource(accelerator, backbone.trunk.to(accelerator.device), photos.pixels, config)
    with watch("test prediction"):
        rows = np.arange(len(test))
        views = [source.batches(rows, view, f"predicting, {view}") for view in config.predict.views]
        tails = [tail.to(accelerator.device) for tail in tails]
        all_tails = np.ones((len(test), len(tails)), bool)
        probabilities = average_probabilities(accelerator, tails, all_tails, views)
    if not accelerator.is_main_process:
        return
    if photos.unreadable:
        folds = read_text_table(run / "folds.csv", ["label", "fold"])
        probabilities[list(photos.unreadable)] = class_prior(folds, classes)
        for message in photos.describe_unreadable(test["filename"]):
            logger.warning("%s; they get the class shares of the hold-out instead of a prediction", message)
    write_csv(probability_table(test["image_id"], probabilities, classes), run / "test_probabilities.csv")
    metrics = read_metrics(run)
    metrics["seconds"].update(watch.seconds)
    write_json(metrics, run / "metrics.json")


def write_submission(run: Path, root: Path) -> None:
    """Decode test_probabilities.csv, check against the competition's files, and write submission.csv."""
    classes = read_metrics(run)["classes"]
    table = read_predictions(run / "test_probabilities.csv", classes)
    table["prediction"] = decode(probabilities_of(table, classes), classes)
    test = read_unlabelled(root, [])
    submission = make_submission(test, table)
    check_submission(submission, test, list(classes), find_sample(root))
    write_csv(submission, run / "submission.csv")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
