"""What a run achieved, as a short text: scores, how they were separated from the training, what copies did."""

from pathlib import Path

from trunkfold.errors import counted
from trunkfold.evaluation.error_analysis import SETS
from trunkfold.runs import read_metrics


def summary(run: Path) -> str:
    """The run's result as a short text table: each score with its interval, and where the files lie."""
    metrics = read_metrics(run)
    lines = [f"{'':12} {'macro F1':>22} {'accuracy':>22} {'photos':>8} {'groups':>8}"]
    for name, title in reversed(SETS.items()):
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


def _with_interval(scores: dict, key: str) -> str:
    low, high = scores["intervals"][key]
    return f"{scores[key]:.4f} [{low:.3f}, {high:.3f}]"
