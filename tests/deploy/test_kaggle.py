"""The bundle meets Kaggle's rules; its notebooks work offline and with read-only inputs."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from toys import run_command

from trunkfold.deploy import kaggle

OFFLINE = """import socket
connect = socket.socket.connect
def local_only(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
        raise OSError(f"the network is blocked: {address}")
    return connect(self, address)
socket.socket.connect = local_only
"""


def make(out: Path, *words: object) -> None:
    run_command("make_kaggle_bundle.py", "--user", "somebody", "--out", out, *words)


@pytest.fixture
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kaggle, "_download_wheels", lambda folder: folder.mkdir())


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_bundle_is_what_kaggle_takes(run, tmp_path, no_wheels, capsys):
    out = tmp_path / "kaggle"
    make(out, "--data", "owner/photos", "--run", run)
    data = json.loads((out / "dataset/dataset-metadata.json").read_text())
    assert data == {"title": "trunkfold-bundle", "id": "somebody/trunkfold-bundle", "licenses": [{"name": "other"}]}
    kit = out / "dataset/kit"
    assert (kit / "src/train_folds.py").exists()
    assert (kit / "src/trunkfold/templates/report.html").exists()
    assert not list(out.rglob("__pycache__"))
    assert (out / "dataset/run/metrics.json").exists()
    for kind, internet in (("train", True), ("predict", False)):
        kernel = json.loads((out / kind / "kernel-metadata.json").read_text())
        assert kernel["enable_internet"] is internet
        assert kernel["dataset_sources"] == ["somebody/trunkfold-bundle", "owner/photos"]
        assert kernel["kernel_sources"] == kernel["competition_sources"] == []
        assert (out / kind / kernel["code_file"]).exists()
        for cell in json.loads((out / kind / kernel["code_file"]).read_text())["cells"]:
            compile("".join(cell["source"]), kind, "exec")
    printed = capsys.readouterr().out
    assert f"kaggle datasets create -p {out / 'dataset'}" in printed
    assert "--accelerator NvidiaTeslaT4" in printed


def test_without_a_run_prediction_takes_the_training_notebooks_output(run, tmp_path, no_wheels, capsys):
    (tmp_path / "timm.safetensors").touch()
    words = ("--competition", "damage", "--weights", tmp_path / "timm.safetensors", "--resume")
    make(tmp_path / "kaggle", *words)
    for kind in ("train", "predict"):
        kernel = json.loads((tmp_path / "kaggle" / kind / "kernel-metadata.json").read_text())
        assert kernel["kernel_sources"] == ["somebody/trunkfold-bundle-train"]
        assert kernel["competition_sources"] == ["damage"]
        assert kernel["enable_internet"] is False
    assert "FILES = {'model.weights': 'model.weights.safetensors'}" in "".join(
        json.loads((tmp_path / "kaggle/train/train.ipynb").read_text())["cells"][0]["source"]
    )
    assert "kaggle competitions submit damage -k somebody/trunkfold-bundle-predict" in capsys.readouterr().out


def test_files_that_the_configuration_names_are_bundled_and_passed(tmp_path, no_wheels):
    for name in ("labels.csv", "out.csv", "groups.csv"):
        (tmp_path / name).write_text(name)
    data = f"{{relabel: {tmp_path}/labels.csv, drop: {tmp_path}/out.csv}}"
    (tmp_path / "own.yaml").write_text(f"data: {data}\nsplit: {{groups: {tmp_path}/groups.csv}}")
    make(tmp_path / "kaggle", "--data", "owner/photos", "--config", tmp_path / "own.yaml")
    bundled = {"split.groups": "groups.csv", "data.relabel": "labels.csv", "data.drop": "out.csv"}
    for option, name in bundled.items():
        assert (tmp_path / f"kaggle/dataset/{option}.csv").read_text() == name
    parameters = {}
    exec("".join(json.loads((tmp_path / "kaggle/train/train.ipynb").read_text())["cells"][0]["source"]), parameters)
    assert parameters["FILES"] == {option: f"{option}.csv" for option in bundled}


@pytest.mark.parametrize(
    ("option", "fix"),
    [
        ("data: {drop: gone.csv}", "data.drop gone.csv is not a file.*correct the configuration"),
        ("model: {weights: package:some_weights}", "model.weights package:some_weights .*pass --weights with a file"),
    ],
)
def test_what_cannot_be_bundled_is_named(option, fix, tmp_path, no_wheels, capsys):
    (tmp_path / "own.yaml").write_text(option)
    with pytest.raises(SystemExit):
        make(tmp_path / "kaggle", "--data", "owner/photos", "--config", tmp_path / "own.yaml")
    assert re.search(fix, capsys.readouterr().err)


def test_weights_of_a_package_do_not_prevent_a_bundle_with_a_run(run, tmp_path, no_wheels, capsys):
    (tmp_path / "own.yaml").write_text("model: {weights: package:some_weights}")
    make(tmp_path / "kaggle", "--data", "owner/photos", "--config", tmp_path / "own.yaml", "--run", run)
    assert sorted(os.listdir(tmp_path / "kaggle")) == ["dataset", "predict"]
    assert "kaggle/train" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"--data OWNER/SLUG, or --competition SLUG"),
        (["--data", "a/b", "--competition", "c"], r"not both"),
        (["--data", "photos"], r"--data photos must be OWNER/SLUG"),
        (["--data", "a/b", "--name", "My Bundle"], r"--name My Bundle must be 6 to 42"),
        (["--data", "a/b", "--user", "Some Body"], r"--user Some Body is not a Kaggle user name"),
        (["--data", "a/b", "--hours", "0"], r"--hours 0.* must be above 0"),
        (["--data", "a/b", "--config", "gone.yaml"], r"--config gone.yaml is not a file"),
        (["--data", "a/b", "--weights", "gone.pth"], r"--weights gone.pth is not a file"),
        (["--data", "a/b", "--run", "gone"], r"gone is not a run"),
        (["--data", "a/b", "--out", "."], r"--out \. exists"),
    ],
)
def test_bad_input_is_one_message(words, message, tmp_path, monkeypatch, no_wheels, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        make(tmp_path / "kaggle", *words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert re.search(message, error), error
    assert not list(tmp_path.iterdir())


def test_wheels_that_cannot_be_had_are_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kaggle, "LACKING", ("trunkfold-no-such-package",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SystemExit):
        make(tmp_path / "kaggle", "--data", "a/b")
    assert "pip cannot download the wheels" in capsys.readouterr().err
    assert not (tmp_path / "kaggle").exists()


class Kaggle:
    """A machine like Kaggle's: a virtual environment whose own packages come from the bundle, and no network."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.inputs, self.working = folder, folder / "input", folder / "working"
        self.working.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        (self.packages,) = (folder / "venv/lib").glob("python*/site-packages")
        here = [path for path in sys.path if path.endswith("site-packages")]
        (self.packages / "here.pth").write_text("\n".join(here) + "\n")
        (self.packages / "sitecustomize.py").write_text(OFFLINE)
        command = [str(folder / "venv/bin/python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (folder / "jupyter/kernels/python3").mkdir(parents=True)
        kernel = json.dumps({"argv": command, "display_name": "Kaggle", "language": "python"})
        (folder / "jupyter/kernels/python3/kernel.json").write_text(kernel)

    def execute(self, notebook: Path) -> str:
        """Run a notebook, its working folder emptied before; everything it printed."""
        nbclient = pytest.importorskip("nbclient", reason="executes the notebook")
        nbformat = pytest.importorskip("nbformat")
        shutil.rmtree(self.working)
        self.working.mkdir()
        folders = {"KAGGLE_INPUT": self.inputs, "KAGGLE_WORKING": self.working, "KAGGLE_TEMP": self.folder / "temp"}
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PIP_FIND_LINKS")}
        environment |= {key: str(value) for key, value in folders.items()}
        cells = nbformat.read(notebook, 4)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JUPYTER_PATH", str(self.folder / "jupyter"))
            client = nbclient.NotebookClient(cells, timeout=240, kernel_name="python3")
            client.execute(env=environment, cwd=str(self.folder))
        return "".join(output.get("text", "") for cell in cells["cells"] for output in cell["outputs"])


@pytest.mark.slow
def test_the_prediction_notebook_runs_without_a_network(run, workplace, tmp_path):
    make(tmp_path / "kaggle", "--data", "owner/photos", "--run", run)
    machine = Kaggle(tmp_path / "machine")
    shutil.copytree(tmp_path / "kaggle/dataset", machine.inputs / "trunkfold-bundle")
    shutil.copytree(workplace / "input", machine.inputs / "photos")
    before = digest(machine.inputs)
    machine.execute(tmp_path / "kaggle/predict/predict.ipynb")
    assert list((machine.packages / "cleanlab").glob("*.py"))
    assert digest(machine.inputs) == before
    written = pd.read_csv(machine.working / "submission.csv")
    pd.testing.assert_frame_equal(written, pd.read_csv(run / "submission.csv"))


@pytest.mark.slow
def test_training_stops_in_time_resumes_and_its_output_is_predicted_with(run, workplace, tmp_path):
    """Three versions of two notebooks, none of which sees more than what the one before it saved."""
    machine = Kaggle(tmp_path / "machine")
    shutil.copytree(workplace / "input", machine.inputs / "photos")
    config = re.sub(r"(?m)^  (name: toy|groups: .*|root: .*)\n", "", (run / "config.yaml").read_text())
    (tmp_path / "toy.yaml").write_text(config)
    words = ("--data", "owner/photos", "--config", tmp_path / "toy.yaml")
    for hours, wanted in ((1e-9, "state.safetensors"), (11, "metrics.json")):
        shutil.rmtree(tmp_path / "kaggle", ignore_errors=True)
        shutil.rmtree(machine.inputs / "trunkfold-bundle", ignore_errors=True)
        make(tmp_path / "kaggle", *words, "--hours", hours, "--resume")
        shutil.copytree(tmp_path / "kaggle/dataset", machine.inputs / "trunkfold-bundle")
        machine.execute(tmp_path / "kaggle/train/train.ipynb")
        saved = machine.working / "submissions/trunkfold-bundle"
        assert (saved / wanted).exists()
        output = machine.inputs / "trunkfold-bundle-train"
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(machine.working, output)
    before = digest(machine.inputs)
    machine.execute(tmp_path / "kaggle/predict/predict.ipynb")
    assert digest(machine.inputs) == before
    test = pd.read_csv(workplace / "input/test/test/test.csv")
    assert pd.read_csv(machine.working / "submission.csv")["image_id"].tolist() == test["image_id"].tolist()
