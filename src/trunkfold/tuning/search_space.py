"""The search space of a study: validation, sampling, and the configuration of a trial."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, get_args

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from trunkfold.config.parsing import with_options
from trunkfold.config.rules import check_option, option_types
from trunkfold.config.schema import Config
from trunkfold.errors import InputError
from trunkfold.tuning.schema import TuningConfig

TRUNK = "model.tune_stages"  # determines which layers belong to the shared trunk
LIMITS = {"low", "high", "log", "step"}
PHOTOS = "it changes the cached features. Compare its values in separate studies (--run.name)"
NO_PART = "it does not affect trials"
FIXED = {  # option prefix: why the option cannot differ between trials
    "data.": PHOTOS,
    "augment": PHOTOS,
    "train.cached_views": PHOTOS,
    "train.seed": PHOTOS,
    "train.mixed_precision": "the precision is fixed per process",
    "split.": "all trials must be scored on the same folds",
    "train.epochs": "the pruner compares trials epoch by epoch, so all need the same number of epochs",
    "predict.": NO_PART,
    "decode.": NO_PART,
    "cache.": NO_PART,
    "run.": NO_PART,
    "tune.": NO_PART,
}

Space = dict[str, BaseDistribution]


def read_space(config: TuningConfig) -> Space:
    """Return the distribution of each searched option, after checking that the option accepts its bounds or choices.

    Raises:
        InputError: tune.space or tune.best is invalid; the message names the option.
    """
    if not config.tune.space:
        raise InputError("tune.space is empty: name at least one option to search")
    best_experiment(config, {})
    space = {}
    for name, limits in config.tune.space.items():
        try:
            space[name] = _distribution(name, limits)
            for value in probes(space[name]):
                trial_experiment(config, {name: value})
        except (InputError, ValueError) as error:
            raise InputError(f"tune.space {name}: {error}") from error
    return space


def draw(trial: Trial, space: Space) -> dict[str, Any]:
    """Sample a trial's values, by option."""
    values = {}
    for name, limits in space.items():
        if isinstance(limits, CategoricalDistribution):
            values[name] = trial.suggest_categorical(name, limits.choices)
        else:
            suggest = trial.suggest_int if isinstance(limits, IntDistribution) else trial.suggest_float
            values[name] = suggest(name, limits.low, limits.high, step=limits.step, log=limits.log)
    return values


def probes(limits: BaseDistribution) -> list[Any]:
    """Return values that represent a distribution in checks: all choices, or both bounds and the first step."""
    if isinstance(limits, CategoricalDistribution):
        return list(limits.choices)
    between = [] if limits.step is None else [min(limits.low + limits.step, limits.high)]
    return [limits.low, *between, limits.high]


def trial_experiment(config: TuningConfig, values: Mapping[str, Any]) -> Config:
    """Return the configuration of a trial, without the search.

    Raises:
        InputError: The configuration does not accept the values.
    """
    chosen = with_options(config, values)
    return Config(**{option.name: getattr(chosen, option.name) for option in fields(Config)})


def best_experiment(config: TuningConfig, values: Mapping[str, Any]) -> Config:
    """Return the configuration for best.yaml: a trial's values, and the options of tune.best that were not searched.

    Raises:
        InputError: tune.best contains an unknown option or an invalid value.
    """
    try:
        found = trial_experiment(config, {**config.tune.best, **values})
    except InputError as error:
        raise InputError(f"tune.best: {error}") from error
    return replace(found, run=replace(found.run, name=f"{config.run.name}-best", restart=False))


def alternatives(config: TuningConfig, space: Space) -> Iterator[Config]:
    """Yield one configuration per trunk, and per name that only a library can check, such as an optimizer's."""
    for name, limits in space.items():
        if name == TRUNK or str in set(_kinds(option_types()[name])):
            for value in probes(limits):
                yield trial_experiment(config, {name: value})


def _distribution(name: str, limits: Mapping[str, Any]) -> BaseDistribution:
    """Return the distribution of one option.

    Raises:
        InputError: There is no such option.
        ValueError: The option cannot be searched, or its limits are invalid.
    """
    check_option(name)
    reasons = [reason for beginning, reason in FIXED.items() if name.startswith(beginning)]
    if reasons:
        raise ValueError(f"cannot be searched: {reasons[0]}")
    if set(limits) == {"choices"}:
        return CategoricalDistribution(_choices(limits["choices"]))
    if not {"low", "high"} <= set(limits) <= LIMITS:
        raise ValueError(f"give low and high (optionally with log or step), or choices alone, not {dict(limits)}")
    kinds = [kind for kind in _kinds(option_types()[name]) if issubclass(kind, int | float) and kind is not bool]
    if not kinds:
        raise ValueError("is not a number: give choices")
    whole = all(issubclass(kind, int) for kind in kinds)
    numbers = {key: _number(key, value, whole) for key, value in limits.items() if key != "log"}
    kind = IntDistribution if whole else FloatDistribution
    return kind(**numbers, log=bool(limits.get("log", False)))


def _choices(choices: Any) -> list[Any]:
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"choices must be a list of at least one value, not {choices!r}")
    for choice in choices:
        if not isinstance(choice, bool | int | float | str | None):
            raise ValueError(f"a choice must be a number, a string, true, false or null, not {choice!r}")
    return choices


def _number(key: str, value: Any, whole: bool) -> int | float:
    try:
        number = float(value)  # YAML parses 1e-4 as a string
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key} must be a number, not {value!r}") from error
    if whole and not number.is_integer():
        raise ValueError(f"{key} must be an integer, not {value!r}")
    return int(number) if whole else number


def _kinds(hint: Any) -> Iterator[type]:
    """Yield the types in an option's type hint; of a literal, only integers count."""
    parts = get_args(hint)
    if isinstance(hint, type) and not parts:
        yield hint
    elif isinstance(hint, int):
        yield int
    for part in parts:
        yield from _kinds(part)
