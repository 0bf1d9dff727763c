"""Figures show the given values in light and dark mode, for any class names."""

import base64
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up_run import CLASSES, extra_metrics, make_run, typed
from matplotlib import pyplot as plt
from PIL import Image

from trunkfold.assessment import Bin, FoldScores
from trunkfold.report.figures import (
    COLOURS,
    DARK_INK,
    INK,
    LONGEST,
    draw_ablation,
    draw_class_shares,
    draw_confusion,
    draw_curves,
    draw_fold_scores,
    draw_luck,
    draw_reliability,
    save_figure,
    short,
)
from trunkfold.run_folder import RunFolder

HOSTILE = ["<script>", "$x$", "$\\oops$", "شاحنة", "🚗💥", "x" * 300, "a\x01b\x00", "&amp;", "line\nbreak", ""]


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def decode_svg(address: str) -> str:
    kind, _, content = address.partition(",")
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(content).decode()


def shares(names: list[str]) -> pd.DataFrame:
    values = np.linspace(0.1, 0.4, len(names))
    return pd.DataFrame({"in the folds": values, "hold-out": values[::-1]}, index=names)


def test_a_figure_is_a_png_and_an_svg_with_something_on_them(tmp_path):
    (tmp_path / "figures").mkdir()
    svg = decode_svg(
        save_figure(RunFolder(tmp_path, write=True), "shares", lambda: draw_class_shares(shares(["one", "two"])))
    )
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["shares.png"]
    pixels = np.asarray(Image.open(tmp_path / "figures" / "shares.png").convert("RGB"))
    assert min(pixels.shape[:2]) > 150
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert {"one", "two", "hold-out"} <= set(ElementTree.fromstring(svg).itertext())
    assert plt.get_fignums() == []  # none is left open


def test_ink_follows_the_mode_of_the_page(tmp_path):
    (tmp_path / "figures").mkdir()
    svg = decode_svg(
        save_figure(RunFolder(tmp_path, write=True), "shares", lambda: draw_class_shares(shares(["one", "two"])))
    )
    style, _, drawing = svg.partition("</style>")
    assert f"svg{{color:{INK}}}" in style
    assert f"prefers-color-scheme:dark){{svg{{color:{DARK_INK}}}}}" in style
    assert INK not in drawing
    assert "currentColor" in drawing
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        assert "currentColor" in element.get("style", "") or element.get("fill") == "currentColor"


def test_the_same_figure_is_the_same_file(tmp_path):
    (tmp_path / "figures").mkdir()
    one, other = (
        save_figure(RunFolder(tmp_path, write=True), "a", lambda: draw_class_shares(shares(["one", "two"])))
        for _ in range(2)
    )
    assert one == other


def test_names_of_any_kind_are_drawn_as_they_are(tmp_path):
    """As text, in valid XML, without mathematics, and cut where they are too long."""
    (tmp_path / "figures").mkdir()
    counts = np.eye(len(HOSTILE), dtype=int).tolist()
    scores = SimpleNamespace(confusion_matrix=counts, per_class=dict.fromkeys(HOSTILE))
    for draw in (lambda: draw_class_shares(shares(HOSTILE)), lambda: draw_confusion(scores)):
        svg = decode_svg(save_figure(RunFolder(tmp_path, write=True), "hostile", draw))
        shown = set(ElementTree.fromstring(svg).itertext())
        assert {"<script>", "$x$", "$\\oops$", "شاحنة", "🚗💥", "a b ", "&amp;", "line break"} <= shown
        assert "x" * (LONGEST - 1) + "…" in shown


def test_short_names_stay():
    assert short("lamp broken") == "lamp broken"
    assert len(short("y" * 99)) == LONGEST


def test_the_confusion_figure_holds_every_count_at_its_place(tmp_path):
    scores = RunFolder(make_run(tmp_path)).read_metrics().oof
    axis = draw_confusion(scores).axes[0]
    shown = {text.get_position(): text.get_text() for text in axis.texts}
    counts = scores.confusion_matrix
    assert shown == {(column, row): str(counts[row][column]) for row in range(3) for column in range(3)}
    assert [label.get_text() for label in axis.get_yticklabels()] == [short(name) for name in CLASSES.values()]


