"""Predict the test photos with a run's ensemble and write its submission; several runs are averaged.

python src/make_submission.py
python src/make_submission.py --run submissions/a submissions/b --weights 2 1
"""

from argparse import Namespace
from pathlib import Path

from trunkfold.config.parsing import Parser
from trunkfold.errors import exit_on_input_error
from trunkfold.output.blending import save_submissions, weigh_runs
from trunkfold.output.test_predictions import choose_output, predict_test, read_runs
from trunkfold.report.console import summary
from trunkfold.report.contents import read_findings
from trunkfold.report.index import write_index
from trunkfold.report.page import write_report
from trunkfold.run_folder import chosen_run
from trunkfold.training.accelerator import end_processes, start_process


def main() -> None:
    """Read and check the runs, predict, average, decode, save and report."""
    options = parse_options()
    runs = read_runs(options.run or [chosen_run().path], options.root, options.cache)
    shares = weigh_runs(runs, options.weights)
    out = choose_output(runs, options.out)
    copy_labels = None if options.copy_labels is None else options.copy_labels == "true"
    predictions = []
    for run in runs:
        accelerator = start_process(run.config.train)  # in the run's own precision
        predictions.append(predict_test(run, accelerator))
    if accelerator.is_main_process:
        save_submissions(runs, predictions, shares, out, copy_labels)
        findings = read_findings(out)
        write_report(findings)
        write_index()
        print(f"\n{summary(out, findings.metrics, f'upload {out.submission}')}")
    end_processes(accelerator)


def parse_options() -> Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, nargs="+", help="Folders of runs; by default the newest.")
    parser.add_argument("--weights", type=float, nargs="+", help="One weight per run; by default equal.")
    parser.add_argument(
        "--out", type=str, help="Folder under submissions/ to write; by default the run's, or A+B for several runs."
    )
    parser.add_argument(
        "--data.root", dest="root", type=Path, help="Current folder of the photos; by default the run's data.root."
    )
    parser.add_argument("--cache.dir", dest="cache", type=Path, help="Folder for decoded photos; by default the run's.")
    parser.add_argument(
        "--decode.copy_labels",
        dest="copy_labels",
        choices=("true", "false"),
        help="Give test photos the label of their labelled copy (default: as in the run).",
    )
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_input_error():
        main()
