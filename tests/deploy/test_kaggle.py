"""The bundle holds what Kaggle takes; its prediction notebook needs no network and leaves its inputs alone."""

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
    assert "WEIGHTS = 'weights.safetensors'" in "".join(
        json.loads((tmp_path / "kaggle/train/train.ipynb").read_text())["cells"][0]["source"]
    )
    assert "kaggle competitions submit damage -k somebody/trunkfold-bundle-predict" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"--data OWNER/SLUG, or --competition SLUG"),
        (["--data", "a/b", "--competition", "c"], r"not both"),
        (["--data", "photos"], r"--data photos must be OWNER/SLUG"),
        (["--data", "a/b", "--name", "My Bundle"], r"--name My Bundle: Kaggle takes"),
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


@pytest.mark.slow
def test_the_prediction_notebook_runs_without_a_network(run, workplace, tmp_path):
    """In a virtual environment of its own, with the bundle's wheels in front of what is installed here."""
    nbclient = pytest.importorskip("nbclient", reason="executes the notebook")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    make(tmp_path / "kaggle", "--data", "owner/photos", "--run", run)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "here.pth").write_text("\n".join(here) + "\n")
    (packages / "sitecustomize.py").write_text(OFFLINE)
    inputs, working = tmp_path / "input", tmp_path / "working"
    shutil.copytree(tmp_path / "kaggle/dataset", inputs / "trunkfold-bundle")
    shutil.copytree(workplace / "input", inputs / "photos")
    working.mkdir()
    before = digest(inputs)
    kernel = tmp_path / "kernels/python3"
    kernel.mkdir(parents=True)
    command = [str(tmp_path / "venv/bin/python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "x", "language": "python"}))
    (tmp_path / "jupyter").mkdir()
    shutil.move(tmp_path / "kernels", tmp_path / "jupyter/kernels")
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PIP_FIND_LINKS")},
        **{"JUPYTER_PATH": str(tmp_path / "jupyter"), "KAGGLE_INPUT": str(inputs)},
        **{"KAGGLE_WORKING": str(working), "KAGGLE_TEMP": str(tmp_path / "temp")},
    }
    notebook = nbformat.read(tmp_path / "kaggle/predict/predict.ipynb", 4)
    client = nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", environment["JUPYTER_PATH"])
        client.execute(env=environment, cwd=str(tmp_path))
    assert list((packages / "cleanlab").glob("*.py"))
    assert digest(inputs) == before
    written = pd.read_csv(working / "submission.csv")
    pd.testing.assert_frame_equal(written, pd.read_csv(run / "submission.csv"))
