"""Find near-duplicates among the photos of a competition, before the folds are made.

python src/find_copies.py --data.root input/demo
python src/find_copies.py --data.root input/demo --links links.csv
"""

from pathlib import Path

from trunkfold.config.parsing import Parser
from trunkfold.config.schema import CacheConfig, DataConfig
from trunkfold.copies.search import copies_folder, describe_copies, find_copies
from trunkfold.data.tables import Competition
from trunkfold.errors import exit_on_input_error
from trunkfold.report.index import write_index


def main() -> None:
    """Search for copies and print what was found and where to review it."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--data.root",
        dest="root",
        type=Path,
        default=DataConfig.root,
        help="Folder searched for train.csv and test.csv (default: %(default)s).",
    )
    parser.add_argument(
        "--out", type=Path, help="Folder for groups.csv and copies.html (default: submissions/copies/<data>)."
    )
    parser.add_argument(
        "--links",
        type=Path,
        help="CSV file of pairs that you have compared (image_id_a, image_id_b, same); see copies.html.",
    )
    parser.add_argument(
        "--cache.dir",
        dest="cache",
        type=Path,
        default=CacheConfig.dir,
        help="Folder of descriptions and comparisons, which make later searches fast (default: %(default)s).",
    )
    options = parser.parse_args()
    out = options.out or copies_folder(options.root)
    find_copies(Competition(options.root), options.cache, out, options.links)
    write_index()
    print(describe_copies(out))


if __name__ == "__main__":
    with exit_on_input_error():
        main()
