"""Compare finished runs with the same split: scores, paired differences, and whether they are distinguishable.

python src/compare_runs.py submissions/*
"""

from argparse import Namespace
from pathlib import Path

from trunkfold.config.parsing import Parser
from trunkfold.errors import InputError, exit_on_input_error
from trunkfold.files import check_writable, write_csv
from trunkfold.report.comparison import compare_runs, finished_runs, name_runs
from trunkfold.report.comparison_page import write_comparison
from trunkfold.report.console import describe_comparison
from trunkfold.report.index import write_index
from trunkfold.run_folder import SUBMISSIONS


def main() -> None:
    """Find the finished runs, compare them, print the table, and write it with its page."""
    options = parse_options()
    runs, others = finished_runs(options.runs)
    if options.out.suffix.lower() != ".csv":
        raise InputError(f"--out {options.out} must end in .csv")
    page = options.out.with_suffix(".html")
    check_writable([options.out, page], "choose another --out")
    comparison = compare_runs(runs)
    print(describe_comparison(comparison))
    if folders := [path.name for path in others if path.is_dir()]:
        print(f"skipped, not finished runs: {', '.join(folders)}")
    write_comparison(comparison, name_runs(runs), page)
    write_csv(comparison, options.out)
    write_index()
    print(f"files: {options.out}, {page}")


def parse_options() -> Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="Folders of runs; other files and folders are skipped.")
    parser.add_argument(
        "--out",
        type=Path,
        default=SUBMISSIONS / "comparison.csv",
        help="CSV file to write, next to an HTML page.",
    )
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_input_error():
        main()
