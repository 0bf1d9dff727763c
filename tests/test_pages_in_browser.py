"""Pages in a browser: they open from disk, load nothing else, fit a phone, and escape names."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from made_up_run import CLASSES, add_pictures, change_metrics, extra_metrics, make_run, report_on
from toys import run_command, write_competition

from trunkfold.config.schema import DataConfig
from trunkfold.copies.links import read_links
from trunkfold.copies.page import write_page
from trunkfold.copies.search import find_copies
from trunkfold.csv_table import read_text_table
from trunkfold.data.corrections import correct_labels
from trunkfold.data.tables import Competition

pytestmark = pytest.mark.slow
WIDTHS, MODES = (1280, 390), ("light", "dark")
CLASSES_SHOWN = {**CLASSES, "4": "x" * 200, "5": "شاحنة مكسورة 🚗💥", "6": "<img src=x onerror=alert(2)>"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with all sections, and names that try what they can."""
    run = make_run(tmp_path_factory.mktemp("run"), rows=(120, 48), classes=CLASSES_SHOWN, name="a run <b>")
    folds = read_text_table(run / "folds.csv", ["filename"])
    folds["filename"] = "<script>alert(3)</script>" + "y" * 150 + ".jpg"
    folds.to_csv(run / "folds.csv", index=False)
    (run / "label_issues.csv").write_text(
        "image_id,filename,label,suggestion,p_label,p_suggestion,group,reason\n"
        "5,5.jpg,6,1,0.01,0.97,a,<script>alert(4)</script>\n7,7.jpg,2,1,0.02,0.9,b,\n"
    )
    (run / "config.yaml").write_text("name: " + "long " * 200)
    change_metrics(run, **extra_metrics())
    add_pictures(run)
    report_on(run)
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of a toy competition, as the commands leave it."""
    folder = tmp_path_factory.mktemp("trained")
    options = {"data.root": "input", "data.classes": "null", "data.image_size": 64, "split.groups": "input/groups.csv"}
    options |= {"split.folds": 3, "model.name": "test_convnext", "model.pretrained": "false", "train.batch_size": 12}
    options |= {"train.epochs": 1, "train.ema_decay": 0.9, "run.name": "toy"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_competition(folder / "input")
        run_command("train_folds.py", *(word for key, value in options.items() for word in (f"--{key}", value)))
        run_command("make_submission.py")
    return folder / "submissions/toy"


class Visit:
    """A page as it is opened: what it asks for, says on its console, and whether it opens a dialog."""

    def __init__(self, browser, file: Path, width: int = 1280, mode: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=mode)
        self.requests, self.said, self.dialogs = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.goto(file.as_uri())

    def look(self, script: str):
        return self.page.evaluate(script)

    def text(self) -> str:
        return self.page.inner_text("body")


@pytest.fixture
def visit(browser):
    visits = []

    def open_page(*args) -> Visit:
        visits.append(Visit(browser, *args))
        return visits[-1]

    yield open_page
    for opened in visits:
        opened.page.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["run", "trained"])
def test_the_report_asks_for_nothing_says_nothing_and_fits(visit, request, kind, width, mode):
    run = request.getfixturevalue(kind)
    seen = visit(run / "report.html", width, mode)
    others = [url for url in seen.requests if not url.startswith("data:")]
    assert others == [(run / "report.html").as_uri()]
    assert (seen.said, seen.dialogs) == ([], [])
    seen.look("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert seen.look("document.documentElement.scrollWidth <= innerWidth")
    outside = seen.look(
        """[...document.querySelectorAll("section *")].filter(one =>
        !one.closest(".wide, pre, .name, .probabilities, option") &&
        one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 90))"""
    )
    assert outside == []


def test_all_pictures_are_drawn(visit, run):
    seen = visit(run / "report.html")
    broken = "[...document.images].filter(one => !(one.complete && one.naturalWidth)).map(one => one.alt)"
    assert seen.look("document.images.length") > 50
    assert seen.look(broken) == []
    assert seen.look("[...document.images].every(one => one.alt)")


@pytest.mark.parametrize("mode", MODES)
def test_text_can_be_read_on_its_background(visit, run, mode):
    """Contrast of at least 4.5 to 1 (WCAG AA) between the page and its ink, links and small print."""
    seen = visit(run / "report.html", 1280, mode)
    colours = seen.look(
        """["h1", "nav a", ".faint"].map(name => getComputedStyle(document.querySelector(name)).color)
        .concat(getComputedStyle(document.body).backgroundColor)"""
    )
    *inks, paper = [luminance(colour) for colour in colours]
    assert (paper > 0.5) == (mode == "light")
    for ink in inks:
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 4.5


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, by https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    shares = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_numbers_that_are_read_are_those_of_the_metrics(visit, run):
    metrics = json.loads((run / "metrics.json").read_text())
    text = visit(run / "report.html").text()
    for name in ("oof", "holdout"):
        for key in ("macro_f1", "accuracy"):
            assert f"{metrics[name][key]:.3f}" in text
            assert "95 %: {:.3f} to {:.3f}".format(*metrics[name]["intervals"][key]) in text.replace("\xa0", " ")
    for row in (*metrics["ablation"]["oof"], *metrics["ablation"]["holdout"]):
        assert f"{row['gain']:+.4f}" in text


def test_names_are_text(visit, run):
    seen = visit(run / "report.html")
    text = seen.text()
    for name in ("<script>alert(1)</script>", "<script>alert(3)</script>yyy", "<script>alert(4)</script>", "🚗💥"):
        assert name in text
    assert "<img src=x onerror=alert(2)>" in text
    assert seen.look("document.scripts.length") == 1  # the page's own
    assert seen.dialogs == []


def read_download(seen: Visit, button: str, folder: Path) -> pd.DataFrame:
    with seen.page.expect_download() as waiting:
        seen.page.get_by_role("button", name=button).click()
    waiting.value.save_as(folder / waiting.value.suggested_filename)
    return pd.read_csv(folder / waiting.value.suggested_filename, dtype=str)


def test_labels_are_decided_by_buttons_and_keys_and_downloaded_as_files_for_training(visit, run, tmp_path):
    """Decisions survive a reload, and the files are read by data.relabel and data.drop."""
    seen = visit(run / "report.html", 390)
    page, status = seen.page, seen.page.locator("#decisions output")
    cards = page.locator(".suspect")
    assert status.inner_text() == "0 of 2 decided: 0 keep, 0 relabel, 0 drop"
    assert page.get_by_role("button", name="Download relabel.csv").is_disabled()
    cards.nth(0).get_by_role("combobox").select_option(label="crack")
    assert cards.nth(0).get_by_role("button", name="Relabel to").get_attribute("aria-pressed") == "true"
    cards.nth(1).focus()
    page.keyboard.press("d")
    page.reload()
    assert status.inner_text() == "2 of 2 decided: 0 keep, 1 relabel, 1 drop"
    relabel, drop = (read_download(seen, f"Download {name}.csv", tmp_path) for name in ("relabel", "drop"))
    assert relabel[["image_id", "label", "suggestion"]].values.tolist() == [["5", "6", "1"]]
    assert drop[["image_id", "label"]].values.tolist() == [["7", "2"]]
    assert relabel["filename"][0].startswith("<script>alert(3)")
    table = pd.read_csv(run / "folds.csv", dtype=str)[["image_id", "filename", "label"]]
    data = DataConfig(classes=None, relabel=tmp_path / "relabel.csv", drop=tmp_path / "drop.csv")
    corrected, counts, problems = correct_labels(table, data)
    assert problems == []
    assert counts == {"dropped": 1, "relabelled": 1}
    assert corrected.set_index("image_id").loc["5", "label"] == "1"
    page.keyboard.press("u")
    cards.nth(1).focus()
    page.keyboard.press("u")
    cards.nth(0).get_by_role("button", name="Keep").click()
    assert status.inner_text() == "1 of 2 decided: 1 keep, 0 relabel, 0 drop"
    page.get_by_role("button", name="Clear all decisions").click()
    assert status.inner_text().startswith("0 of 2")
    assert seen.said == []


def test_mistakes_are_filtered_by_class_and_sorted(visit, run):
    seen = visit(run / "report.html")
    page, status = seen.page, seen.page.locator("#filter output")
    total = page.locator(".mistakes .card").count()
    assert status.inner_text() == f"{total} of {total} shown"
    truths = """[...document.querySelectorAll(".mistakes")].map(
        box => [...box.children].filter(card => !card.hidden).map(card => card.dataset.truth))"""
    page.get_by_label("Sort by").select_option("true class")
    assert all(names == sorted(names, key=str.casefold) for names in map(plain, seen.look(truths)))
    page.locator("#filter [name=class]").select_option("x" * 200)
    shown = [name for names in seen.look(truths) for name in names]
    assert set(shown) == {"x" * 200}
    assert status.inner_text() == f"{len(shown)} of {total} shown"


def plain(names: list[str]) -> list[str]:
    """Those whose order does not depend on the browser's language."""
    return [name for name in names if name.isascii() and name.isalpha()]


