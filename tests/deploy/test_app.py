"""The HTTP API predicts like the commands, and rejects invalid, oversized and foreign files."""

import http.client
import io
import json
import os
import re
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from served_app import LIMITS, PAGE, serve
from toys import SOURCE, png_of, run_command, start_interruptible

from trunkfold.assessment import Leak, LeakScores, PartScores
from trunkfold.data.photos import UnreadablePhotoError
from trunkfold.deploy.app import _heading
from trunkfold.deploy.finished import FinishedRun, load_run
from trunkfold.deploy.photo_service import PhotoService
from trunkfold.deploy.predict import predict_files
from trunkfold.html import probability
from trunkfold.run_folder import RunFolder

FILE = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def finished(workplace) -> FinishedRun:
    return load_run(RunFolder(workplace / "submissions/toy"))


def ask(server: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, object]:
    """Status and content of an answer."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    is_json = "json" in answer.headers["Content-Type"]
    return answer.status, json.loads(content) if is_json else content.decode()


def upload(server: str, content: bytes, name: str = "photo.jpg") -> tuple[int, object]:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return ask(server, "/gradio_api/upload", head + content + b"\r\n--x--\r\n", **kind)


def call(server: str, photo: object, endpoint: str = "predict") -> tuple[int, dict]:
    body = json.dumps({"data": [photo]}).encode()
    return ask(server, f"/gradio_api/run/{endpoint}", body, **{"Content-Type": "application/json"})


def predict(server: str, content: bytes) -> tuple[int, dict]:
    """Upload a photo and predict it."""
    status, (path,) = upload(server, content)
    assert status == 200
    return call(server, {"path": path, "meta": FILE})


def test_a_photo_gets_the_row_that_the_command_writes(server, service, photos):
    (row,) = predict_files(service.predictor, [photos / "91.png"])
    status, answer = predict(server, (photos / "91.png").read_bytes())
    (found,) = answer["data"]
    assert status == 200
    for key in ("label", "name", "unlike_training"):
        assert found[key] == row[key]
    assert found["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)
    assert found["confidence"] == pytest.approx(max(found["probabilities"].values()))


def test_the_endpoints_are_named_and_documented(server):
    status, info = ask(server, "/gradio_api/info")
    assert (status, set(info["named_endpoints"])) == (200, {"/predict", "/explain"})


def test_an_explanation_has_heat_and_the_nearest_training_photos_of_different_groups(service, run, photos):
    folds = pd.read_csv(run / "folds.csv", dtype=str)
    known = folds[folds["fold"] != "-1"].iloc[4]
    images = photos.parents[2] / "train/train/images"
    row, heat_map, similar = service.explain(images / known["filename"])
    assert heat_map.shape == (30, 40, 3)
    groups = similar["image_id"].map(folds.set_index("image_id")["group"])
    assert groups.iloc[0] == known["group"]
    assert len(groups) == groups.nunique() == 5
    assert "-1" not in set(similar["image_id"].map(folds.set_index("image_id")["fold"]))
    labels = similar["image_id"].map(folds.set_index("image_id")["label"])
    assert similar["name"].tolist() == labels.map(service.run.classes).tolist()
    assert similar["name"].iloc[0] == row["name"]
    shown = np.asarray(Image.fromarray(similar["pixels"].iloc[0]).resize((40, 30)), float)
    real = np.asarray(Image.open(images / similar["filename"].iloc[0]), float)
    assert np.abs(shown - real).mean() < np.abs(shown - real[:, ::-1]).mean() / 2


def test_photos_that_are_gone_and_runs_without_embeddings_leave_their_place_empty(service, photos, tmp_path):
    *_, gone = PhotoService(service.predictor, LIMITS, tmp_path).explain(photos / "91.png")
    assert gone["pixels"].tolist() == [None] * 5
    assert gone["filename"].iloc[0].endswith(".png")
    service.predictor.run = service.run = replace(service.run, known=None)
    row, _, similar = service.explain(photos / "91.png")
    assert (len(similar), row["unlike_training"]) == (0, None)


def test_an_inflated_score_is_called_so(service):
    assert "Macro F1" in _heading(service)
    assert "inflated" not in _heading(service)
    name = next(iter(service.run.metrics.by_set()))
    for set_name in ("oof", "holdout"):
        leak = replace(
            Leak(None, None), **{set_name: LeakScores(with_copies=PartScores(9, 0.5, 0.5), without_copies=None)}
        )
        run = replace(service.run, metrics=replace(service.run.metrics, leak=leak))
        assert ("inflated" in _heading(SimpleNamespace(run=run, limits=LIMITS))) == (set_name == name)


def test_a_photo_of_another_kind_is_flagged(server):
    noise = np.random.default_rng(0).random((60, 80, 1)).repeat(3, 2) < 0.5
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8) * 255).save(file, "PNG")
    assert predict(server, file.getvalue())[1]["data"][0]["unlike_training"] is True


REFUSED = {
    "a web page": (PAGE, r"not an image"),
    "nothing": (b"", r"not an image"),
    "half a JPEG": (b"\xff\xd8\xff\xe0" + bytes(50), r"."),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"not an image"),
    "a bomb": (png_of(30_000, 30_000), r"30000 x 30000 pixels exceed 1 million"),
    "half a PNG": (png_of(60, 60), r"."),
}


def test_what_is_no_photo_is_refused_and_the_next_photo_predicted(server, photos):
    for content, problem in REFUSED.values():
        status, found = predict(server, content)
        assert status == 500
        assert re.search(problem, found["error"])
        assert "/" not in found["error"]
    assert predict(server, (photos / "91.png").read_bytes())[0] == 200


def test_a_file_that_is_too_large_is_not_stored(server, tmp_path):
    status, problem = upload(server, bytes(LIMITS.bytes + 1))
    assert (status, problem) == (413, "File size exceeded maximum allowed size of 200000 bytes.")
    assert not [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]


def test_a_bomb_is_refused_before_it_is_decoded(service, tmp_path, monkeypatch):
    Image.new("1", (2000, 2000)).save(tmp_path / "bomb.png")  # 4 megapixels in 600 bytes
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    assert (tmp_path / "bomb.png").stat().st_size < 2000
    with pytest.raises(UnreadablePhotoError, match="2000 x 2000 pixels"):
        service.predict(tmp_path / "bomb.png")


def test_memory_that_is_full_is_said_without_the_path_of_the_upload(server, photos, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    status, found = predict(server, (photos / "91.png").read_bytes())
    assert status == 500
    assert re.search(r"lacks memory or file handles: try again later", found["error"])
    assert "/" not in found["error"]


@pytest.mark.parametrize("endpoint", ["predict", "explain"])
def test_other_files_of_this_machine_and_other_servers_are_not_read(server, photos, endpoint):
    """Gradio itself checks paths only where the request says that they are files."""
    for meta in ({"meta": FILE}, {}):
        for path in (str(photos / "91.png"), "https://example.org/a.jpg", "../91.png", ""):
            status, found = call(server, {"path": path, **meta}, endpoint)
            assert status >= 400, (path, meta)
            assert "probabilities" not in str(found)
    assert call(server, {"url": "data:image/png;base64,AAAA", "meta": FILE}, endpoint)[0] == 500
    address = {"path": "https://example.org/a.jpg", "meta": FILE}
    assert call(server, address, endpoint)[1]["error"] == "upload the photo: URLs are not downloaded"


def test_a_request_without_a_photo_is_one_message(server):
    status, found = call(server, None)
    assert (status, found["error"]) == (500, "upload a photo first")


def test_other_websites_are_refused_under_names_of_their_own(server):
    assert ask(server, "/", Host="evil.example")[0] == 400
    assert ask(server, "/", Host="127.0.0.1.evil.org")[0] == 400
    assert ask(server, "/")[0] == 200


def test_uploads_are_deleted_when_the_server_ends(service, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    for server in serve(service):
        assert predict(server, (photos / "91.png").read_bytes())[0] == 200
        assert [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]
    assert not [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.9994, "99.9 %"), (0.99951, "> 99.9 %"), (1, "> 99.9 %"), (0.0004, "< 0.1 %"), (0, "< 0.1 %"), (0.25, "25.0 %")],
)
def test_no_probability_is_certain(share, text):
    assert probability(share).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "gone"], r"gone is not a run"),
        ([], r"no finished run"),
        (["--max_megabytes", 0], r"--max_megabytes 0 must be above 0"),
        (["--max_megapixels", "nan"], r"--max_megapixels nan must be above 0"),
        (["--port", "web"], r"--port: invalid int value: 'web'"),
        (["--prot", 1], r"no option --prot; the nearest is --port"),
    ],
)
def test_bad_input_is_one_message(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused(message, capsys, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", 70_000], r"cannot listen on 127\.0\.0\.1, port 70000: choose another --host or --port"),
        (["--data.root", "gone"], r"data\.root gone is not a folder"),
    ],
)
def test_an_address_or_folder_that_is_not_there_is_one_message(run, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused(message, capsys, "--run", run, *words)


def test_a_port_that_is_taken_is_one_message(run, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(rf"cannot listen on 127\.0\.0\.1, port {port}: choose another", capsys, "--run", run, "--port", port)


def test_without_gradio_the_extra_is_named(run, capsys, monkeypatch):
    monkeypatch.setattr("trunkfold.output.provenance.package_version", lambda name: None)
    refused(r"the page needs gradio: pip install 'trunkfold\[app\]'", capsys, "--run", run)


def refused(message: str, capsys: pytest.CaptureFixture, *words: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command("serve_app.py", *words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert re.search(message, error), error
    assert "Traceback" not in error


@pytest.mark.slow
def test_the_command_serves_the_newest_run_on_this_machine_alone_until_it_is_interrupted(workplace, photos, tmp_path):
    command = [sys.executable, SOURCE / "serve_app.py"]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "uploads")}
    with start_interruptible(command, cwd=workplace, env=environment) as process:
        line = process.stdout.readline()
        server = re.match(r"(http://127\.0\.0\.1:\d+)/ predicts with submissions/toy", line)[1]
        assert predict(server, (photos / "91.png").read_bytes())[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert not [path for path in Path(tmp_path / "uploads").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_the_printed_python_client_predicts(server, photos):
    from gradio_client import Client, handle_file

    client = Client(server, verbose=False, analytics_enabled=False)
    assert client.predict(handle_file(photos / "91.png"), api_name="/predict")["name"] in (
        "crack",
        "dent",
        "lamp broken",
    )
