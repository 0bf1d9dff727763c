"""The epochs: learn from every batch, score every fold on its clean features, keep the last weights or the best."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from trunkfold.backbone import Tail, trained_parameters
from trunkfold.ensemble import average_probabilities, scoring_members
from trunkfold.errors import DivergedError, first_few
from trunkfold.features import FeatureBatches
from trunkfold.lockstep import Lockstep, set_data
from trunkfold.scores import validation_scores

CHECK_EVERY = 20  # steps between two looks at the loss, each of which makes a GPU wait


@dataclass
class Validation:
    """What scores all folds after each epoch: clean features, computed once, and the truth.

    Attributes:
        features: Batches of the plain view, kept.
        fold_of_row: Fold that each row validates, -1 for none; shape (rows,).
        targets: Class number of each row.
    """

    features: FeatureBatches
    fold_of_row: np.ndarray
    targets: np.ndarray

    def score(self, accelerator: Accelerator, tails: Sequence[Tail]) -> list[dict[str, float]]:
        """val_loss, val_accuracy and val_macro_f1 of each fold's tail on its own fold."""
        members = scoring_members(self.fold_of_row, len(tails))
        members[self.fold_of_row < 0] = False  # the hold-out is looked at once, at the end
        probabilities = average_probabilities(accelerator, tails, members, [self.features])
        rows_of_fold = [self.fold_of_row == fold for fold in range(len(tails))]
        return [validation_scores(self.targets[rows], probabilities[rows]) for rows in rows_of_fold]


def train(
    lockstep: Lockstep,
    loader: DataLoader,
    validation: Validation,
    after_epoch: Callable[[int, float], None] | None = None,
    quiet: bool = False,
) -> pd.DataFrame:
    """Train all tails, and leave in them the weights that are to be kept.

    Args:
        lockstep: What learns.
        loader: Gives its batches, see `trunkfold.loaders`.
        validation: Scores every epoch.
        after_epoch: Is told the epoch's number and the folds' mean macro F1; what it raises ends the training.
        quiet: Neither draw a bar nor print a line an epoch.

    Returns:
        The history: a row for each epoch and fold.

    Raises:
        DivergedError: A loss is not finite.
    """
    epochs, history = lockstep.config.epochs, []
    best, hidden = BestEpochs(lockstep.tails), quiet or not lockstep.accelerator.is_main_process
    with tqdm(total=epochs * len(loader), desc="training", unit="step", disable=hidden) as bar:
        for epoch in range(1, epochs + 1):
            started = time.perf_counter()
            train_losses = _train_epoch(lockstep, loader, epoch, bar)
            rates = lockstep.learning_rates()
            with lockstep.final_weights() as tails:
                scores = validation.score(lockstep.accelerator, tails)
                if lockstep.config.keep == "best":
                    best.look(scores)
            macro_f1 = float(np.mean([score["val_macro_f1"] for score in scores]))
            lockstep.scheduler.step(epoch, macro_f1)
            seconds = time.perf_counter() - started
            history += [
                {"epoch": epoch, "fold": fold, "train_loss": loss, **score, **rates, "seconds": seconds}
                for fold, (loss, score) in enumerate(zip(train_losses, scores, strict=True))
            ]
            if not bar.disable:
                bar.write(_describe(history[-len(scores) :], epochs))
            if after_epoch is not None:
                after_epoch(epoch, macro_f1)
    lockstep.keep_final_weights()
    if lockstep.config.keep == "best":
        best.restore()
    return pd.DataFrame(history)


class BestEpochs:
    """The weights of each fold's best epoch by validation accuracy: what the picked score flatters."""

    def __init__(self, tails: Sequence[Tail]) -> None:
        self.learning = [[p for _, p in trained_parameters(tail)] for tail in tails]
        self.accuracy = [-1.0] * len(tails)
        self.weights: list[list[Tensor]] = [[] for _ in tails]

    def look(self, scores: list[dict[str, float]]) -> None:
        """Keep the present weights of the folds that were never better."""
        for fold, score in enumerate(scores):
            if score["val_accuracy"] > self.accuracy[fold]:
                self.accuracy[fold] = score["val_accuracy"]
                self.weights[fold] = [p.detach().clone() for p in self.learning[fold]]

    def restore(self) -> None:
        """Put the best weights back."""
        for parameters, weights in zip(self.learning, self.weights, strict=True):
            set_data(parameters, weights)


def _train_epoch(lockstep: Lockstep, loader: DataLoader, epoch: int, bar: tqdm) -> list[float]:
    """One pass over the photos; each fold's mean loss."""
    device = lockstep.accelerator.device
    total = torch.zeros(len(lockstep.tails), device=device)
    for step, (photos, targets) in enumerate(loader):
        photos, targets = photos.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        total += lockstep.step(photos, targets)
        bar.update()
        if step % CHECK_EVERY == 0 or step == len(loader) - 1:
            summed = lockstep.accelerator.reduce(total, "sum")
            _check_finite(summed, epoch)
    return (summed / len(loader)).tolist()


def _check_finite(losses: Tensor, epoch: int) -> None:
    bad = [fold for fold, loss in enumerate(losses.tolist()) if not np.isfinite(loss)]
    if bad:
        raise DivergedError(
            f"the loss of fold {first_few(bad)} is not finite in epoch {epoch}: lower train.tail_lr and train.head_lr, "
            "warm up for longer (train.warmup_epochs), or train in full precision (train.mixed_precision no)"
        )


def _describe(rows: list[dict[str, float]], epochs: int) -> str:
    mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
    spread = np.std([row["val_macro_f1"] for row in rows])
    return (
        f"epoch {mean['epoch']:.0f}/{epochs}  train loss {mean['train_loss']:.3f}  val loss {mean['val_loss']:.3f}  "
        f"accuracy {mean['val_accuracy']:.3f}  macro F1 {mean['val_macro_f1']:.3f} ± {spread:.3f}  "
        f"{mean['seconds']:.0f} s"
    )
