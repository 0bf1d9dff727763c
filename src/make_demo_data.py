"""Draw a synthetic competition to try the kit with."""

from pathlib import Path

from jsonargparse import auto_cli

from trunkfold.config.command_line import Parser
from trunkfold.demo.competition import DemoOptions, make_demo
from trunkfold.errors import exit_on_input_error

DEFAULT_OUT = Path("input/demo")  # where configs/demo.yaml looks for it


def make_demo_data(
    photos: int = DemoOptions.photos,
    size: int = DemoOptions.size,
    out: Path = DEFAULT_OUT,
    seed: int = DemoOptions.seed,
) -> None:
    """Draw a synthetic competition to try the kit with: six kinds of damage on drawn cars, every photo there 3 times.

    Args:
        photos: Labelled and unlabelled photos together (3 : 2), rounded down to a multiple of 15; at least 45.
        size: Long side of a photo in pixels, 32 to 1024; the short one is three quarters of it.
        out: Folder to write, which must not exist yet.
        seed: Another seed draws another competition; the same one the same to the byte.
    """
    drawn = make_demo(out, DemoOptions(photos, size, seed))
    done = f"wrote {photos // 15 * 9} labelled and {photos // 15 * 6} unlabelled photos to {out}"
    elsewhere = "" if out == DEFAULT_OUT else f" --data.root {out}"
    print(
        f"{done if drawn else f'{out} already holds this demo competition, left as it is'}; next: "
        f"accelerate launch src/train_folds.py --config configs/demo.yaml{elsewhere}"
    )


if __name__ == "__main__":
    with exit_on_input_error():
        auto_cli(make_demo_data, parser_class=Parser)