def test_learning_curves_are_thin_by_fold_and_thick_in_the_mean():
    history = pd.DataFrame({"epoch": [1, 1, 2, 2], "fold": [0, 1, 0, 1], "val_accuracy": [0.1, 0.3, 0.5, 0.9]})
    axis = draw_curves(history, {"val_accuracy": "accuracy"}, "scores").axes[0]
    lines = [list(line.get_ydata()) for line in axis.lines]
    assert lines[:2] == [[0.1, 0.5], [0.3, 0.9]]
    assert lines[2] == pytest.approx([0.2, 0.7])
    assert axis.lines[2].get_linewidth() > axis.lines[0].get_linewidth()


def test_folds_are_points_around_their_mean():
    folds = [FoldScores(fold, photos=9, macro_f1=f1, accuracy=0.9) for fold, f1 in enumerate((0.6, 0.8))]
    axis = draw_fold_scores(folds).axes[0]
    lines = [list(line.get_ydata()) for line in axis.lines]
    assert lines[0] == pytest.approx([0.7, 0.7])
    assert lines[1] == [0.6, 0.8]


def test_shares_are_bars_in_percent_the_first_class_at_the_top():
    axis = draw_class_shares(shares(["one", "two"])).axes[0]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([10, 40, 40, 10])
    assert axis.yaxis_inverted()


def test_the_figure_of_luck_shows_both_histograms_and_their_ranges():
    luck = typed(luck=extra_metrics()["luck"]).luck
    axis = draw_luck(luck).axes[0]
    heights = {stairs.get_label(): stairs.get_data().values for stairs in axis.patches if stairs.get_label()}
    assert list(heights) == ["private: 95 % in 0.561 to 0.743", "public: 95 % in 0.512 to 0.787"]
    for name, values in zip(("private", "public"), heights.values(), strict=True):
        counts = np.array(getattr(luck.histogram, name))
        np.testing.assert_allclose(values, 100 * counts / counts.sum())
    assert [line.get_xdata()[0] for line in axis.lines] == [0.561, 0.743, 0.512, 0.787]


def test_the_reliability_diagram_shows_points_with_intervals_before_and_after():
    part = typed(calibration=extra_metrics()["calibration"]).calibration.oof
    part = replace(part, bins_scaled=[Bin(confidence=0.7, accuracy=0.6, photos=9, interval=(0.4, 0.7))])
    axis = draw_reliability(part, "out-of-fold").axes[0]
    before, after = axis.containers
    assert list(before[0].get_ydata()) == [row.accuracy for row in part.bins]
    assert (list(after[0].get_xdata()), list(after[0].get_ydata())) == ([0.7], [0.6])
    assert after[2][0].get_segments()[0][:, 1] == pytest.approx([0.4, 0.7])
    assert before[0].get_linestyle() == "None"  # no line through points that vary by chance
    assert before[0].get_color() != after[0].get_color()


def test_the_ablation_figure_shows_gains_with_their_intervals():
    axis = draw_ablation(typed(ablation=extra_metrics()["ablation"]).ablation).axes[0]
    holdout, oof = axis.containers
    assert list(holdout[0].get_xdata()) == [0.0321, -0.0111]
    segments = [tuple(segment[:, 0]) for segment in holdout[2][0].get_segments()]
    assert segments == [pytest.approx((-0.01, 0.05)), pytest.approx((-0.02, -0.003))]
    assert list(oof[0].get_xdata()) == [0.0123]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["mirrored view (TTA)", "consensus"]
    assert holdout[0].get_color() == COLOURS[0] != oof[0].get_color()


def test_nothing_is_left_of_a_figure_that_fails(tmp_path):
    (tmp_path / "figures").mkdir()

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        save_figure(RunFolder(tmp_path, write=True), "a", fail)
    assert list(Path(tmp_path / "figures").iterdir()) == []
