"""Any photos are predicted like test photos; unreadable ones are reported in their row."""

import io
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from toys import run_command

from trunkfold.deploy.finished import load_run
from trunkfold.deploy.predict import Predictor, find_photos, predict_files
from trunkfold.deploy.prediction_files import write_rows
from trunkfold.errors import InputError
from trunkfold.model.features import through_trunk
from trunkfold.run_folder import RunFolder

P = ["p_crack", "p_dent", "p_lamp broken"]


def refused(message: str, capsys: pytest.CaptureFixture, *words: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command("predict_photos.py", *words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert re.search(message, error), error
    assert "Traceback" not in error


def test_photos_get_the_probabilities_of_the_submission(run, photos, tmp_path):
    out = tmp_path / "new/predictions.csv"
    run_command("predict_photos.py", photos, "--run", run, "--out", out)
    found = pd.read_csv(out, dtype={"label": str})
    found["image_id"] = found["path"].map(lambda path: int(Path(path).stem))
    alone = pd.read_csv(run / "test_probabilities.csv")  # the mean over the copies of each source
    groups = pd.read_csv(run / "groups.csv").set_index("image_id")["group"]
    temperature = json.loads((run / "metrics.json").read_text())["calibration"]["temperature"]
    powers = found[P] ** temperature  # before calibration
    raw = powers.div(powers.sum(axis=1), axis=0)
    mean = raw.groupby(found["image_id"].map(groups))[P].transform("mean")
    expected = alone.set_index("image_id").loc[found["image_id"], P]
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    best = found[P].to_numpy().argmax(1)
    assert found["label"].tolist() == [str(place + 1) for place in best]
    assert found["name"].tolist() == [P[place].removeprefix("p_") for place in best]
    assert found["problem"].isna().all()
    np.testing.assert_allclose(found["confidence"], found[P].max(axis=1), rtol=1e-6)
    assert not np.allclose(raw, found[P], atol=1e-3)


def test_csv_is_printed_by_default_and_the_newest_run_is_used(workplace, photos, capsys, monkeypatch):
    monkeypatch.chdir(workplace)
    run_command("predict_photos.py", photos / "91.png")
    header, row = capsys.readouterr().out.splitlines()
    assert header == "path,label,name,confidence,unlike_training,novelty,p_crack,p_dent,p_lamp broken,heatmap,problem"
    assert row.startswith(f"{photos / '91.png'},")


def test_predictions_below_submissions_update_the_page_of_all_runs(workplace, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(workplace / "submissions/toy", "submissions/toy")
    run_command("predict_photos.py", photos / "91.png", "--out", "submissions/toy/predictions.csv")
    assert "toy" in Path("submissions/index.html").read_text()


def test_unreadable_photos_have_a_row_that_says_so(run, photos, tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep/.hidden").mkdir(parents=True)
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html>not found</html>")
    shutil.copy(photos / "91.png", folder / "deep/käfer, rot.png")
    shutil.copy(photos / "91.png", folder / "deep/.hidden/no.png")
    (folder / "notes.txt").touch()
    run_command("predict_photos.py", folder, "--run", run, "--out", tmp_path / "found.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text(encoding="utf-8").splitlines()]
    names = {Path(row["path"]).name: row for row in rows}
    assert set(names) == {"empty.jpg", "page.jpg", "käfer, rot.png"}
    assert names["empty.jpg"]["problem"] == "empty (0 bytes)"
    assert names["page.jpg"]["problem"] == "not an image"
    assert names["page.jpg"]["label"] is names["page.jpg"]["probabilities"] is None
    good = names["käfer, rot.png"]
    assert good["problem"] is None
    assert sum(good["probabilities"].values()) == pytest.approx(1)
    assert good["probabilities"][good["name"]] == max(good["probabilities"].values())


def test_photos_of_another_kind_are_flagged(run, photos, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(np.full((30, 40, 3), (0, 120, 255)[number], np.uint8)).save(tmp_path / f"flat {number}.png")
    Image.fromarray((rng.random((30, 40, 1)) < 0.5).repeat(3, 2).astype(np.uint8) * 255).save(tmp_path / "noise.png")
    run_command("predict_photos.py", tmp_path, photos, "--run", run, "--out", tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    odd = found["path"].str.startswith(str(tmp_path))
    assert found.loc[odd, "unlike_training"].all()
    assert (~found.loc[~odd, "unlike_training"]).all()
    assert (found["unlike_training"] == (found["novelty"] > 1)).all()


def test_heat_maps_have_the_photos_shape_and_are_named_in_the_table(run, photos, tmp_path):
    words = [photos / "91.png", photos / "94.png", "--run", run, "--out", tmp_path / "out.csv"]
    run_command("predict_photos.py", *words, "--heatmaps", tmp_path / "heat")
    names = pd.read_csv(tmp_path / "out.csv")["heatmap"].tolist()
    assert names == ["000001-91.jpg", "000002-94.jpg"]
    assert sorted(path.name for path in (tmp_path / "heat").iterdir()) == names
    assert Image.open(tmp_path / "heat" / names[0]).size == (40, 30)


def test_heat_maps_of_photos_with_the_longest_names_are_written(run, photos, tmp_path):
    longest = tmp_path / f"x{'ä' * 125}.png"  # 255 bytes, which a cut by bytes divides within a letter
    shutil.copy(photos / "91.png", longest)
    words = [longest, "--run", run, "--out", tmp_path / "out.csv", "--heatmaps", tmp_path / "heat"]
    run_command("predict_photos.py", *words)
    (name,) = pd.read_csv(tmp_path / "out.csv")["heatmap"]
    assert name == f"000001-x{'ä' * 99}.jpg"
    assert (tmp_path / "heat" / name).is_file()


def test_a_run_without_embeddings_predicts_and_leaves_the_flag_empty(run, photos, tmp_path, caplog):
    old = shutil.copytree(run, tmp_path / "old")
    (old / "embeddings.safetensors").unlink()
    run_command("predict_photos.py", photos, "--run", old, "--out", tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["unlike_training"].isna().all()
    assert "no embeddings" in caplog.text


def test_files_folders_and_patterns_are_found_once_in_order(photos):
    every = find_photos([str(photos)])
    assert len(every) == 12
    assert find_photos([str(photos / "91.png"), str(photos / "9*.png"), str(photos)])[0] == photos / "91.png"
    assert set(find_photos([str(photos / "9*.png"), str(photos)])) == set(every)
    assert find_photos([str(photos.parent / "**/9[12].png")]) == [photos / "91.png", photos / "92.png"]


def test_a_name_with_brackets_is_a_file_not_a_pattern(tmp_path):
    (tmp_path / "photo [1].png").touch()
    assert find_photos([str(tmp_path / "photo [1].png")]) == [tmp_path / "photo [1].png"]


def test_words_that_name_nothing_are_all_named(tmp_path):
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=r"bare \(a folder without photos\).*gone.jpg \(not found.*x\*.jpg"):
        find_photos([str(tmp_path / "bare"), str(tmp_path / "gone.jpg"), str(tmp_path / "x*.jpg")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo.png", "--out", "table.txt"], r"--out table.txt must end in .csv or .jsonl"),
        (["photo.png", "--out", "photo.png/x/out.csv"], r"cannot write photo.png/x/out.csv .*: choose another --out"),
        (["photo.png", "--heatmaps", "photo.png"], r"cannot write photo.png/photo.jpg .*: choose another --heatmaps"),
        (["gone.png"], r"no photos in gone.png"),
        (["photo.png", "--run", "gone"], r"gone is not a run"),
        (["photo.png"], r"no finished run"),
        ([], r"photos"),
    ],
)
def test_bad_input_is_one_message(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("photo.png")
    refused(message, capsys, *words)
    assert os.listdir(tmp_path) == ["photo.png"]


def test_a_name_that_is_not_text_is_printed_as_it_is(monkeypatch):
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr("sys.stdout", printed)
    row = dict.fromkeys(["label", "name", "confidence", "unlike_training", "novelty", "probabilities", "heatmap"])
    write_rows([{"path": os.fsdecode(b"caf\xe9.png"), **row, "problem": "unreadable"}], ["crack"], None)
    printed.flush()
    assert b"caf\xe9.png,,,,,,,,unreadable" in printed.buffer.getvalue()


def test_damaged_embeddings_are_refused(run, photos, tmp_path, capsys):
    broken = shutil.copytree(run, tmp_path / "broken")
    (broken / "embeddings.safetensors").write_bytes(b"junk")
    refused(r"embeddings.safetensors is damaged", capsys, photos, "--run", broken)


def test_predictions_that_are_not_finite_are_refused(run, photos, tmp_path, capsys):
    """As NaN, they would be no valid JSON, and the first class the label of every photo."""
    broken = shutil.copytree(run, tmp_path / "broken")
    state = load_file(broken / "fold_0/tail.safetensors")
    state["head.fc.weight"].fill_(3e38)
    save_file(state, broken / "fold_0/tail.safetensors")
    message = r"the predictions of broken are not finite: set train.mixed_precision to no in its config.yaml"
    refused(message, capsys, photos, "--run", broken, "--out", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_photos_that_exceed_the_memory_together_are_predicted_in_pieces(run, accelerator, monkeypatch):
    predictor = Predictor(load_run(RunFolder(run)), accelerator)
    photos = list(np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), np.uint8))
    expected = predictor.predict(photos).probabilities

    def small_memory(accelerator: Accelerator, trunk: nn.Module, shown: torch.Tensor) -> torch.Tensor:
        if len(shown) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return through_trunk(accelerator, trunk, shown)

    monkeypatch.setattr("trunkfold.deploy.predict.through_trunk", small_memory)
    np.testing.assert_allclose(predictor.predict(photos).probabilities, expected, atol=1e-5)


def test_decoding_keeps_two_batches_at_most(tmp_path, monkeypatch):
    """The first row comes out when no more than this batch and the next were opened."""
    opened = []
    monkeypatch.setattr("trunkfold.deploy.predict._decode", lambda path, side: opened.append(path) or "unreadable")
    predictor = SimpleNamespace(batch_size=4, side=8)
    rows = predict_files(predictor, [tmp_path / str(number) for number in range(100)])
    assert next(rows)["problem"] == "unreadable"
    assert len(opened) <= 8
    assert len(list(rows)) == 99
