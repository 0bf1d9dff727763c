"""What somebody sees who drops a photo on the page, in a real browser without a network."""

import re
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from served_app import LIMITS, PAGE, serve
from toys import png_of

from trunkfold.deploy.app import AppServer
from trunkfold.deploy.finished import FinishedRun, load_run
from trunkfold.deploy.photo_service import PhotoService
from trunkfold.deploy.predict import Predictor
from trunkfold.run_folder import RunFolder

pytestmark = pytest.mark.slow
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def finished(workplace, tmp_path_factory) -> FinishedRun:
    """A run whose first class is named like markup."""
    run = shutil.copytree(workplace / "submissions/toy", tmp_path_factory.mktemp("browser") / "a run <b>")
    for name in ("config.yaml", "metrics.json"):
        (run / name).write_text(re.sub(r"\bcrack\b", MARKUP, (run / name).read_text()))
    return load_run(RunFolder(run))


@pytest.fixture
def server(finished, workplace, accelerator) -> Iterator[AppServer]:
    images = workplace / "input/train/train/images"
    yield from serve(PhotoService(Predictor(finished, accelerator), LIMITS, images))


@pytest.fixture(params=[1280, 390])
def page(request, browser, server):
    opened = browser.new_page(viewport={"width": request.param, "height": 800})
    opened.said = []
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.on("dialog", lambda dialog: (opened.said.append(dialog.message), dialog.dismiss()))
    opened.asked = []
    opened.on("request", lambda asked: opened.asked.append(asked.url))
    opened.goto(server.address)
    yield opened
    opened.close()


def choose(page, path) -> None:
    page.set_input_files("#file", path)
    page.wait_for_selector("#status:empty", state="attached")


def test_a_photo_shows_classes_heat_and_similar_photos(page, server, photos):
    choose(page, photos / "91.png")
    assert page.is_visible("#result")
    assert not page.is_visible("#problem")
    assert not page.is_visible("#unlike")
    expected = server.service.predict((photos / "91.png").read_bytes())
    best = max(expected["probabilities"].values())
    assert page.inner_text("#answer").startswith(f"{expected['name']}, {100 * expected['confidence']:.1f} %")
    shown = page.inner_text("#classes")
    assert f"{100 * best:.1f} %" in shown
    assert all(name in shown for name in (MARKUP, "dent", "lamp broken"))
    widths = "[...document.querySelectorAll('#classes .bar')].map(bar => +bar.style.getPropertyValue('--share'))"
    assert page.evaluate(widths) == sorted(expected["probabilities"].values(), reverse=True)
    page.evaluate("Promise.all([...document.images].map(one => one.decode()))")
    assert page.locator("#similar figure").count() == 5
    assert page.evaluate("document.images.length") == 7
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.said == []
    own = (server.address, "data:", f"blob:{server.address}")
    assert [url for url in page.asked if not url.startswith(own)] == []


def test_a_photo_of_another_kind_is_warned_of_and_the_next_one_is_not(page, photos, tmp_path):
    noise = np.random.default_rng(0).random((60, 80, 1)).repeat(3, 2) < 0.5
    Image.fromarray(noise.astype(np.uint8) * 255).save(tmp_path / "noise.png")
    choose(page, tmp_path / "noise.png")
    assert page.is_visible("#unlike")
    choose(page, photos / "91.png")
    assert page.is_visible("#result")
    assert not page.is_visible("#unlike")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("page.jpg", PAGE, "page.jpg: not an image"),
        ("bomb.png", png_of(30_000, 30_000), "bomb.png: 30000 x 30000 pixels are more than 1 million"),
        ("large.jpg", bytes(LIMITS.bytes + 1), "large.jpg: the file is too large"),
        (f"{MARKUP.replace('/', '')}.jpg", b"", f"{MARKUP}.jpg: not an image"),
    ],
)
def test_what_is_no_photo_is_one_sentence(page, photos, tmp_path, name, content, problem):
    choose(page, photos / "91.png")
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": content})
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem") == problem
    assert not page.is_visible("#result")
    assert [line for line in page.said if "415" not in line] == []


def test_a_dropped_photo_is_predicted(page, photos):
    page.evaluate(
        """bytes => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.png"));
          document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        }""",
        list((photos / "91.png").read_bytes()),
    )
    page.wait_for_selector("#result:visible")
    assert page.said == []


def test_a_server_that_is_gone_is_said(page, photos):
    page.route("**/api/explain", lambda route: route.abort())
    choose(page, photos / "91.png")
    assert page.inner_text("#problem") == "91.png: the server does not answer"
