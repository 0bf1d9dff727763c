"""Draw a synthetic competition to try the kit with: cars with six kinds of damage, three copies of every photo."""

from pathlib import Path

from trunkfold.config.parsing import Parser
from trunkfold.demo.competition import DemoOptions, make_demo
from trunkfold.errors import exit_on_input_error

DEFAULT_OUT = Path("input/demo")  # where configs/demo.yaml looks for it


def main() -> None:
    """Draw the competition and print the command that trains on it."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--photos",
        type=int,
        default=DemoOptions.photos,
        help="Number of photos, labelled and unlabelled (3 : 2), rounded down to a multiple of 15; at least 45.",
    )
    parser.add_argument(
        "--size", type=int, default=DemoOptions.size, help="Long side of a photo in pixels, 32 to 1024 (4 : 3)."
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="New folder to write.")
    parser.add_argument("--seed", type=int, default=DemoOptions.seed, help="Random seed.")
    options = parser.parse_args()
    out, photos = options.out, options.photos
    drawn = make_demo(out, DemoOptions(photos, options.size, options.seed))
    done = f"wrote {photos // 15 * 9} labelled and {photos // 15 * 6} unlabelled photos to {out}"
    elsewhere = "" if out == DEFAULT_OUT else f" --data.root {out}"
    print(
        f"{done if drawn else f'{out} already contains this demo competition'}; next: "
        f"python src/train_folds.py --config configs/demo.yaml{elsewhere}"
    )


if __name__ == "__main__":
    with exit_on_input_error():
        main()