def test_every_entry_of_the_contents_leads_to_its_section(visit, run):
    seen = visit(run / "report.html")
    pairs = seen.look(
        """[...document.querySelectorAll("nav a")].map(link => [link.textContent,
        document.querySelector(link.getAttribute("href"))?.querySelector("h2").textContent])"""
    )
    assert len(pairs) == 11
    assert all(entry == heading for entry, heading in pairs)


def test_wide_tables_scroll_in_their_box(visit, run):
    seen = visit(run / "report.html", 390)
    widest = "Math.max(...[...document.querySelectorAll('.wide')].map(box => box.scrollWidth - box.clientWidth))"
    assert seen.look(widest) > 100


def test_paper_is_white_and_nothing_is_cut(visit, run):
    seen = visit(run / "report.html", 760, "dark")
    seen.page.emulate_media(media="print")
    background = seen.look("getComputedStyle(document.body).backgroundColor")
    assert background in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
    assert luminance(seen.look("getComputedStyle(document.body).color")) < 0.2
    assert seen.look("getComputedStyle(document.querySelector('.card')).breakInside") == "avoid"
    assert seen.page.pdf(format="A4").startswith(b"%PDF")


def test_the_page_of_copies_fits_too(visit, tmp_path):
    summary = {
        **{"photos": {"train": 4, "test": 2}, "groups": 3, "groups_by_size": {"1": 1, "2": 1, "3": 1}},
        **{"conflicting": ["z" * 200], "crossing": [], "exact_duplicates": 0, "unreadable": []},
        **{"key": "0", "lacking_copies": 0, "expected_errors": {"doubtful": 0, "false": 0, "missed": 0}},
    }
    no_photos = pd.DataFrame({key: [] for key in ("image_id", "set", "filename", "label", "path", "group")})
    write_page(tmp_path / "copies.html", "<i>photos", no_photos, [], [], summary)
    for width in WIDTHS:
        seen = visit(tmp_path / "copies.html", width, "dark")
        assert seen.look("document.documentElement.scrollWidth <= innerWidth")
        assert "Copies in <i>photos" in seen.text()
        assert seen.said == []


