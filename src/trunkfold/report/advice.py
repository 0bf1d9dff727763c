"""Recommendations derived from a run's scores; each rule yields one sentence or none."""

from collections.abc import Iterator

import numpy as np

from trunkfold.errors import counted, first_few
from trunkfold.html import percent
from trunkfold.report.console import leaks
from trunkfold.report.contents import Findings
from trunkfold.run_folder import SETS
from trunkfold.split.folds import learned_from

MOST = 5  # sentences
WEAK = 0.03  # distance of a class's F1 below the mean from which the class is called weak
RISEN = 0.03  # rise considered relevant: relative for the loss, absolute for macro F1
LEAST_LOSS = 0.01  # absolute rise of the loss below which the relative one is ignored
WARM, COLD = 1.1, 0.9  # temperature above which a model is overconfident, below which it is underconfident


def next_steps(findings: Findings) -> list[str]:
    """Return up to five recommendations, the most urgent first."""
    rules = (_leak, _untrained, _labels, _shift, _weakest, _epochs, _calibration, _ablation, _luck, _precision)
    sentences = [sentence for rule in rules for sentence in rule(findings)]
    return sentences[:MOST]


def _leak(findings: Findings) -> Iterator[str]:
    if leaks(findings.metrics):
        yield (
            "Copies of scored photos were in training. Retrain with --split.groups copies first: until then, no score "
            "on this page is reliable."
        )


def _untrained(findings: Findings) -> Iterator[str]:
    if findings.history is None:
        return
    last = findings.history.groupby("fold").last()
    chance = 1 / len(findings.classes)  # predicting one class for all photos scores less
    if folds := last.index[last["val_macro_f1"] < chance].tolist():
        yield (
            f"Some tails did not learn: those of fold {first_few(folds)} score no better than a single class for all "
            "photos. Lower train.tail_lr, at which they may have diverged, or train longer."
        )


def _labels(findings: Findings) -> Iterator[str]:
    suspects = len(findings.gallery.suspects)
    if suspects:
        yield (
            f"Review the suspected labels below ({counted(suspects, 'source')} shown of "
            f"{findings.folder.label_issues.name}). Correcting labels is cheaper than changing the model."
        )


def _shift(findings: Findings) -> Iterator[str]:
    for what, shift in findings.shifts.items():
        if shift.classes and "test" in what:
            name, test, labelled = shift.classes[0]
            yield (
                f"Class shares of the test photos differ: {percent(test)} of the test photos are predicted as {name}, "
                f"compared with {percent(labelled)} of the labelled photos. The leaderboard score may differ from the "
                "expected one for this reason alone."
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
    mistakes = f" and is most often predicted as {names[mistaken.argmax()]}" if mistaken.any() else ""
    yield (
        f"The weakest class is {weakest}: out-of-fold F1 {f1[weakest]:.2f}. It has {counted(sources, 'source')} in "
        f"training{mistakes}. More photos of this class would raise macro F1 most; if there are none, try "
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
            f"Macro F1 was still rising: it gained {rising:.3f} in the last fifth of training. Train for more than "
            f"{epochs} epochs."
        )
    elif loss.iloc[-1] > max((1 + RISEN) * loss.min(), loss.min() + LEAST_LOSS):
        yield (
            f"Overfitting: the validation loss was lowest after epoch {loss.idxmin()} of {epochs} and has risen "
            f"by {percent(loss.iloc[-1] / loss.min() - 1)} since. Try stronger augmentation (augment: strong), label "
            "smoothing or fewer epochs."
        )


def _calibration(findings: Findings) -> Iterator[str]:
    calibration, scores = findings.metrics.calibration, findings.metrics.oof
    if scores and scores.accuracy == 1:
        return  # without a mistake the fitted temperature is at its lower bound
    if calibration and not COLD < (temperature := calibration.temperature) < WARM:
        what = "overconfident" if temperature > 1 else "underconfident"
        yield (
            f"The model is {what} (temperature {temperature:.2f}). Scale the probabilities before using them; the "
            "predicted labels already account for it."
        )


def _ablation(findings: Findings) -> Iterator[str]:
    ablation = findings.metrics.ablation
    for name in SETS if ablation else ():
        useless = [row.part for row in getattr(ablation, name) or [] if row.interval[1] < 0]
        if useless:
            yield f"Leave out {' and '.join(useless)}: the {SETS[name]} score is higher without."
            return


def _luck(findings: Findings) -> Iterator[str]:
    if findings.metrics.luck and findings.metrics.luck.told_apart:
        rival = min(findings.metrics.luck.told_apart, key=lambda row: abs(row.agreement - 0.9))
        if rival.difference < 0.0005:
            return
        yield (
            f"Do not choose between submissions whose scores differ by less than {rival.difference:.3f}: two equally "
            f"good submissions that agree on {percent(rival.agreement)} of the photos differ by that much by chance. "
            "Compare out-of-fold scores instead, which are computed on more photos than the public leaderboard."
        )


def _precision(findings: Findings) -> Iterator[str]:
    """State the precision of the scores if there is no simulated leaderboard."""
    scores = findings.metrics.oof
    if scores and not findings.metrics.luck:
        low, high = scores.intervals.macro_f1
        yield (
            f"The out-of-fold macro F1 has a margin of error of ±{(high - low) / 2:.3f}. A single run cannot show "
            "smaller gains: repeat it with several seeds (train.seed) on the same split."
        )
