"""The page in a real browser without network access."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from served_app import LIMITS, PAGE
from toys import png_of

from trunkfold.deploy.finished import FinishedRun, load_run
from trunkfold.html import probability
from trunkfold.run_folder import RunFolder

pytestmark = pytest.mark.slow
MARKUP = "<img src=x onerror=alert(1)>"
GRADIOS_OWN = "Method not implemented."  # logged by its page whenever it loads


@pytest.fixture(scope="module")
def finished(workplace, tmp_path_factory) -> FinishedRun:
    """A run whose first class is named like markup."""
    run = shutil.copytree(workplace / "submissions/toy", tmp_path_factory.mktemp("browser") / "a run <b>")
    for name in ("config.yaml", "metrics.json"):
        (run / name).write_text(re.sub(r"\bcrack\b", MARKUP, (run / name).read_text()))
    return load_run(RunFolder(run))


@pytest.fixture(params=[1280, 390])
def page(request, browser, server):
    opened = browser.new_page(viewport={"width": request.param, "height": 800})
    opened.said = []
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.on("dialog", lambda dialog: (opened.said.append(dialog.message), dialog.dismiss()))
    opened.asked = []
    opened.on("request", lambda asked: opened.asked.append(asked.url))
    opened.goto(server)
    opened.wait_for_selector("#photo input[type=file]", state="attached")
    yield opened
    opened.close()


def choose(page, photo) -> None:
    """Upload a photo and wait for its heat map."""
    page.set_input_files("#photo input[type=file]", photo)
    page.wait_for_selector("#heat img")
    page.wait_for_selector("#similar img")


def test_a_photo_shows_classes_heat_and_similar_photos(page, server, service, photos):
    choose(page, photos / "91.png")
    assert not page.is_visible("#unlike")
    expected = service.predict(photos / "91.png")
    lines = [
        f"{name} · {probability(share)}"
        for name, share in sorted(expected["probabilities"].items(), key=lambda item: -item[1])
    ]
    assert page.inner_text("#classes h2") == lines[0]
    assert page.locator("#classes dt").all_inner_texts() == lines
    assert "100" not in page.inner_text("#classes")
    assert page.locator("#similar img").count() >= 5
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("Promise.all([...document.images].map(one => one.decode()))")
    assert [line for line in page.said if line != GRADIOS_OWN] == []
    own = (server, "data:", f"blob:{server}")
    assert [url for url in page.asked if not url.startswith(own)] == []


def test_a_photo_of_another_kind_is_warned_of_and_the_next_one_is_not(page, photos, tmp_path):
    noise = np.random.default_rng(0).random((60, 80, 1)).repeat(3, 2) < 0.5
    Image.fromarray(noise.astype(np.uint8) * 255).save(tmp_path / "noise.png")
    choose(page, tmp_path / "noise.png")
    assert page.is_visible("#unlike [role=alert]")
    page.set_input_files("#photo input[type=file]", photos / "91.png")
    page.wait_for_selector("#unlike", state="hidden")
    page.wait_for_selector("#heat img")
    assert not page.is_visible("#unlike")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("page.jpg", PAGE, "not an image"),
        ("bomb.png", png_of(30_000, 30_000), "30000 x 30000 pixels exceed 1 million"),
        ("large.jpg", bytes(LIMITS.bytes + 1), "exceed the maximum allowed size"),
        (f"{MARKUP.replace('/', '')}.jpg", b"x", "not an image"),
    ],
)
def test_what_is_no_photo_is_one_sentence_and_the_last_result_goes(page, photos, name, content, problem):
    choose(page, photos / "91.png")
    page.set_input_files("#photo input[type=file]", {"name": name, "mimeType": "image/jpeg", "buffer": content})
    page.wait_for_selector(f"text={problem}")
    page.wait_for_selector("#heat img", state="detached")
    assert page.locator("#classes dt").count() == 0
    assert not [line for line in page.said if line == "1"]


def test_a_dropped_photo_is_predicted(page, photos):
    page.evaluate(
        """bytes => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
          const place = document.querySelector("#photo button");
          place.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        }""",
        list((photos / "91.png").read_bytes()),
    )
    page.wait_for_selector("#heat img")
    assert page.locator("#classes dt").count() == 3


@pytest.mark.parametrize("page", [1280], indirect=True)  # narrow windows have no such link
def test_the_page_of_the_api_asks_no_other_server(page, server):
    page.click("text=Use via API")
    page.wait_for_selector("text=/predict")
    assert [url for url in page.asked if not url.startswith((server, "data:"))] == []
