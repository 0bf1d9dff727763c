"""The comparison page: scores, paired differences, learning curves and per-class F1 of several runs."""

from collections.abc import Mapping
from os.path import relpath
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from trunkfold.evaluation.history import read_history
from trunkfold.html import write_html
from trunkfold.report.comparison import NO_SPLIT
from trunkfold.report.figures import COLOURS, embed_figure, name_rows, short
from trunkfold.run_folder import SETS, RunFolder

LINES = ("-", "--", ":", "-.")  # line styles, for more runs than colours


def write_comparison(comparison: pd.DataFrame, runs: Mapping[str, RunFolder], path: Path) -> None:
    """Write the result of `compare_runs` as one self-contained page; `runs` are those of `name_runs`."""
    splits = [_split(rows, runs, path) for _, rows in comparison.groupby("split")]
    write_html(path, "comparison.html", splits=splits, no_split=NO_SPLIT)


def _split(rows: pd.DataFrame, runs: Mapping[str, RunFolder], path: Path) -> dict:
    """Return the template values for the runs of one split."""
    metrics = {name: runs[name].read_metrics() for name in rows["run"]}
    scored, compared = rows[rows["oof_macro_f1"].notna()], rows[rows["difference"].notna()]
    histories = {name: found for name in rows["run"] if (found := read_history(runs[name])) is not None}
    figures = {}
    if len(scored):
        figures["Scores with 95 % intervals"] = embed_figure(draw_scores, scored)
    if len(compared):
        title = f"Out-of-fold macro F1 minus that of {short(rows['run'].iloc[0])}"
        figures[title] = embed_figure(draw_differences, compared)
    if histories:
        figures["Learning curves, mean over the folds"] = embed_figure(draw_histories, histories)
    return {
        "rows": rows.to_dict("records"),
        "links": {name: relpath(runs[name].report, path.parent) for name in metrics if runs[name].report.exists()},
        "figures": figures,
        "per_class": [found.oof.per_class for found in metrics.values() if found.oof],
    }


def draw_scores(rows: pd.DataFrame) -> Figure:
    """Plot macro F1 of each run on both sets, with intervals. The caller closes the figure."""
    figure, axis = plt.subplots(figsize=(5.8, 1.4 + 0.5 * len(rows)), layout="constrained")
    for number, (name, title) in enumerate(SETS.items()):
        own = rows[rows[f"{name}_macro_f1"].notna()]
        places = [rows.index.get_loc(row) + 0.24 * (number - 0.5) for row in own.index]
        values, low, high = (own[f"{name}_{what}"].to_numpy() for what in ("macro_f1", "low", "high"))
        errors = [(values - low).clip(0), (high - values).clip(0)]  # of a few photos, all draws may differ from all
        axis.errorbar(values, places, xerr=errors, fmt="os"[number], color=COLOURS[number], capsize=3, label=title)
    name_rows(axis, rows["run"])
    axis.margins(y=0.15)
    axis.set(xlabel="macro F1, 95 % interval")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def draw_differences(rows: pd.DataFrame) -> Figure:
    """Draw a forest plot of paired differences; filled markers are distinguishable from 0."""
    figure, axis = plt.subplots(figsize=(5.8, 1.2 + 0.4 * len(rows)), layout="constrained")
    axis.axvline(0, color="#888888", linewidth=1)
    for place, row in enumerate(rows.itertuples()):
        errors = [[row.difference - row.difference_low], [row.difference_high - row.difference]]
        fill = COLOURS[0] if row.outcome == "distinguishable" else "none"
        axis.errorbar(row.difference, place, xerr=errors, fmt="o", color=COLOURS[0], markerfacecolor=fill, capsize=3)
    name_rows(axis, rows["run"])
    axis.margins(y=0.2)
    axis.set(xlabel="difference in macro F1, 95 % interval; filled: distinguishable")
    return figure


def draw_histories(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot validation macro F1 by epoch, averaged over the folds, with one line per run."""
    figure, axis = plt.subplots(figsize=(5.8, 3.6), layout="constrained")
    for number, (name, history) in enumerate(histories.items()):
        mean = history.groupby("epoch")["val_macro_f1"].mean()
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number // len(COLOURS) % len(LINES)]}
        axis.plot(mean.index, mean, label=short(name), marker="." if len(mean) < 3 else None, **style)
    axis.set(xlabel="epoch", ylabel="validation macro F1")
    axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower left", ncols=2)
    return figure
