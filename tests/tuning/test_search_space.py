"""The search space accepts exactly the values that the options accept."""

from dataclasses import replace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from trunkfold.errors import InputError
from trunkfold.tuning.schema import TuneConfig, TuningConfig, parse_tuning
from trunkfold.tuning.search_space import alternatives, best_experiment, draw, read_space, trial_experiment


def tuning(space: dict, **options: object) -> TuningConfig:
    config = parse_tuning(["--run.name", "toy"])
    return replace(config, tune=TuneConfig(space=space, **options))


def drawn(config: TuningConfig, count: int = 30) -> list[dict]:
    """Values of some trials, drawn at random."""
    study, space = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)), read_space(config)
    return [draw(study.ask(), space) for _ in range(count)]


def test_by_default_six_options_are_searched():
    space = read_space(parse_tuning([]))
    names = ["optimizer", "tail_lr", "head_lr", "tail_weight_decay", "head_weight_decay", "batch_size"]
    assert list(space) == [f"train.{name}" for name in names]
    assert space["train.optimizer"] == CategoricalDistribution(("adam", "adamw", "sgd", "nadamw"))
    assert space["train.tail_lr"] == FloatDistribution(1e-5, 1e-2, log=True)


def test_limits_become_numbers_of_the_options_own_kind():
    space = read_space(
        tuning(
            {
                "model.rank": {"low": 2, "high": 8, "step": 2},
                "model.tune_stages": {"low": 1, "high": 2},
                "train.label_smoothing": {"low": 0, "high": 0.5},
                "train.ema_decay": {"low": "9e-1", "high": 0.99},
                "train.warmup_epochs": {"low": 1, "high": 4.0, "log": True},
                "train.class_weights": {"choices": ["none", "balanced"]},
            }
        )
    )
    assert space == {
        "model.rank": IntDistribution(2, 8, step=2),
        "model.tune_stages": IntDistribution(1, 2),
        "train.label_smoothing": FloatDistribution(0, 0.5),
        "train.ema_decay": FloatDistribution(0.9, 0.99),
        "train.warmup_epochs": IntDistribution(1, 4, log=True),
        "train.class_weights": CategoricalDistribution(("none", "balanced")),
    }


def test_a_trial_differs_from_the_experiment_in_what_was_drawn_alone():
    space = {
        "train.ema_decay": {"choices": [None, 0.9]},
        "train.batch_size": {"low": 10, "high": 40, "step": 10},
        "model.scale": {"low": 1.0, "high": 10.0, "log": True},
        "train.one_copy_per_epoch": {"choices": [True, False]},
    }
    config = tuning(space)
    trials = drawn(config)
    assert {trial["train.ema_decay"] for trial in trials} == {None, 0.9}
    assert {trial["train.batch_size"] for trial in trials} == {10, 20, 30, 40}
    for values in trials:
        found, base = trial_experiment(config, values), trial_experiment(config, {})
        assert type(found) is type(base)
        train = found.train
        assert values == {
            "train.ema_decay": train.ema_decay,
            "train.batch_size": train.batch_size,
            "model.scale": found.model.scale,
            "train.one_copy_per_epoch": train.one_copy_per_epoch,
        }
        train = replace(train, ema_decay=None, batch_size=40, one_copy_per_epoch=False)
        assert replace(found, train=train, model=replace(found.model, scale=8.0)) == base


def test_the_best_experiment_is_whole_and_has_a_name_of_its_own():
    config = tuning({"train.tail_lr": {"low": 1e-5, "high": 1e-2}}, best={"train.epochs": 12, "train.tail_lr": 1.0})
    found = best_experiment(config, {"train.tail_lr": 5e-4})
    assert (found.train.tail_lr, found.train.epochs) == (5e-4, 12)
    assert found.run.name == "toy-best"
    assert replace(found, train=config.train, run=config.run) == trial_experiment(config, {})
    usual = best_experiment(tuning(config.tune.space), {})
    assert (usual.train.epochs, usual.train.cached_views) == (30, None)


