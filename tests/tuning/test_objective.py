"""Outcomes of a trial: complete, pruned or failed."""

from collections.abc import Callable

import optuna
import pandas as pd
import pytest
import torch

from trunkfold.errors import DivergedError, InputError, MemoryFullError
from trunkfold.tuning import objective as trials
from trunkfold.tuning.objective import Objective
from trunkfold.tuning.schema import parse_tuning
from trunkfold.tuning.search_space import read_space


def run(monkeypatch: pytest.MonkeyPatch, train: Callable, pruner: optuna.pruners.BasePruner | None = None):
    """A study of two trials, whose training is replaced by `train`, which is given `after_epoch`."""
    monkeypatch.setattr(trials, "run_trial", lambda config, labelled, accelerator, after_epoch: train(after_epoch))
    config = parse_tuning([])
    study = optuna.create_study(direction="maximize", pruner=pruner or optuna.pruners.NopPruner())
    study.optimize(Objective(config, read_space(config), None, None), n_trials=2)
    return study.trials


def test_a_trial_is_worth_the_folds_mean_after_the_last_epoch(monkeypatch):
    def train(after_epoch):
        after_epoch(1, 0.9)
        after_epoch(2, 0.6)
        return pd.DataFrame({"epoch": [1, 1, 2, 2], "fold": [0, 1, 0, 1], "val_macro_f1": [0.9, 0.9, 0.5, 0.7]})

    for trial in run(monkeypatch, train):
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert trial.value == pytest.approx(0.6)
        assert trial.user_attrs["std over folds"] == pytest.approx(0.1)
        assert trial.intermediate_values == {1: 0.9, 2: 0.6}


def test_the_pruner_ends_a_training_after_any_epoch(monkeypatch):
    def train(after_epoch):
        for epoch in range(1, 10):
            after_epoch(epoch, 0.1)

    for trial in run(monkeypatch, train, optuna.pruners.ThresholdPruner(lower=0.5, n_warmup_steps=3)):
        assert trial.state == optuna.trial.TrialState.PRUNED
        assert trial.last_step == 3
        assert trial.value == pytest.approx(0.1)
        assert "reason" not in trial.user_attrs


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DivergedError("nan"), "diverged"),
        (torch.cuda.OutOfMemoryError("2 GiB"), "out of memory"),
        (MemoryFullError("2 GiB"), "out of memory"),
    ],
    ids=["diverged", "memory", "told memory"],
)
def test_a_training_that_fails_by_its_options_counts_as_the_worst(monkeypatch, error, reason):
    def train(after_epoch):
        after_epoch(1, 0.5)
        raise error

    for trial in run(monkeypatch, train):
        assert trial.state == optuna.trial.TrialState.PRUNED
        assert trial.value == 0
        assert trial.intermediate_values == {1: 0.5, 2: 0.0}
        assert trial.user_attrs["reason"] == reason


def test_a_configuration_that_cannot_work_ends_the_study(monkeypatch):
    def train(after_epoch):
        raise InputError("wrong")

    with pytest.raises(InputError, match="wrong"):
        run(monkeypatch, train)
