"""Export a finished run: the ensemble as one ONNX or torch.export file, or one model as a timm folder.

python src/export_model.py --format onnx
python src/export_model.py --run submissions/demo --format onnx --precision int8
"""

import logging
from argparse import Namespace
from pathlib import Path

from trunkfold.config.parsing import Parser
from trunkfold.deploy.comparison import export_torch
from trunkfold.deploy.finished import FinishedRun, load_run
from trunkfold.deploy.graph import exportable_views
from trunkfold.deploy.labelled import PlainPhotos, calibration_photos, held_out_photos
from trunkfold.deploy.timm_folder import export_timm
from trunkfold.errors import InputError, exit_on_input_error
from trunkfold.files import check_writable
from trunkfold.output.provenance import package_version
from trunkfold.report.index import write_index_after
from trunkfold.run_folder import add_run_options, chosen_run

logger = logging.getLogger("trunkfold")
CALIBRATED_ON = 128  # training photos that determine the ranges of int8 activations
NAMES = {"onnx": "{run}-{precision}.onnx", "torch": "{run}.pt2", "timm": "{run}-timm"}


def main() -> None:
    """Load the run and its held-out photos, export, and print a comparison with PyTorch."""
    options = parse_options()
    logging.basicConfig(format="%(levelname)s: %(message)s")
    check_options(options)
    run = load_run(chosen_run(options.run), options.root)
    out = options.out or Path(NAMES[options.format].format(run=run.folder.name, precision=options.precision))
    check_writable([out], "choose another --out")
    held_out = photos_to_measure_on(run, options.precision)
    print(f"{out}: {export(run, out, held_out, options)}")
    write_index_after(out)


def export(run: FinishedRun, out: Path, held_out: PlainPhotos | None, options: Namespace) -> str:
    """Write the file or folder, and return a one-line description of its accuracy."""
    if options.format == "timm":
        return export_timm(run, out, options.fold, held_out)
    views, left_out = exportable_views(run.config.predict.views)
    if left_out:
        logger.warning("views %s cannot be exported, as they need the original photo; exporting %s", left_out, views)
    if options.format == "torch":
        return export_torch(run, out, held_out).describe()
    from trunkfold.deploy.onnx_file import export_onnx  # needs the extra `export`

    int8 = options.precision == "int8"
    calibration = calibration_photos(run, CALIBRATED_ON) if int8 else None
    return export_onnx(run, out, options.precision, held_out, calibration, options.max_loss).describe()


def photos_to_measure_on(run: FinishedRun, precision: str) -> PlainPhotos | None:
    """Return the held-out photos; without any, None with a warning, or an error for precisions that need them."""
    try:
        return held_out_photos(run)
    except InputError as error:
        if precision != "fp32":
            raise InputError(f"{error}; --precision {precision} needs held-out photos to measure the loss") from error
        logger.warning("%s: comparing the export with PyTorch on noise, without a score", error)
        return None


def check_options(options: Namespace) -> None:
    """Raise an `InputError` for options of other formats and for missing packages."""
    if options.format != "onnx" and options.precision != "fp32":
        raise InputError(f"--precision {options.precision} requires --format onnx")
    if options.format != "timm" and options.fold is not None:
        raise InputError("--fold requires --format timm: the other formats contain the whole ensemble")
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if package_version(name) is None]
    if options.format == "onnx" and missing:
        raise InputError(f"--format onnx needs {', '.join(missing)}: pip install 'trunkfold[export]'")


def parse_options() -> Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    add_run_options(parser, labelled=True)
    parser.add_argument("--format", choices=("onnx", "torch", "timm"), default="onnx", help="Output format.")
    parser.add_argument("--out", type=Path, help="File, or folder for timm; by default named after the run.")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="Precision of the ONNX graph."
    )
    parser.add_argument(
        "--max_loss", type=float, default=0.01, help="Largest accepted loss of hold-out macro F1 with fp16 or int8."
    )
    parser.add_argument(
        "--fold", type=str, help="For timm: a fold's number, or average; by default chosen by hold-out macro F1."
    )
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_input_error():
        main()
