"""Figures of the report: PNG files for slides, and SVG for the page, which adapts to light and dark mode."""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")  # works without a display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trunkfold.assessment import FoldScores, Luck, Reliability, Scores
from trunkfold.errors import counted
from trunkfold.html import data_address
from trunkfold.metrics import Ablation
from trunkfold.run_folder import SETS, RunFolder

# Okabe and Ito's colours, distinguishable by colour-blind readers (https://jfly.uni-koeln.de/color/)
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
INK, DARK_INK = "#1f2328", "#e6edf3"  # text and axes in light and dark mode
STYLE = {
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 11,
    "grid.alpha": 0.3,
    "font.size": 10,
    "figure.dpi": 110,
    "legend.frameon": False,
    "text.parse_math": False,  # class names may contain $
    "svg.fonttype": "none",  # keeps text as text: the browser has fonts for all scripts
    "svg.hashsalt": "trunkfold",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
LONGEST = 30  # characters of an axis label
PANEL = (4.6, 3.2)  # size in inches of a figure in a row of figures


def save_figure(run: RunFolder, name: str, draw: Callable[..., Figure], *args: object) -> str:
    """Save the figure that `draw` returns as figures/<name>.png, and return it as an SVG data URL for the page."""
    with _drawn(draw, args) as figure:
        _write_png(figure, run, name)
        return _svg_address(figure)


def embed_figure(draw: Callable[..., Figure], *args: object) -> str:
    """Return a figure as an SVG data URL."""
    with _drawn(draw, args) as figure:
        return _svg_address(figure)


def save_picture(run: RunFolder, name: str, draw: Callable[..., Figure], *args: object) -> None:
    """Save a figure as figures/<name>.png only."""
    with _drawn(draw, args) as figure:
        _write_png(figure, run, name)


@contextmanager
def _drawn(draw: Callable[..., Figure], args: Sequence[object]) -> Iterator[Figure]:
    """Draw a figure in the report's style, and close it at the end of the block."""
    with plt.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about glyphs missing from matplotlib's font; browsers have them
        figure = draw(*args)
        try:
            yield figure
        finally:
            plt.close(figure)


def _write_png(figure: Figure, run: RunFolder, name: str) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    run.save(png.getvalue(), run.figure(name))


def _svg_address(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return data_address(in_both_modes(buffer.getvalue()).encode(), "svg+xml")


def in_both_modes(svg: str) -> str:
    """Return the SVG with text and axes that adapt to light and dark mode."""
    style = f"svg{{color:{INK}}}@media screen and (prefers-color-scheme:dark){{svg{{color:{DARK_INK}}}}}"
    svg = svg.replace(INK, "currentColor").replace("'DejaVu Sans'", "system-ui")
    return re.sub(r"(<svg [^>]*>)", rf"\1<style>{style}</style>", svg, count=1)


def short(name: str) -> str:
    """Shorten a name for an axis, and replace the control characters that SVG forbids."""
    printable = "".join(letter if letter.isprintable() else " " for letter in name)
    return printable if len(printable) <= LONGEST else printable[: LONGEST - 1] + "…"


def draw_curves(history: pd.DataFrame, columns: Mapping[str, str], title: str) -> Figure:
    """Plot columns of history.csv (name: legend entry) by epoch: thin lines for folds, a thick one for their mean."""
    figure, axis = plt.subplots(figsize=PANEL, layout="constrained")
    for colour, (column, name) in zip(COLOURS, columns.items(), strict=False):
        for _, fold in history.groupby("fold"):
            axis.plot(fold["epoch"], fold[column], color=colour, alpha=0.35, linewidth=0.8)
        mean = history.groupby("epoch")[column].mean()
        axis.plot(mean.index, mean, color=colour, linewidth=2, label=name, marker="." if len(mean) < 3 else None)
    axis.set(title=title, xlabel="epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    if len(columns) > 1:
        axis.legend()
    return figure


def draw_fold_scores(folds: Sequence[FoldScores]) -> Figure:
    """Plot macro F1 and accuracy of each fold, with mean and standard deviation."""
    figure, axis = plt.subplots(figsize=PANEL, layout="constrained")
    places = np.arange(len(folds))
    for colour, marker, key, name in zip(
        COLOURS, "os", ("macro_f1", "accuracy"), ("macro F1", "accuracy"), strict=False
    ):
        values = np.array([getattr(fold, key) for fold in folds])
        axis.axhspan(values.mean() - values.std(), values.mean() + values.std(), color=colour, alpha=0.12, linewidth=0)
        axis.axhline(values.mean(), color=colour, linewidth=1)
        axis.plot(places, values, marker, color=colour, label=name)
    axis.set_xticks(places, [str(fold.fold) for fold in folds])
    axis.set(title="scores by fold, mean ± standard deviation", xlabel="fold")
    axis.margins(x=0.15, y=0.3)
    axis.legend(ncols=2, loc="upper center")
    return figure


def draw_class_shares(shares: pd.DataFrame) -> Figure:
    """Draw the result of `class_shares` as grouped bars."""
    height = 0.8 / shares.shape[1]
    figure, axis = plt.subplots(figsize=(5.8, 1.1 + 0.24 * shares.size), layout="constrained")
    places = np.arange(len(shares))
    for number, (title, column) in enumerate(shares.items()):
        axis.barh(places + (number + 0.5) * height - 0.4, 100 * column, 0.9 * height, label=title)
    name_rows(axis, shares.index)
    axis.set(xlabel="% of the set")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def draw_confusion(scores: Scores) -> Figure:
    """Draw a confusion matrix: counts as text, shares of the true class as colour."""
    counts = np.array(scores.confusion_matrix)
    names = [short(name) for name in scores.per_class]
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    side = 1.6 + 0.75 * len(names)
    figure, axis = plt.subplots(figsize=(side + 0.6, side), layout="constrained")
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (truth, predicted), count in np.ndenumerate(counts):
        colour = "white" if shares[truth, predicted] > 0.5 else "black"
        axis.text(predicted, truth, count, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted as", ylabel="true class")
    axis.grid(visible=False)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    return figure


def draw_luck(luck: Luck) -> Figure:
    """Draw histograms of the simulated leaderboard scores, with 95 % intervals."""
    figure, axis = plt.subplots(figsize=(5.8, 3.3), layout="constrained")
    edges = np.array(luck.histogram.edges)
    for colour, line, name in zip(COLOURS, ("-", "--"), ("private", "public"), strict=False):
        counts = np.array(getattr(luck.histogram, name), float)
        low, high = getattr(luck, name).low, getattr(luck, name).high
        label = f"{name}: 95 % in {low:.3f} to {high:.3f}"
        height = 100 * counts / max(counts.sum(), 1)
        axis.stairs(height, edges, color=colour, linewidth=1.8, linestyle=line, label=label)
        axis.stairs(height, edges, fill=True, color=colour, alpha=0.15)
        for edge in (low, high):
            axis.axvline(edge, ymax=0.74, color=colour, linestyle=":", linewidth=1.5)
    axis.set(xlabel="macro F1 on the leaderboard", ylabel="% of the draws")
    axis.set_ylim(0, 1.35 * axis.get_ylim()[1])
    axis.legend(loc="upper left")
    return figure


def draw_reliability(part: Reliability, title: str) -> Figure:
    """Draw a reliability diagram: accuracy by confidence, before and after temperature scaling."""
    figure, axis = plt.subplots(figsize=PANEL, layout="constrained")
    axis.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle="--", label="perfectly calibrated")
    shown = {"as predicted": part.bins, "after scaling": part.bins_scaled}
    for colour, marker, (name, bins) in zip(COLOURS[1::-1], "os", shown.items(), strict=True):
        confidence, accuracy = (np.array([getattr(row, name) for row in bins]) for name in ("confidence", "accuracy"))
        low, high = np.array([row.interval for row in bins]).T
        errors = [accuracy - low.clip(max=accuracy), high.clip(min=accuracy) - accuracy]
        axis.errorbar(confidence, accuracy, errors, fmt=marker, color=colour, label=name, elinewidth=1, alpha=0.8)
    photos = round(np.mean([row.photos for row in part.bins]))
    axis.set(title=f"{title}: {counted(photos, 'photo')} per bin")
    axis.set(xlabel="probability of the predicted class", ylabel="share predicted correctly")
    axis.set(xlim=(-0.02, 1.03), ylim=(-0.03, 1.05))
    axis.legend(loc="upper left", fontsize=9)
    return figure


def draw_ablation(ablation: Ablation) -> Figure:
    """Plot the gain in macro F1 from each part, with its interval."""
    shown = {name: rows for name in SETS if (rows := getattr(ablation, name))}
    parts = list(dict.fromkeys(row.part for rows in shown.values() for row in rows))
    figure, axis = plt.subplots(figsize=(7, 1.3 + 0.42 * len(parts)), layout="constrained")
    axis.axvline(0, color="#888888", linewidth=1)
    for number, (name, rows) in enumerate(shown.items()):
        places = np.array([parts.index(row.part) for row in rows]) + 0.22 * (number - (len(shown) - 1) / 2)
        gains = np.array([row.gain for row in rows])
        intervals = np.array([row.interval for row in rows]).T
        errors = np.abs(intervals - gains)
        axis.errorbar(gains, places, xerr=errors, fmt="os"[number], color=COLOURS[number], capsize=3, label=SETS[name])
    name_rows(axis, parts)
    axis.margins(y=0.15)
    axis.locator_params(axis="x", nbins=6)
    axis.set(xlabel="gain in macro F1, 95 % interval")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Label the rows of a horizontal plot, the first one at the top."""
    axis.set_yticks(range(len(names)), [short(str(name)) for name in names])
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
