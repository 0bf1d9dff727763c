"""Terminal output: the summary of a run, and the tables of a comparison."""

from collections.abc import Callable

import pandas as pd

from trunkfold.assessment import Interval, LeakScores, PartScores
from trunkfold.errors import counted, first_few
from trunkfold.html import duration, interval
from trunkfold.metrics import Metrics
from trunkfold.report.comparison import NO_SPLIT
from trunkfold.run_folder import SETS, RunFolder

MEASURES = {"macro_f1": "macro F1", "accuracy": "accuracy"}


def summary(run: RunFolder, metrics: Metrics, next_command: str = "") -> str:
    """Summarize a run: a table of scores in the report's order, the files, and the next command."""
    lines = [describe_result(metrics).replace("\u00a0", " "), ""]
    lines += [f"{'':12} {'macro F1':>22} {'accuracy':>22} {'photos':>8} {'groups':>8}"]
    if expected := metrics.expected:
        lines.append(f"{'expected':12} {_with_interval(expected.macro_f1, expected.interval):>22}")
    for name, scores in metrics.by_set().items():
        values = [_with_interval(getattr(scores, key), getattr(scores.intervals, key)) for key in MEASURES]
        lines.append(f"{SETS[name]:12} {values[0]:>22} {values[1]:>22} {scores.photos:>8} {scores.groups:>8}")
    lines += ["", *describe_absent(metrics)]
    lines += [f"split: {describe_split(metrics)}", *describe_leak(metrics), *describe_copies(metrics)]
    if metrics.seconds:
        lines.append("time: " + ", ".join(f"{phase} {duration(spent)}" for phase, spent in metrics.seconds.items()))
    made = [path for path in (run.submission, run.report, run.metrics) if path.exists()]
    lines.append(f"files: {', '.join(map(str, made))}")
    return "\n".join([*lines, "", f"next: {next_command}"] if next_command else lines)


def describe_result(metrics: Metrics) -> str:
    """Return the headline: the expected leaderboard score of the ensemble, or why there is none."""
    expected = metrics.expected
    if metrics.oof is None:
        return "The averaged runs have different splits, so their average has no unbiased score."
    if leaks(metrics):
        return "No expected score: copies of scored photos were in training, so the scores below are inflated."
    if expected is None:
        return (
            f"Single models reach a macro F1 of {_with_interval(metrics.oof.macro_f1, metrics.oof.intervals.macro_f1)}."
        )
    known = "on photos like these (95\u00a0% interval {:.3f} to {:.3f})".format(*expected.interval)
    score = f"{expected.macro_f1:.3f} {known}"
    if expected.leaderboard is None:
        return f"Expect a macro F1 of {score}."
    return "Expect {:.3f} to {:.3f} private macro F1; ".format(*expected.leaderboard) + f"the best estimate is {score}."


def describe_split(metrics: Metrics) -> str:
    """Describe how the scored photos were separated from the training photos."""
    choice = metrics.split.groups
    if metrics.oof is None:
        return "different in each of the averaged runs"
    if choice != "none":
        return f"by group ({choice}): no copy of a scored photo was used in training"
    if metrics.leak:
        return "RANDOM by photo (split.groups none), inflated: copies of scored photos were in training"
    return "random by photo (split.groups none); no copies were found"


def describe_leak(metrics: Metrics) -> list[str]:
    """Return the scores with and without copies in training, one line per leaky set; empty without a leak."""

    def scores(part: PartScores) -> str:
        return f"accuracy {part.accuracy:.3f}, macro F1 {part.macro_f1:.3f}"

    lines = []
    for name, leak in leaks(metrics).items():
        copies, others = leak.with_copies, leak.without_copies
        rest = f"on the other {others.photos}: {scores(others)}" if others else "there are no other photos"
        lines.append(
            f"WARNING: {SETS[name]}, {scores(copies)} on {counted(copies.photos, 'photo')} "
            f"whose copies were in training; {rest}"
        )
    return lines