def test_names_of_other_modules_and_trunks_are_tried_one_at_a_time():
    space = {
        "train.optimizer": {"choices": ["sgd", "adamw"]},
        "train.class_weights": {"choices": ["none", "balanced"]},
        "train.tail_lr": {"choices": [1e-3, 1e-4]},
        "model.tune_stages": {"low": 1, "high": 3},
    }
    config = tuning(space)
    tried = list(alternatives(config, read_space(config)))
    found = [(experiment.train.optimizer, experiment.model.tune_stages) for experiment in tried]
    assert found == [("sgd", 1), ("adamw", 1), ("adamw", 1), ("adamw", 2), ("adamw", 3)]
    assert {experiment.train.tail_lr for experiment in tried} == {config.train.tail_lr}


@pytest.mark.parametrize(
    ("name", "limits", "message"),
    [
        ("train.tail_ir", {"low": 0.1, "high": 1}, "there is no option train.tail_ir; the nearest is train.tail_lr"),
        ("tail_lr", {"low": 0.1, "high": 1}, "the nearest is train.tail_lr"),
        ("train", {"choices": [1]}, "there is no option train"),
        ("train.tail_lr", {"low": 0, "high": 0.1}, "train.tail_lr"),
        ("train.tail_lr", {"low": 0.1, "high": 0.01}, "0.01"),
        ("train.tail_lr", {"low": 0.0, "high": 0.01, "log": True}, "log"),
        ("train.tail_lr", {"low": "little", "high": 1}, "low must be a number, not 'little'"),
        ("train.tail_lr", {"low": 0.1}, "give low and high"),
        ("train.tail_lr", {"low": 0.1, "high": 1, "base": 10}, "give low and high"),
        ("train.tail_lr", {"low": 0.1, "high": 1, "choices": [1]}, "or choices alone"),
        ("train.label_smoothing", {"low": 0.0, "high": 1.5}, "train.label_smoothing"),
        ("train.batch_size", {"low": 20, "high": 40}, "train.batch_size 21 must be a multiple of split.folds 5"),
        ("train.batch_size", {"choices": [20, 42]}, "train.batch_size 42 must be a multiple"),
        ("train.batch_size", {"low": 20, "high": 42.5}, "high must be an integer, not 42.5"),
        ("model.tune", {"low": 0, "high": 1}, "is not a number: give choices"),
        ("train.one_copy_per_epoch", {"low": 0, "high": 1}, "is not a number: give choices"),
        ("model.tune", {"choices": ["block", "most"]}, "model.tune"),
        ("model.tune_stages", {"low": 1, "high": 5}, "model.tune_stages"),
        ("train.clip_grad", {"choices": []}, "choices must be a list of at least one value"),
        ("train.clip_grad", {"choices": 1.0}, "choices must be a list of at least one value"),
        ("train.optimizer_args", {"choices": [{"betas": [0.9, 0.99]}]}, "a choice must be a number, a string"),
        ("train.epochs", {"low": 1, "high": 9}, "cannot be searched: the pruner compares trials epoch by epoch"),
        ("split.folds", {"low": 2, "high": 5}, "cannot be searched: all trials must be scored on the same folds"),
        ("data.image_size", {"choices": [96]}, "cannot be searched: it changes the cached features"),
        ("augment", {"choices": ["none"]}, "cannot be searched: it changes the cached features"),
        ("predict.views", {"choices": ["plain"]}, "cannot be searched: it does not affect trials"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(name, limits, message):
    with pytest.raises(InputError, match=f"tune.space {name}: .*{message}"):
        read_space(tuning({name: limits}))


def test_an_empty_space_and_a_best_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="tune.space is empty"):
        read_space(tuning({}))
    with pytest.raises(InputError, match=r"tune.best: there is no option train\.epoch; the nearest is train\.epochs"):
        read_space(tuning({"train.tail_lr": {"choices": [1e-3]}}, best={"train.epoch": 3}))
