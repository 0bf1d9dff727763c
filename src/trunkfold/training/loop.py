"""The training loop: training steps, validation of every fold on clean features, and selection of weights."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm

from trunkfold.errors import DivergedError, OutOfTime, first_few
from trunkfold.evaluation.predictions import average
from trunkfold.evaluation.scores import validation_scores
from trunkfold.model.ensemble import predict
from trunkfold.model.features import FeatureBatches
from trunkfold.model.parts import Tail, trained_parameters
from trunkfold.split.folds import scoring_members
from trunkfold.training.checkpoint import Checkpoint, random_state, restore_random_state
from trunkfold.training.lockstep import Lockstep
from trunkfold.training.trackers import log_epoch

LOOK_EVERY = 20  # steps on a GPU between checks of loss and clock, each of which synchronizes


@dataclass
class Validation:
    """Clean features and targets to score all folds after each epoch.

    Attributes:
        features: Cached batches of the plain view.
        fold_of_row: Fold that each row validates, negative for none; shape (rows,).
        targets: Class index of each row.
    """

    features: FeatureBatches
    fold_of_row: np.ndarray
    targets: np.ndarray

    def score(self, accelerator: Accelerator, tails: Sequence[Tail]) -> list[dict[str, float]]:
        """Compute val_loss, val_accuracy and val_macro_f1 of each fold's tail on its own fold."""
        members = scoring_members(self.fold_of_row, len(tails))
        members[self.fold_of_row < 0] = False  # the hold-out is evaluated only once, after training
        probabilities = average(predict(accelerator, tails, members, [self.features]), members)
        rows_of_fold = [self.fold_of_row == fold for fold in range(len(tails))]
        return [validation_scores(self.targets[rows], probabilities[rows]) for rows in rows_of_fold]


def train(
    lockstep: Lockstep,
    loader: DataLoader,
    validation: Validation,
    checkpoint: Checkpoint | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
    quiet: bool = False,
) -> pd.DataFrame:
    """Train all tails; `Lockstep.weights` then yields the weights to keep.

    Args:
        checkpoint: Saves the state, so that an interrupted run resumes with identical results.
        after_epoch: Called with the epoch and the mean macro F1 of the folds; may raise to stop training.
        quiet: Show neither a progress bar nor a line per epoch.

    Returns:
        Training history with one row per epoch and fold.

    Raises:
        DivergedError: A loss is not finite.
        OutOfTime: The time limit is reached.
    """
    # Seed again, because computing features may have drawn random numbers and reading cached ones has not. Seeds differ
    # between processes, which must drop different blocks.
    set_seed(lockstep.config.seed, device_specific=True)
    training = Training(lockstep, loader, validation, checkpoint)
    hidden = quiet or not lockstep.accelerator.is_main_process
    epochs, done = lockstep.config.epochs, (training.epoch - 1) * len(loader) + training.step
    with tqdm(total=epochs * len(loader), initial=done, desc="training", unit="step", disable=hidden) as bar:
        while training.epoch <= epochs:
            training.learn(bar)
            rows = training.end_epoch()
            log_epoch(lockstep.accelerator, rows)
            if not bar.disable:
                bar.write(_describe(rows, epochs))
            if after_epoch is not None:
                after_epoch(training.epoch - 1, _mean_macro_f1(rows))
    if lockstep.config.keep == "best":
        lockstep.best = [weights for of_fold in training.best["weights"] for weights in of_fold]
    return pd.DataFrame(training.history)


