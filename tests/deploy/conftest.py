"""A finished toy run, and its page, for all tests of this room."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from toys import in_new_folder, run_command, write_competition


@pytest.fixture(scope="package")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a toy competition and a run trained and submitted in it, not to be changed."""
    with in_new_folder(tmp_path_factory, "deploy") as folder:
        root = write_competition(folder / "input")
        options = {
            "data.root": root,
            "data.classes": "{1: crack, 2: dent, 3: lamp broken}",
            "data.image_size": 64,
            "model.name": "test_convnext",
            "model.pretrained": "false",
            "split.folds": 3,
            "split.groups": root / "groups.csv",
            "train.batch_size": 12,
            "train.epochs": 2,
            "train.tail_lr": 5e-3,
            "run.name": "toy",
        }
        run_command("train_folds.py", *(word for name, value in options.items() for word in (f"--{name}", value)))
        AcceleratorState._reset_state(reset_partial_state=True)
        run_command("make_submission.py")
    return folder


@pytest.fixture
def run(workplace: Path) -> Path:
    """The toy run."""
    return workplace / "submissions/toy"


@pytest.fixture
def photos(workplace: Path) -> Path:
    """The folder of its test photos."""
    return workplace / "input/test/test/images"


@pytest.fixture
def service(finished, workplace: Path, accelerator):
    """What the page asks: `finished`, a run that each test module loads, with the toy's training photos."""
    from served_app import LIMITS, PhotoService  # skips where gradio is missing

    from trunkfold.deploy.predict import Predictor

    return PhotoService(Predictor(finished, accelerator), LIMITS, workplace / "input/train/train/images")


@pytest.fixture
def server(service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of the page."""
    from served_app import serve

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    yield from serve(service)
