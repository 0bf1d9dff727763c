"""Recommendations derived from a run's numbers; each rule yields a sentence, or nothing."""

from collections.abc import Iterator

import numpy as np

from trunkfold.errors import counted
from trunkfold.html import percent
from trunkfold.report.console import leaks
from trunkfold.report.contents import Findings
from trunkfold.run_folder import SETS
from trunkfold.split.folds import learned_from

MOST = 5  # sentences
WEAK = 0.03  # how far below the mean a class is called weak
RISEN = 0.03  # share by which a loss has risen, or macro F1 in absolute terms, that matters
LEAST_LOSS = 0.01  # absolute rise of a loss below which the share means nothing
WARM, COLD = 1.1, 0.9  # temperatures of a model that is too sure, or too cautious


def next_steps(findings: Findings) -> list[str]:
    """The most urgent two to five sentences, the most urgent first."""
    rules = (_leak, _labels, _shift, _weakest, _epochs, _calibration, _ablation, _luck, _precision)
    sentences = [sentence for rule in rules for sentence in rule(findings)]
    return sentences[:MOST]


def _leak(findings: Findings) -> Iterator[str]:
    if leaks(findings.metrics):
        yield (
            "Copies of scored photos were in training. Train again with --split.groups copies before anything else: no "
            "other number on this page can be trusted until then."
        )


def _labels(findings: Findings) -> Iterator[str]:
    suspects = len(findings.gallery.suspects)
    if suspects:
        yield (
            f"Review the suspected labels below ({counted(suspects, 'source')} shown of "
            f"{findings.folder.label_issues.name}). Correcting labels is cheaper than any change of the model."
        )


def _shift(findings: Findings) -> Iterator[str]:
    for what, shift in findings.shifts.items():
        if shift.classes and "test" in what:
            name, test, labelled = shift.classes[0]
            yield (
                f"The class shares of the test photos differ: {name} is {percent(test)} of the predictions there and "
                f"{percent(labelled)} of those for the labelled photos. A leaderboard score may differ from the "
                "expected one for that reason alone."
            )


def _weakest(findings: Findings) -> Iterator[str]:
    scores = findings.metrics.oof
    if not scores or findings.folds is None:
        return
    f1 = {name: row.f1 for name, row in scores.per_class.items()}
    names, weakest = list(f1), min(f1, key=f1.get)
    if len(f1) < 2 or np.mean(list(f1.values())) - f1[weakest] < WEAK:
        return
    mistaken = np.array(scores.confusion_matrix)[names.index(weakest)].copy()
    mistaken[names.index(weakest)] = 0
    label = next(label for label, name in findings.classes.items() if name == weakest)
    learning = learned_from(findings.folds["fold"].to_numpy()) & (findings.folds["label"] == label)
    sources = findings.folds.loc[learning, "group"].nunique()
    mistakes = f", and most often predicted as {names[mistaken.argmax()]}" if mistaken.any() else ""
    yield (
        f"The weakest class is {weakest}: F1 {f1[weakest]:.2f} out-of-fold. It is trained on "
        f"{counted(sources, 'source')}{mistakes}. More photos of it would raise macro F1 most; without them, try "
        "train.class_weights balanced."
    )


def _epochs(findings: Findings) -> Iterator[str]:
    if findings.history is None or findings.history["epoch"].nunique() < 4:
        return
    mean = findings.history.groupby("epoch")[["val_loss", "val_macro_f1"]].mean()
    epochs, loss, f1 = len(mean), mean["val_loss"], mean["val_macro_f1"]
    fifth = max(1, epochs // 5)
    rising = f1.iloc[-fifth:].mean() - f1.iloc[-2 * fifth : -fifth].mean()
    if rising > RISEN:
        yield (
            f"Macro F1 was still rising at the end, by {rising:.3f} in the last fifth: train for more than {epochs} "
            "epochs."
        )
    elif loss.iloc[-1] > max((1 + RISEN) * loss.min(), loss.min() + LEAST_LOSS):
        yield (
            f"The validation loss was lowest after epoch {loss.idxmin()} of {epochs} and has risen by "
            f"{percent(loss.iloc[-1] / loss.min() - 1)} since: overfitting. Try stronger augmentation "
            "(augment: strong), label smoothing or fewer epochs."
        )


def _calibration(findings: Findings) -> Iterator[str]:
    calibration, scores = findings.metrics.calibration, findings.metrics.oof
    if scores and scores.accuracy == 1:
        return  # without a mistake the best temperature is as low as it may be
    if calibration and not COLD < (temperature := calibration.temperature) < WARM:
        what = "overconfident" if temperature > 1 else "underconfident"
        yield (
            f"The model is {what} (temperature {temperature:.2f}). Scale the probabilities before you use them as "
            "such; labels already account for it."
        )


def _ablation(findings: Findings) -> Iterator[str]:
    ablation = findings.metrics.ablation
    for name in SETS if ablation else ():
        useless = [row.part for row in getattr(ablation, name) or [] if row.interval[1] < 0]
        if useless:
            yield f"Leave out {' and '.join(useless)}: on the {SETS[name]} photos the score is higher without."
            return


def _luck(findings: Findings) -> Iterator[str]:
    if findings.metrics.luck and findings.metrics.luck.told_apart:
        rival = min(findings.metrics.luck.told_apart, key=lambda row: abs(row.agreement - 0.9))
        if rival.difference < 0.0005:
            return
        yield (
            f"Do not choose between submissions by less than {rival.difference:.3f}: two equally good ones that "
            f"agree on {percent(rival.agreement)} of the photos differ by that much through luck. Compare runs by "
            "their out-of-fold scores, which rest on more photos than the public leaderboard."
        )


def _precision(findings: Findings) -> Iterator[str]:
    """State the precision of the scores if there is no simulated leaderboard."""
    scores = findings.metrics.oof
    if scores and not findings.metrics.luck:
        low, high = scores.intervals.macro_f1
        yield (
            f"The out-of-fold macro F1 is known to within {(high - low) / 2:.3f}. One run cannot tell a "
            "smaller gain from luck: repeat it with several seeds (train.seed) on the same split."
        )
