"""Compare finished runs: the best first, those of one split together, and whether a difference is real.

python src/compare_runs.py submissions/*
"""

from argparse import Namespace
from pathlib import Path

from trunkfold.config.parsing import Parser
from trunkfold.errors import exit_on_input_error
from trunkfold.files import check_writable, write_csv
from trunkfold.report.comparison import compare_runs, finished_runs
from trunkfold.report.console import describe_comparison
from trunkfold.run_folder import SUBMISSIONS


def main() -> None:
    """Find the finished runs, compare them, print and write the table."""
    options = parse_options()
    runs, others = finished_runs(options.runs)
    check_writable([options.out], "choose another --out")
    comparison = compare_runs(runs)
    print(describe_comparison(comparison))
    if others:
        print(f"left out, because they are no finished runs: {', '.join(path.name for path in others)}")
    write_csv(comparison, options.out)
    print(f"table: {options.out}")


def parse_options() -> Namespace:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="Folders of runs; other files and folders are left out.")
    parser.add_argument("--out", type=Path, default=SUBMISSIONS / "comparison.csv", help="CSV file of the table.")
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_input_error():
        main()
