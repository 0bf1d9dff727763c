"""What a run achieved: a short table for the terminal, figures, and one self-contained page."""

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")  # a run has no screen
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from trunkfold.errors import counted
from trunkfold.pages import write_html
from trunkfold.results import AUGMENTED, MISTAKES
from trunkfold.runs import read_metrics, whole_file
from trunkfold.splits import HELD_OUT, ONLY_LEARNED, learned_from
from trunkfold.table import read_text_table

# Okabe and Ito's colours, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/)
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
STYLE = {
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
}
PICTURES = {
    "The surest mistakes, those of the hold-out first: the true class, what was predicted and how surely": MISTAKES,
    "What the model was shown while it learned: a photo of each class, and seven of its augmentations": AUGMENTED,
}
SETS = {"oof": "out-of-fold", "holdout": "hold-out"}


def summary(run: Path) -> str:
    """The run's result as a short text table: each score with its interval, and where the files lie."""
    metrics = read_metrics(run)
    lines = [f"{'':12} {'macro F1':>22} {'accuracy':>22} {'photos':>8} {'groups':>8}"]
    for name, title in SETS.items():
        if metrics[name] is not None:
            values = [_with_interval(metrics[name], key) for key in ("macro_f1", "accuracy")]
            counts = [metrics[name][key] for key in ("photos", "groups")]
            lines.append(f"{title:12} {values[0]:>22} {values[1]:>22} {counts[0]:>8} {counts[1]:>8}")
    lines += ["", f"split: {describe_split(metrics)}", *describe_leak(metrics), *describe_copies(metrics)]
    made = [name for name in ("submission.csv", "report.html", "metrics.json") if (run / name).exists()]
    lines += [f"files: {', '.join(str(run / name) for name in made)}"]
    return "\n".join(lines)


def describe_split(metrics: dict) -> str:
    """How the scored photos were separated from the training photos, in one sentence."""
    choice = metrics["split"]["groups"]
    if metrics["oof"] is None:
        return "different in each of the averaged runs"
    if choice != "none":
        return f"by group ({choice}): no copy of a scored photo was trained on"
    if metrics["leak"]:
        return (
            "RANDOM by photo (split.groups none), and photos have copies: these scores measure memory, and are too high"
        )
    return "random by photo (split.groups none); no copies were found"


def describe_leak(metrics: dict) -> list[str]:
    """What a random split claims, and what is left of it where no copy was learned from; empty without a leak."""

    def scores(part: dict) -> str:
        return f"accuracy {part['accuracy']:.3f}, macro F1 {part['macro_f1']:.3f}"

    lines = []
    for name, leak in (metrics["leak"] or {}).items():
        if leak and leak["with_copies"]:
            copies, others = leak["with_copies"], leak["without_copies"]
            rest = f"on the other {others['photos']}: {scores(others)}" if others else "there are no others"
            lines.append(
                f"WARNING: {SETS[name]}, {scores(copies)} on {counted(copies['photos'], 'photo')} "
                f"whose copies were learned from; {rest}"
            )
    return lines


def describe_copies(metrics: dict) -> list[str]:
    """What the consensus of copies and the labels of labelled copies did."""
    lines = []
    consensus, labels = metrics.get("consensus"), metrics.get("copy_labels")
    if consensus:
        gains = [f"{gain:+.4f} {SETS[name]}" for name, gain in consensus.get("macro_f1_gain", {}).items()]
        if "test_labels_changed" in consensus:
            gains.append(f"{counted(consensus['test_labels_changed'], 'test label')} changed")
        lines.append(f"consensus of copies: macro F1 {', '.join(gains)}")
    if labels and labels["photos"]:
        done = "were given" if labels["used"] else "could be given"
        lines.append(
            f"labels of copies for {counted(labels['photos'], 'test photo')} {done} (decode.copy_labels), "
            f"{labels['different']} of them unlike the prediction"
        )
    return lines


def write_report(run: Path) -> None:
    """Draw the figures of a run's tables into figures/ and write report.html beside them.

    Args:
        run: A folder with metrics.json and, where they exist, history.csv and submission.csv.

    Raises:
        InputError: metrics.json is missing or damaged.
    """
    metrics = read_metrics(run)
    (run / "figures").mkdir(exist_ok=True)
    figures, predicted = {}, _predicted_classes(run, metrics)
    if (run / "history.csv").exists():
        history = pd.read_csv(run / "history.csv")
        figures["Learning curves"] = _save(run, "learning_curves", lambda: draw_learning_curves(history))
    if (run / "folds.csv").exists():
        folds = read_text_table(run / "folds.csv", ["label", "fold"])
        shares = class_shares(folds, predicted, metrics["classes"])
        figures["Classes of each set"] = _save(run, "classes", lambda: draw_class_shares(shares))
    for name, title in SETS.items():
        if metrics[name] is not None:
            figures[f"Confusion, {title}"] = _save(
                run, f"confusion_{name}", lambda name=name: draw_confusion(metrics[name])
            )
    for title, name in PICTURES.items():
        if (run / "figures" / name).exists():
            figures[title] = _address((run / "figures" / name).read_bytes())
    write_html(
        run / "report.html",
        "report.html",
        name=run.name,
        metrics=metrics,
        sets={name: title for name, title in SETS.items() if metrics[name] is not None},
        split=describe_split(metrics),
        leak=describe_leak(metrics),
        copies=describe_copies(metrics),
        figures=figures,
        predicted=predicted,
        with_interval=_with_interval,
    )


