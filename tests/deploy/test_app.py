"""The page and its HTTP API predict what the commands predict, and refuse what is no photo, too large or not asked by
this page."""

import base64
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from served_app import LIMITS, PAGE, serve
from toys import SOURCE, png_of, run_command

from trunkfold.deploy.app import AppServer, is_loopback
from trunkfold.deploy.finished import FinishedRun, load_run
from trunkfold.deploy.photo_service import PhotoService
from trunkfold.deploy.predict import Predictor, predict_files
from trunkfold.run_folder import RunFolder


@pytest.fixture(scope="module")
def finished(workplace) -> FinishedRun:
    return load_run(RunFolder(workplace / "submissions/toy"))


@pytest.fixture
def service(finished, workplace, accelerator) -> PhotoService:
    return PhotoService(Predictor(finished, accelerator), LIMITS, workplace / "input/train/train/images")


@pytest.fixture
def server(service) -> Iterator[AppServer]:
    yield from serve(service)


class Answer:
    """What a server says."""

    def __init__(self, server: AppServer, method: str, path: str, body: bytes | None = None, **headers: str) -> None:
        connection = http.client.HTTPConnection(*server.server_address, timeout=60)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()
        connection.close()

    @property
    def json(self) -> dict:
        return json.loads(self.body)


def predict(server: AppServer, body: bytes, path: str = "/api/predict", **headers: str) -> Answer:
    return Answer(server, "POST", path, body, **headers)


def picture(address: str) -> Image.Image:
    assert address.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_a_photo_gets_the_row_that_the_command_writes(server, photos):
    (row,) = predict_files(server.service.predictor, [photos / "91.png"])
    found = predict(server, (photos / "91.png").read_bytes())
    assert (found.status, found.headers["Content-Type"]) == (200, "application/json")
    for key in ("label", "name", "unlike_training"):
        assert found.json[key] == row[key]
    assert found.json["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)
    assert found.json["confidence"] == pytest.approx(row["confidence"], abs=1e-6)
    assert "heat_map" not in found.json


def test_an_explanation_has_heat_and_the_nearest_training_photos_of_different_groups(server, run, photos):
    folds = pd.read_csv(run / "folds.csv", dtype=str)
    known = folds[folds["fold"] != "-1"].iloc[4]
    content = (photos.parents[2] / "train/train/images" / known["filename"]).read_bytes()
    found = predict(server, content, "/api/explain").json
    assert picture(found["heat_map"]).size == (40, 30)
    similar = pd.DataFrame(found["similar"])
    groups = similar["image_id"].map(folds.set_index("image_id")["group"])
    assert groups.iloc[0] == known["group"]
    assert len(groups) == groups.nunique() == 5
    assert "-1" not in set(similar["image_id"].map(folds.set_index("image_id")["fold"]))
    assert similar["label"].tolist() == similar["image_id"].map(folds.set_index("image_id")["label"]).tolist()
    assert similar["name"].iloc[0] == found["name"]
    shown = np.asarray(picture(similar["photo"].iloc[0]).resize((40, 30)), float)
    real = np.asarray(Image.open(photos.parents[2] / "train/train/images" / similar["filename"].iloc[0]), float)
    assert np.abs(shown - real).mean() < np.abs(shown - real[:, ::-1]).mean() / 2


def test_photos_that_are_gone_and_runs_without_embeddings_leave_their_place_empty(service, photos, tmp_path):
    content = (photos / "91.png").read_bytes()
    gone = PhotoService(service.predictor, LIMITS, tmp_path).explain(content)
    assert [one["photo"] for one in gone["similar"]] == [None] * 5
    assert gone["similar"][0]["filename"].endswith(".png")
    service.predictor.run = service.run = replace(service.run, known=None)
    old = service.explain(content)
    assert old["similar"] is old["unlike_training"] is None


def test_a_photo_of_another_kind_is_flagged(server):
    noise = np.random.default_rng(0).random((60, 80, 1)).repeat(3, 2) < 0.5
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8) * 255).save(file, "PNG")
    assert predict(server, file.getvalue()).json["unlike_training"] is True


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (PAGE, 415, r"not an image"),
        (b"", 415, r"not an image"),
        (b"\xff\xd8\xff\xe0" + bytes(50), 415, r"."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, r"not an image"),
        (png_of(30_000, 30_000), 415, r"30000 x 30000 pixels are more than 1 million"),
        (png_of(60, 60), 415, r"."),
        (bytes(LIMITS.bytes + 1), 413, r"the file is larger than 0\.2 MB"),
        (bytes(20 * LIMITS.bytes), 413, r"larger"),
    ],
    ids=["a web page", "nothing", "half a JPEG", "EPS", "a bomb", "half a PNG", "a large file", "a very large file"],
)
@pytest.mark.parametrize("path", ["/api/predict", "/api/explain"])
def test_what_is_no_photo_or_too_large_is_refused_and_the_next_photo_predicted(
    server, photos, path, body, status, problem
):
    found = predict(server, body, path)
    assert found.status == status
    assert re.search(problem, found.json["problem"])
    assert predict(server, (photos / "91.png").read_bytes()).status == 200


