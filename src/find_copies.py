"""Find the photos of a competition that are copies of one source, before the folds are made.

python src/find_copies.py --data.root input/demo
"""

from pathlib import Path

from trunkfold.config.command_line import Parser
from trunkfold.config.schema import DataConfig
from trunkfold.copies.search import copies_folder, describe_copies, find_copies
from trunkfold.errors import exit_on_input_error


def main() -> None:
    """Search, and say what was found and where to look at it."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--data.root", type=Path, default=DataConfig.root, help="Folder that is searched for train.csv and test.csv."
    )
    parser.add_argument("--out", type=Path, help="Folder for groups.csv and copies.html; submissions/copies/<data>.")
    options = parser.parse_args()
    out = options.out or copies_folder(options.data.root)
    find_copies(options.data.root, out)
    print(describe_copies(out))


if __name__ == "__main__":
    with exit_on_input_error():
        main()
