"""Serve a web page and an HTTP API that predict photos with a finished run.

python src/serve_app.py
python src/serve_app.py --run submissions/demo --port 8000
"""

import logging
import signal
import time
from argparse import Namespace
from pathlib import Path

from trunkfold.config.parsing import Parser
from trunkfold.deploy.finished import FinishedRun, load_run
from trunkfold.deploy.labelled import images_folder
from trunkfold.deploy.photo_service import Limits, PhotoService
from trunkfold.deploy.predict import Predictor
from trunkfold.errors import InputError, exit_on_input_error
from trunkfold.output.provenance import package_version
from trunkfold.run_folder import add_run_options, chosen_run
from trunkfold.training.accelerator import start_process

logger = logging.getLogger("trunkfold")


def main() -> None:
    """Load the run and serve the page until interrupted."""
    options = parse_options()
    limits = limits_of(options)
    if package_version("gradio") is None:
        raise InputError("the page needs gradio: pip install 'trunkfold[app]'")
    run = load_run(chosen_run(options.run), options.root)
    predictor = Predictor(run, start_process(run.config.train))
    service = PhotoService(predictor, limits, training_photos(run, required=options.root is not None))
    from trunkfold.deploy.app import LOCAL, serving  # needs the extra `app`

    with serving(service, options.host, options.port) as address:
        if options.host not in LOCAL:
            logger.warning(
                "--host %s: the page has no password, and everyone who can reach this machine can use it", options.host
            )
        interrupted = catch_interrupt()
        print(f"{address} predicts with {run.folder} (Ctrl+C stops)", flush=True)
        while not interrupted:
            time.sleep(0.1)


def catch_interrupt() -> list[int]:
    """Return a list that Ctrl+C extends: a `KeyboardInterrupt` raised within a callback of a library can get lost."""
    received = []

    def note(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, signal.default_int_handler)  # a second one ends a shutdown that hangs

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as by a script's jobs
        signal.signal(signal.SIGINT, note)
    return received


def limits_of(options: Namespace) -> Limits:
    """Return the limits of uploads, or raise an `InputError` if one is not positive."""
    for name in ("max_megabytes", "max_megapixels"):
        if not getattr(options, name) > 0:
            raise InputError(f"--{name} {getattr(options, name):g} must be above 0")
    return Limits(round(1e6 * options.max_megabytes), round(1e6 * options.max_megapixels))


def training_photos(run: FinishedRun, required: bool) -> Path | None:
    """Return the folder of the labelled photos; None, with a warning, if it no longer exists and is not required."""
    try:
        return images_folder(run)
    except InputError as error:
        if required:
            raise
        logger.warning("%s: only the names of similar training photos are shown; pass --data.root DIR", error)
        return None


def parse_options() -> Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    add_run_options(parser, labelled=True)
    parser.add_argument(
        "--host", type=str, default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all interfaces."
    )
    parser.add_argument("--port", type=int, help="Port; by default the first free one from 7860.")
    parser.add_argument("--max_megabytes", type=float, default=20.0, help="Largest upload.")
    parser.add_argument("--max_megapixels", type=float, default=50.0, help="Largest photo, checked before decoding.")
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_input_error():
        main()
