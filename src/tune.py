"""Search hyperparameters: many short training runs of all folds, on features computed once.

python src/tune.py --config configs/tune.yaml --trials 200

Rerun the same command to resume. Several processes share a study: on one machine through its folder, on several
machines through a database (--tune.storage).
"""

import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import optuna

from trunkfold.errors import InputError, exit_on_input_error
from trunkfold.files import locked_folder
from trunkfold.model.pretrained import local_model
from trunkfold.report.index import write_index
from trunkfold.run_folder import SUBMISSIONS
from trunkfold.split.dataset import Labelled, load_labelled
from trunkfold.training.accelerator import describe_device, start_process
from trunkfold.training.setup import complete, settle_normalization
from trunkfold.tuning.objective import Objective
from trunkfold.tuning.page import describe_trial, summary, write_page, write_results
from trunkfold.tuning.schema import TuningConfig, parse_tuning
from trunkfold.tuning.search_space import Space, read_space
from trunkfold.tuning.study import check_photos, finished_trials, open_study, work


def main() -> None:
    """Check the options, run the search, write the results."""
    options = parse_tuning(description=__doc__)
    config = replace(options, data=complete(options).data)  # other defaults depend on what trials search
    check_command(config)
    space = read_space(config)
    labelled = None
    if config.run.restart or not (SUBMISSIONS / config.run.name).exists():  # fail before its folder is made or replaced
        local_model(config.model)
        labelled = load_labelled(config)
    study, folder = open_study(config)
    if finished_trials(study) < config.tune.trials:
        search(study, folder, config, space, labelled or load_labelled(config))
    with locked_folder(folder, "--run.name"):  # all processes of a study finish at about the same time
        write_results(study, config, folder)
        write_page(study, folder)
        write_index()
    print(f"\n{summary(study, folder)}")


def check_command(config: TuningConfig) -> None:
    """Raise an `InputError` under a distributed launcher, or if trackers are configured.

    Processes share trials, not training steps, and trials are recorded in the study's folder only.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "tune.py does not run under a distributed launcher: start it with python, once per GPU "
            "(CUDA_VISIBLE_DEVICES); the processes share the study"
        )
    if config.run.trackers:
        raise InputError(
            "run.trackers: tune.py records trials in the study's folder and page only; pass --run.trackers '[]', "
            "and use trackers with train_folds.py"
        )


def search(study: optuna.Study, folder: Path, config: TuningConfig, space: Space, labelled: Labelled) -> None:
    """Run trials."""
    accelerator = start_process(config.train)
    print(labelled.describe(), f"on {describe_device(accelerator)}")
    check_photos(study, labelled)
    objective = Objective(settle_normalization(config, labelled), space, labelled, accelerator)

    def after_trial(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        print(describe_trial(study, trial), flush=True)
        write_results(study, config, folder)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # same as Ctrl-C
    try:
        objective.rehearse()
        logging.getLogger("trunkfold").setLevel(logging.ERROR)  # the rehearsal has logged all warnings
        work(study, folder, config, objective, after_trial)
    except KeyboardInterrupt:
        print(
            f"\ninterrupted with {finished_trials(study)} of {config.tune.trials} trials: "
            "rerun without --run.restart to resume"
        )
        sys.exit(130)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
