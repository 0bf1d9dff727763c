"""Predict photos with a finished run, and write labels, calibrated probabilities and a novelty score to a table.

python src/predict_photos.py photos/ --out predictions.csv
python src/predict_photos.py --run submissions/demo --heatmaps heat 'photos/*.jpg' > predictions.csv
"""

import logging
import sys
from argparse import Namespace
from pathlib import Path

from trunkfold.config.parsing import Parser
from trunkfold.deploy.finished import load_run
from trunkfold.deploy.predict import Predictor, find_photos, predict_files
from trunkfold.deploy.prediction_files import check_output, write_rows
from trunkfold.errors import counted, exit_on_input_error
from trunkfold.files import check_writable
from trunkfold.report.index import write_index_after
from trunkfold.run_folder import add_run_options, chosen_run
from trunkfold.training.accelerator import start_process

logger = logging.getLogger("trunkfold")


def main() -> None:
    """Find the photos, load the run, predict, and write one row per photo."""
    options = parse_options()
    check_output(options.out)
    if options.heatmaps is not None:
        check_writable([options.heatmaps / "photo.jpg"], "choose another --heatmaps")
    paths = find_photos(options.photos)
    run = load_run(chosen_run(options.run))
    accelerator = start_process(run.config.train)
    if run.known is None:
        logger.warning("%s has no embeddings of its training photos: the column unlike_training is empty", run.folder)
    rows = predict_files(Predictor(run, accelerator), paths, options.heatmaps)
    unreadable = write_rows(rows, run.classes.values(), options.out)
    write_index_after(options.out, options.heatmaps)
    where = f" in {options.out}" if options.out else ""
    problems = f", {unreadable} of them unreadable (see the column problem)" if unreadable else ""
    print(f"{counted(len(paths), 'photo')}{where}{problems}", file=sys.stderr)


def parse_options() -> Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("photos", type=str, nargs="+", help="Photo files, folders, or quoted patterns.")
    add_run_options(parser)
    parser.add_argument("--out", type=Path, help="File ending in .csv or .jsonl; by default CSV is printed.")
    parser.add_argument("--heatmaps", type=Path, help="Folder for Grad-CAM heat maps.")
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_input_error():
        main()