def test_a_bomb_is_refused_before_it_is_decoded(server, monkeypatch):
    file = io.BytesIO()
    Image.new("1", (2000, 2000)).save(file, "PNG")  # 4 megapixels in 600 bytes
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    assert len(file.getvalue()) < 2000
    assert "2000 x 2000 pixels" in predict(server, file.getvalue()).json["problem"]


def raw(server: AppServer, text: str, end: bool = False) -> bytes:
    """Send bytes as they are; the first line of the answer."""
    with socket.create_connection(server.server_address, timeout=30) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode())
        if end:
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(1000).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("POST /api/predict HTTP/1.1\nHost: localhost\n\n", b"411"),
        ("POST /api/predict HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n0\n\n", b"411"),
        ("POST /api/predict HTTP/1.1\nHost: localhost\nContent-Length: 99999999999\n\n", b"413"),
        ("POST /api/predict HTTP/1.1\nHost: localhost\nContent-Length: -1\n\n", b"400"),
        ("POST /api/predict HTTP/1.1\nHost: localhost\nContent-Length: ²\n\n", b"400"),
        ("POST /api/predict HTTP/1.1\nHost: [\nContent-Length: 0\n\n", b"400"),
        ("GET / HTTP/1.1\n\n", b"403"),
        ("GET /../../etc/passwd HTTP/1.1\nHost: localhost\n\n", b"404"),
        ("DELETE / HTTP/1.1\nHost: localhost\n\n", b"501"),
        ("nonsense\n\n", b"400"),
    ],
)
def test_odd_requests_get_a_status(server, text, status):
    assert status in raw(server, text)


def test_an_upload_that_is_cut_off_is_refused(server):
    head = "POST /api/predict HTTP/1.1\nHost: localhost\nContent-Length: 1000\n\n<html>"
    assert b"415" in raw(server, head, end=True)


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "127.0.0.1.evil.org"}],
)
def test_other_websites_are_refused(server, photos, headers):
    found = predict(server, (photos / "91.png").read_bytes(), **headers)
    assert (found.status, found.json) == (403, {"problem": "requests of other websites are refused"})


def test_too_many_photos_at_once_are_asked_to_come_back(service, photos):
    for server in serve(service):
        for _ in range(8):
            assert server.places.acquire(blocking=False)
        assert predict(server, (photos / "91.png").read_bytes()).status == 503
        server.places.release()
        assert predict(server, (photos / "91.png").read_bytes()).status == 200


def test_the_page_and_the_facts_come_with_headers_that_keep_other_code_out(server):
    page = Answer(server, "GET", "/")
    assert page.status == 200
    nonce = re.search(r"script-src 'nonce-([\w-]{20,})'", page.headers["Content-Security-Policy"])[1]
    assert f'<script nonce="{nonce}">' in page.body.decode()
    assert nonce not in Answer(server, "GET", "/").body.decode()
    assert "toy" in page.body.decode()
    facts = Answer(server, "GET", "/api/run").json
    assert facts["classes"] == {"1": "crack", "2": "dent", "3": "lamp broken"}
    assert (facts["run"], facts["most_bytes"], facts["most_pixels"]) == ("toy", LIMITS.bytes, LIMITS.pixels)


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.8.0.1", True), ("::1", True), ("0.0.0.0", False), ("192.168.0.2", False), ("a", False)],
)
def test_loopback_is_told_from_other_addresses(host, local):
    assert is_loopback(host) == local


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
        (["--port", 70_000], r"cannot listen on 127\.0\.0\.1, port 70000 .*choose another --host or --port"),
        (["--host", "192.0.2.1"], r"cannot listen on 192\.0\.2\.1, port 7860 \(.+\): choose another"),
        (["--data.root", "gone"], r"data\.root gone is not a folder"),
    ],
)
def test_an_address_or_folder_that_is_not_there_is_one_message(run, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused(message, capsys, "--run", run, *words)


def test_a_port_that_is_taken_is_one_message(run, server, capsys):
    refused(r"cannot listen on 127\.0\.0\.1, port \d+ \(.*in use", capsys, "--run", run, "--port", server.server_port)


def refused(message: str, capsys: pytest.CaptureFixture, *words: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command("serve_app.py", *words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert re.search(message, error), error
    assert "Traceback" not in error


@pytest.mark.slow
def test_the_command_serves_the_newest_run_on_this_machine_alone_until_it_is_interrupted(workplace, photos):
    command = [sys.executable, SOURCE / "serve_app.py", "--port", "0"]
    with subprocess.Popen(command, cwd=workplace, stdout=subprocess.PIPE, text=True) as process:
        host, port = re.match(
            r"http://([\d.]+):(\d+)/ predicts with submissions/toy", process.stdout.readline()
        ).groups()
        assert host == "127.0.0.1"
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.request("POST", "/api/predict", (photos / "91.png").read_bytes())
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