class Training:
    """The state of a training run.

    Attributes:
        epoch: Current epoch, counted from 1.
        step: Number of finished steps of the current epoch.
        history: One row per finished epoch and fold.
        best: Validation accuracy and weights of each fold's best epoch. Its scores are optimistic.
    """

    def __init__(
        self, lockstep: Lockstep, loader: DataLoader, validation: Validation, checkpoint: Checkpoint | None
    ) -> None:
        """Start, or resume from the checkpoint."""
        self.lockstep, self.loader, self.validation, self.checkpoint = lockstep, loader, validation, checkpoint
        self.accelerator = lockstep.accelerator
        self.epoch, self.step, self.history, folds = 1, 0, [], len(lockstep.tails)
        self.best = {"accuracy": [-1.0] * folds, "weights": [[]] * folds}
        self.losses = torch.zeros(folds, device=self.accelerator.device)  # sums of this process
        self.begun = time.perf_counter()  # start of the current epoch, corrected for interruptions
        state = checkpoint.read() if checkpoint else None
        if state is not None:
            self.load_state_dict(state)

    def learn(self, bar: tqdm) -> None:
        """Run the remaining steps of the current epoch."""
        look_every = LOOK_EVERY if self.accelerator.device.type == "cuda" else 1
        self.lockstep.batches.begin(self.epoch, self.step)
        for photos, targets in self.loader:
            self.losses += self.lockstep.step(photos, targets)
            self.step += 1
            bar.update()
            if self.step % look_every == 0 or self.step == len(self.loader):
                self._look()

    def end_epoch(self) -> list[dict[str, float]]:
        """Score all folds, save a checkpoint, and return the new rows of the history."""
        losses = self.accelerator.reduce(self.losses, "sum") / len(self.loader)
        rates = self.lockstep.learning_rates()
        with self.lockstep.weights() as tails:
            scores = self.validation.score(self.accelerator, tails)
            if self.lockstep.config.keep == "best":
                self._keep_best(tails, scores)
        self.lockstep.scheduler.step(self.epoch, _mean_macro_f1(scores))
        seconds = time.perf_counter() - self.begun
        rows = [
            {"epoch": self.epoch, "fold": fold, "train_loss": loss, **score, **rates, "seconds": seconds}
            for fold, (loss, score) in enumerate(zip(losses.tolist(), scores, strict=True))
        ]
        self.history += rows
        self.epoch, self.step, self.losses = self.epoch + 1, 0, torch.zeros_like(self.losses)
        self.begun = time.perf_counter()
        if self.checkpoint is not None:
            self.checkpoint.write(self.state_dict)
        return rows

    def state_dict(self) -> dict:
        """Return everything needed to resume with identical results; collective over all processes."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "losses": self.accelerator.reduce(self.losses, "sum"),
            "seconds": time.perf_counter() - self.begun,
            "lockstep": self.lockstep.state_dict(),
            "best": self.best,
            "random": random_state(self.accelerator),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore the result of `state_dict`."""
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]
        self.losses = state["losses"].to(self.losses) * self.accelerator.is_main_process
        self.begun = time.perf_counter() - state["seconds"]
        self.lockstep.load_state_dict(state["lockstep"])
        weights = [[weight.to(self.losses) for weight in of_fold] for of_fold in state["best"]["weights"]]
        self.best = {**state["best"], "weights": weights}
        restore_random_state(self.accelerator, state["random"])

    def _keep_best(self, tails: Sequence[Tail], scores: list[dict[str, float]]) -> None:
        for fold, (tail, score) in enumerate(zip(tails, scores, strict=True)):
            if score["val_accuracy"] > self.best["accuracy"][fold]:
                self.best["accuracy"][fold] = score["val_accuracy"]
                self.best["weights"][fold] = [p.detach().clone() for _, p in trained_parameters(tail)]

    def _look(self) -> None:
        """Check losses and time limit, identically in all processes."""
        save, stop = self.checkpoint.look() if self.checkpoint is not None else (False, False)
        asked = torch.tensor([save, stop], device=self.losses.device) * self.accelerator.is_main_process
        *losses, save, stop = self.accelerator.reduce(torch.cat([self.losses, asked.to(self.losses)]), "sum").tolist()
        if bad := [fold for fold, loss in enumerate(losses) if not np.isfinite(loss)]:
            raise DivergedError(
                f"the loss of fold {first_few(bad)} is not finite in epoch {self.epoch}: lower train.tail_lr and "
                "train.head_lr, extend the warm-up (train.warmup_epochs), or train in full precision "
                "(train.mixed_precision no)"
            )
        if stop or (save and self.step < len(self.loader)):  # finished epochs are saved anyway
            self.checkpoint.write(self.state_dict)
        if stop:
            raise OutOfTime(
                f"stopped in epoch {self.epoch}, within train.max_hours {self.checkpoint.hours:g}; the checkpoint is "
                "saved: rerun the same command, without --run.restart, to resume"
            )


def _mean_macro_f1(scores: list[dict[str, float]]) -> float:
    return float(np.mean([score["val_macro_f1"] for score in scores]))


def _describe(rows: list[dict[str, float]], epochs: int) -> str:
    mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
    spread = np.std([row["val_macro_f1"] for row in rows])
    return (
        f"epoch {mean['epoch']:.0f}/{epochs}  train loss {mean['train_loss']:.3f}  val loss {mean['val_loss']:.3f}  "
        f"accuracy {mean['val_accuracy']:.3f}  macro F1 {mean['val_macro_f1']:.3f} ± {spread:.3f}  "
        f"{mean['seconds']:.0f} s"
    )