def leaks(metrics: Metrics) -> dict[str, LeakScores]:
    """Return the sets with photos that were predicted by a model trained on their copies."""
    found = {} if metrics.leak is None else vars(metrics.leak)
    return {name: leak for name, leak in found.items() if leak and leak.with_copies}


def describe_absent(metrics: Metrics) -> list[str]:
    """Return the classes without a scored photo, one line per set; empty if there are none."""
    lines = []
    for name, scores in metrics.by_set().items():
        if absent := [class_name for class_name, row in scores.per_class.items() if not row.support]:
            lines.append(f"{SETS[name]}: no photo of {first_few(absent)}, counted as 0 in macro F1")
    return lines


def describe_copies(metrics: Metrics) -> list[str]:
    """Describe the effect of averaging over copies (consensus), and of copied labels."""
    lines = []
    consensus, labels = metrics.consensus, metrics.copy_labels
    if consensus:
        gains = [f"{gain:+.4f} {SETS[name]}" for name, gain in consensus.macro_f1_gain.items()]
        if consensus.test_labels_changed is not None:
            gains.append(f"{counted(consensus.test_labels_changed, 'test label')} changed")
        lines.append(f"consensus of copies: macro F1 {', '.join(gains)}")
    if labels and labels.photos:
        done = "were used" if labels.used else "are available"
        lines.append(
            f"labels of copies {done} for {counted(labels.photos, 'test photo')} (decode.copy_labels); "
            f"{labels.different} of them differ from the prediction"
        )
    return lines


def _with_interval(value: float, ends: Interval) -> str:
    return f"{value:.4f} {interval(*ends)}"


def describe_comparison(comparison: pd.DataFrame) -> str:
    """Format the result of `compare_runs` as tables: scores and differences for each split."""
    blocks = []
    for number, runs in comparison.groupby("split"):
        first = runs.iloc[0]
        title = f"split {number}: {' / '.join(runs['options'].unique())}"
        lines = [title if pd.isna(first["photos"]) else f"{title}, {counted(first['photos'], 'photo')}"]
        if first["apart"] not in ("", NO_SPLIT):
            lines.append(f"not compared with split 1: {first['apart']}")
        if first["leak"]:
            lines.append("LEAKY: scores are inflated, copies of scored photos were in training")
        lines += _aligned(
            ["run", "OOF macro F1 [95 %]", "hold-out macro F1 [95 %]", "OOF accuracy", "training", "parameters"],
            [
                [run.run, _interval(run.oof_macro_f1, run.oof_low, run.oof_high)]
                + [_interval(run.holdout_macro_f1, run.holdout_low, run.holdout_high)]
                + [
                    _number(run.oof_accuracy, "{:.3f}".format),
                    _number(run.seconds, duration),
                    _number(run.trainable, "{:,}".format),
                ]
                for run in runs.itertuples()
            ],
        )
        compared = runs[runs["outcome"].notna()]
        if len(compared):
            lines.append("")
            lines += _aligned(
                [f"OOF macro F1 minus that of {first['run']}", "[95 %]", "outcome"],
                [
                    [run.run, _interval(run.difference, run.difference_low, run.difference_high, "+"), run.outcome]
                    for run in compared.itertuples()
                ],
            )
        if not pd.isna(first["seed_std"]):
            std = f"{first['seed_std']:.4f}"
            lines += ["", f"  standard deviation between seeds: {std}, included in the intervals of differences"]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """Format a table: first column left-aligned, others right-aligned."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  " + "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) for first, *others in table]


def _number(value: float | None, form: Callable[[float], str]) -> str:
    return "-" if pd.isna(value) else form(value)


def _interval(value: float, low: float, high: float, sign: str = "") -> str:
    return "-" if pd.isna(value) else f"{value:{sign}.3f} {interval(low, high, sign)}"
