"""The README's commands are executed by a shell as printed, in a folder with toy data.

Stubs on the PATH replace programs that need a network or GPUs, record their arguments, and shorten training.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from toys import ROOT, start_interruptible

from trunkfold.deploy.kaggle import LACKING

README = (ROOT / "README.md").read_text()
BLOCKS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
TABLE = re.findall(r"^\| `(python src/[^`]+)` \|", README, re.MULTILINE)
# What makes a toy of a training: seconds instead of minutes.
TOY = "--data.image_size 32 --model.name test_convnext --model.weights null --model.pretrained false --split.folds 2"
TOY += " --train.batch_size 40 --train.epochs 1 --predict.views '[plain]'"
TRIALS = TOY.replace("--predict.views '[plain]'", "--tune.trials 1 --train.cached_views 1 --tune.space")
SEARCHED = "'{train.tail_lr: {low: 1.0e-4, high: 1.0e-2, log: true}}'"
PROGRAMS = {
    "python": f"""case "$1" in
  src/make_demo_data.py) exec {sys.executable} "$@" --photos 225 ;;
  src/train_folds.py) exec {sys.executable} "$@" {TOY} ;;
  src/tune.py) exec {sys.executable} "$@" {TRIALS} {SEARCHED} ;;
  *) exec {sys.executable} "$@" ;;
esac""",
    # One process: the launcher's options are for GPUs.
    "accelerate": 'while [ "${1#src/}" = "$1" ]; do shift; done; exec python "$@"',
    "pip": "",
    "pytest": "",
    "kaggle": "",
}


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout's folders with the toys that the README's placeholders name, and the programs."""
    (tmp_path / "bin").mkdir()
    for name, script in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/called\n{script}\n')
        program.chmod(0o755)
    (tmp_path / "wheels").mkdir()
    for name in LACKING:
        with zipfile.ZipFile(tmp_path / f"wheels/{name.replace('-', '_')}-99-py3-none-any.whl", "w") as wheel:
            folder = f"{name.replace('-', '_')}-99.dist-info"
            wheel.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 99\n")
            wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{folder}/RECORD", "")
    made = tmp_path / "checkout"
    for name in ("src", "configs"):
        shutil.copytree(ROOT / name, made / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", made)
    monkeypatch.chdir(made)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return made


def run(line: str, checkout: Path) -> None:
    """Execute a line in a shell. Kaggle's folders are below the test's."""
    line = line.replace("/kaggle/", f"{checkout.parent}/kaggle/").replace("/tmp/cache", f"{checkout.parent}/cache")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def serve(line: str) -> None:
    """Start a server, wait for its address, and interrupt it."""
    with start_interruptible(["bash", "-c", f"exec {line}"]) as process:
        try:
            assert re.match(r"http://127\.0\.0\.1:\d+/ predicts with ", process.stdout.readline())
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_command_of_the_readme_works_as_printed(checkout):
    demo, *_ = [line for line in BLOCKS if "make_demo_data.py" in line]
    run(demo, checkout)
    for place in ("DIR", "input/ripik-hackfest", checkout.parent / "kaggle/input/ripik-hackfest"):
        shutil.copytree("input/demo", place)
    (checkout / "configs/NAME.yaml").write_text("data: {root: DIR, classes: null}\n")
    shutil.copytree(next(Path("input/demo/test").rglob("images")), "PHOTOS...")
    for line in BLOCKS:
        if line != demo:
            run(line, checkout)
    for name in ("demo", "first", "vehicle_damage"):
        assert {path.name for path in Path("submissions", name).iterdir()} >= {"report.html", "submission.csv"}
    for line in TABLE:
        if "make_demo_data.py" in line:
            continue
        if "serve_app.py" in line:
            serve(line)
            continue
        if "make_kaggle_bundle.py" in line:
            shutil.rmtree("DIR")
            line = line.replace("NAME", "somebody").replace("OWNER/SLUG", "owner/photos")
        run(line, checkout)
    assert Path("submissions/comparison.html").exists()
    assert Path("submissions/tune/study.html").exists()
    assert Path("NAME-fp32.onnx").exists()
    assert Path("DIR/dataset/dataset-metadata.json").exists()


@pytest.mark.slow
def test_the_printed_installation_names_extras_that_exist(checkout):
    for line in BLOCKS:
        if line.startswith("pip"):
            run(line, checkout)
    called = (checkout.parent / "called").read_text().splitlines()
    assert called == ["pip install -e .", "pip install -e .", "pip install -e .[test]", "pytest "]
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, re.MULTILINE)
    named = re.findall(r"(?:extra `|\.\[)(\w+)", README)
    assert {"test", "app"} <= set(named) <= set(extras)


def test_every_command_of_the_readme_is_one_that_is_executed():
    """Nothing that the test above leaves out looks like a command."""
    executed = {*BLOCKS, *TABLE}
    inline = set(re.findall(r"`((?:python|pip|kaggle|accelerate launch) [^`]+)`", README)) - executed
    assert inline == {"accelerate launch --multi_gpu --num_processes N src/train_folds.py ..."}
    assert all(shlex.split(line)[0] in PROGRAMS for line in executed)
