"""Write a Kaggle dataset and two notebooks that train and predict offline, and print the commands to push them.

python src/make_kaggle_bundle.py --user NAME --data sudhanshu2198/ripik-hackfest --run submissions/vehicle_damage
"""

from argparse import Namespace
from pathlib import Path

from trunkfold.config.parsing import Parser
from trunkfold.deploy.finished import load_run
from trunkfold.deploy.kaggle import Bundle, check_bundle, write_bundle
from trunkfold.errors import exit_on_input_error
from trunkfold.run_folder import RunFolder

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Check the names, the configuration and the run, write the bundle, and print the commands."""
    options = parse_options()
    bundle = Bundle(**vars(options))
    check_bundle(bundle)
    if bundle.run is not None:
        load_run(RunFolder(bundle.run))
    print(f"{bundle.out} is ready. Next (pip install kaggle):\n")
    print("\n".join(f"  {command}" for command in write_bundle(bundle, CHECKOUT)))


def parse_options() -> Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--user", type=str, required=True, help="Your Kaggle user name.")
    parser.add_argument("--data", type=str, help="Kaggle dataset with the photos: OWNER/SLUG.")
    parser.add_argument("--competition", type=str, help="Slug of a competition with the photos, instead of --data.")
    parser.add_argument("--run", type=Path, help="Finished run to predict with; by default the training notebook's.")
    parser.add_argument(
        "--config", type=Path, default=CHECKOUT / "configs/vehicle_damage.yaml", help="Configuration for training."
    )
    parser.add_argument("--weights", type=Path, help="Pretrained weights; by default training downloads them.")
    parser.add_argument("--out", type=Path, default=Path("kaggle"), help="Folder to write.")
    parser.add_argument("--name", type=str, default="trunkfold-bundle", help="Name on Kaggle.")
    parser.add_argument("--hours", type=float, default=11.0, help="Hours after which training saves and stops.")
    parser.add_argument("--resume", action="store_true", help="Resume from the training notebook's last output.")
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_input_error():
        main()