@pytest.mark.parametrize("width", WIDTHS)
def test_pairs_are_decided_by_buttons_and_keys_and_downloaded_as_links(visit, tmp_path, width, monkeypatch):
    """Decisions survive a reload, and find_copies reads the file."""
    monkeypatch.setattr("trunkfold.copies.doubts.DOUBTFUL", 0)
    competition = Competition(write_competition(tmp_path / "input", sources=4, unlabelled_sources=1))
    photos = find_copies(competition, tmp_path / "cache", tmp_path / "copies")
    seen = visit(tmp_path / "copies/copies.html", width)
    page, status = seen.page, seen.page.locator("#decisions output")
    cards = page.locator(".pair")
    assert status.inner_text() == f"0 of {cards.count()} decided: 0 same, 0 different"
    assert page.get_by_role("button", name="Download links.csv").is_disabled()
    cards.nth(0).get_by_role("button", name="Same photo").click()
    cards.nth(1).focus()
    page.keyboard.press("d")
    slider = page.get_by_role("slider").first
    slider.fill("80")
    assert seen.look("document.querySelector('.over img + img').style.opacity") == "0.8"
    page.reload()
    assert status.inner_text() == f"2 of {cards.count()} decided: 1 same, 1 different"
    read_download(seen, "Download links.csv", tmp_path)
    assert len((tmp_path / "links.csv").read_text().splitlines()) == 3
    assert {same for _, same in read_links(tmp_path / "links.csv", photos)} == {False, True}
    page.keyboard.press("Tab")
    cards.nth(1).focus()
    page.keyboard.press("u")
    assert status.inner_text().startswith("1 of")
    page.get_by_role("button", name="Clear all decisions").click()
    assert status.inner_text().startswith("0 of")
    assert seen.look("document.documentElement.scrollWidth <= innerWidth")
    assert [url for url in seen.requests if not url.startswith("data:")] == [
        (tmp_path / "copies/copies.html").as_uri()
    ] * 2
    assert (seen.said, seen.dialogs) == ([], [])
