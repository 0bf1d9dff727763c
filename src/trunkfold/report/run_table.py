"""A comparison of runs as tables for the terminal."""

import pandas as pd

from trunkfold.errors import counted
from trunkfold.report.comparison import NO_SPLIT


def describe_comparison(comparison: pd.DataFrame) -> str:
    """What `compare_runs` found, as tables for the terminal: two a split, the scores and their differences."""
    blocks = []
    for number, runs in comparison.groupby("split"):
        first = runs.iloc[0]
        title = f"split {number}: {' / '.join(runs['options'].unique())}"
        lines = [title if pd.isna(first["photos"]) else f"{title}, {counted(first['photos'], 'photo')}"]
        if first["apart"] not in ("", NO_SPLIT):
            lines.append(f"not compared with split 1: {first['apart']}")
        if first["leak"]:
            lines.append("LEAKY: the scores measure memory, since photos were predicted whose copies were learned from")
        lines += _aligned(
            ["run", "OOF macro F1 [95 %]", "hold-out macro F1 [95 %]", "OOF accuracy", "training", "parameters"],
            [
                [run.run, _interval(run.oof_macro_f1, run.oof_low, run.oof_high)]
                + [_interval(run.holdout_macro_f1, run.holdout_low, run.holdout_high)]
                + [_number(run.oof_accuracy, "{:.3f}"), _duration(run.seconds), _number(run.trainable, "{:,}")]
                for run in runs.itertuples()
            ],
        )
        compared = runs[runs["real"].notna()]
        if len(compared):
            lines.append("")
            lines += _aligned(
                [f"OOF macro F1 minus that of {first['run']}", "[95 %]", "real?"],
                [
                    [run.run, _interval(run.difference, run.difference_low, run.difference_high, "+"), run.real]
                    for run in compared.itertuples()
                ],
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table, its first column on the left, the others on the right."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  " + "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) for first, *others in table]


def _number(value: float | None, form: str) -> str:
    return "-" if pd.isna(value) else form.format(value)


def _interval(value: float, low: float, high: float, sign: str = "") -> str:
    form = f"{{:{sign}.3f}}"
    return "-" if pd.isna(value) else f"{form} [{form}, {form}]".format(value, low, high)


def _duration(seconds: float) -> str:
    if pd.isna(seconds):
        return "-"
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02}"