def draw_learning_curves(history: pd.DataFrame) -> Figure:
    """Loss, accuracy and macro F1 over the epochs: thin lines are folds, thick ones their mean."""
    panels = {
        "loss": ["train_loss", "val_loss"],
        "accuracy": ["val_accuracy"],
        "macro F1": ["val_macro_f1"],
        "learning rate": ["lr_tail", "lr_head"],
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(14, 3.2), layout="constrained")
    for axis, (title, columns) in zip(axes, panels.items(), strict=True):
        for colour, column in zip(COLOURS, columns, strict=False):
            for _, fold in history.groupby("fold"):
                axis.plot(fold["epoch"], fold[column], color=colour, alpha=0.3, linewidth=0.8)
            mean = history.groupby("epoch")[column].mean()
            axis.plot(mean.index, mean, color=colour, linewidth=2, label=column, marker="." if len(mean) < 3 else None)
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        if len(columns) > 1:
            axis.legend(frameon=False)
    return figure


def class_shares(folds: pd.DataFrame, predicted: Mapping[str, int], classes: Mapping[str, str]) -> pd.DataFrame:
    """Share of each class in each set of photos.

    Args:
        folds: label and fold of each labelled photo.
        predicted: How many test photos were given each class; empty without a submission.
        classes: Name of each label.

    Returns:
        A row a class, a column a set that has photos.
    """
    fold = folds["fold"].astype(int)
    sets = {
        "learned from" if (fold == ONLY_LEARNED).any() else "in the folds": learned_from(fold.to_numpy()),
        "validation": (fold >= 0).to_numpy() & ~learned_from(fold.to_numpy()),
        "hold-out": (fold == HELD_OUT).to_numpy(),
    }
    counts = {title: folds["label"][rows].map(classes).value_counts() for title, rows in sets.items() if rows.any()}
    if predicted:
        counts["predicted for the test photos"] = pd.Series(predicted)
    table = pd.DataFrame(counts).reindex(list(classes.values())).fillna(0)
    return table / table.sum()


def draw_class_shares(shares: pd.DataFrame) -> Figure:
    """Bars of `class_shares`: sets that were drawn alike look alike."""
    figure, axis = plt.subplots(figsize=(9, 3.2), layout="constrained")
    width = 0.8 / shares.shape[1]
    places = np.arange(len(shares))
    for number, (title, column) in enumerate(shares.items()):
        axis.bar(places + (number + 0.5) * width - 0.4, 100 * column, width, label=title)
    axis.set_xticks(places, shares.index, parse_math=False)
    axis.set(ylabel="% of the set")
    axis.grid(visible=False, axis="x")
    axis.legend(frameon=False)
    return figure


def draw_confusion(scores: dict) -> Figure:
    """Confusion matrix with counts; the shade is the share of the true class."""
    counts = np.array(scores["confusion_matrix"])
    names = list(scores["per_class"])
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    side = 1.6 + 0.75 * len(names)
    figure, axis = plt.subplots(figsize=(side + 0.6, side), layout="constrained")
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (truth, predicted), count in np.ndenumerate(counts):
        colour = "white" if shares[truth, predicted] > 0.5 else "black"
        axis.text(predicted, truth, count, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right", parse_math=False)  # a $ is a $
    axis.set_yticks(range(len(names)), names, parse_math=False)
    axis.set(xlabel="predicted", ylabel="true")
    axis.grid(visible=False)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    return figure


def _save(run: Path, name: str, draw: Callable[[], Figure]) -> str:
    """Save a figure as PNG, and give it as the data address that the page embeds."""
    with plt.rc_context(STYLE):
        figure = draw()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        plt.close(figure)
    with whole_file(run / "figures" / f"{name}.png") as partial:
        partial.write_bytes(buffer.getvalue())
    return _address(buffer.getvalue())


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _with_interval(scores: dict, key: str) -> str:
    low, high = scores["intervals"][key]
    return f"{scores[key]:.4f} [{low:.3f}, {high:.3f}]"


def _predicted_classes(run: Path, metrics: dict) -> dict[str, int]:
    """How many test photos were given each class; empty before there is a submission."""
    if not (run / "submission.csv").exists():
        return {}
    labels = pd.read_csv(run / "submission.csv", dtype=str, keep_default_na=False)["label"]
    return {name: int((labels == label).sum()) for label, name in metrics["classes"].items()}
