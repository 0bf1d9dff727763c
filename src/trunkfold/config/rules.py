"""What options there are, and what is wrong with their values, alone and together."""

import functools
import math
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from trunkfold.config.command_line import accepts_null, describe
from trunkfold.config.schema import Config, Normalization
from trunkfold.errors import InputError, nearest


def option_types(kind: type[Config] = Config) -> dict[str, Any]:
    """The type of each option, by its dotted name."""
    types = {}
    for option in fields(kind):
        nested = option_types(option.type) if is_dataclass(option.type) else {"": option.type}
        types |= {f"{option.name}.{name}".rstrip("."): found for name, found in nested.items()}
    return types


def option_values(config: Config) -> dict[str, Any]:
    """The value of each option, by its dotted name."""
    return {name: functools.reduce(getattr, name.split("."), config) for name in option_types(type(config))}


def check_option(name: str, kind: type[Config] = Config) -> None:
    """Raise an `InputError` that names the nearest option unless there is one of this dotted name."""
    known, sections = option_types(kind), [option.name for option in fields(kind)]
    if name not in known:
        raise InputError(
            f"there is no option {name}; the nearest is {nearest(name, known if '.' in name else [*known, *sections])}"
        )


def check_config(config: Config) -> None:
    """Raise an `InputError` that names the options, where their values cannot work, alone or together."""
    _check_values(config)
    data, split, train, name = config.data, config.split, config.train, config.run.name
    if data.classes is not None and len({str(label) for label in data.classes}) < len(data.classes):
        raise InputError("data.classes names a label twice, once as a number and once as a text")
    if data.classes is not None and (len(data.classes) < 2 or len(set(data.classes.values())) < len(data.classes)):
        raise InputError("data.classes must give at least two labels, each a name of its own")
    if isinstance(data.normalize, Normalization) and {len(data.normalize.mean), len(data.normalize.std)} != {3}:
        raise InputError("data.normalize needs three means and three standard deviations: of red, green and blue")
    if split.holdout == 1:
        raise InputError("split.holdout must be less than 1: something has to be left to train on")
    if split.holdout == "legacy" and split.groups != "none":
        raise InputError(
            "split.holdout legacy is a random split of photos and separates copies: it needs split.groups none"
        )
    if train.batch_size % split.folds:
        fits = max(train.batch_size // split.folds, 1) * split.folds
        raise InputError(
            f"train.batch_size {train.batch_size} must be a multiple of split.folds {split.folds}, "
            f"because each batch holds the same number of photos of every fold: {fits} would do"
        )
    for option, share in (
        ("train.label_smoothing", train.label_smoothing),
        ("model.drop_path", config.model.drop_path),
    ):
        if share == 1:
            raise InputError(f"{option} must be less than 1: nothing would be left to learn from")
    if not config.predict.views:
        raise InputError("predict.views is empty: name at least one view, such as plain")
    if name is not None:
        check_run_name("run.name", name)


def _check_values(config: Config) -> None:
    """Raise an `InputError` where an option is null that must not be, or a number is not finite."""
    types = option_types(type(config))
    for name, value in option_values(config).items():
        hint = types[name]
        if value is None and not accepts_null(hint):
            raise InputError(f"{name} must be {describe(hint)}, not null")
        if name.endswith("seed") and value >= 2**32:
            raise InputError(f"{name} must be less than 2**32, not {value}")
        if not all(math.isfinite(number) for number in _numbers(value)):
            raise InputError(f"{name} must be finite, not {value!r}")


def _numbers(value: Any) -> Iterator[float]:
    """All numbers with a point in a value."""
    if is_dataclass(value):
        value = asdict(value)
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)


def check_run_name(option: str, name: str) -> None:
    """Raise an `InputError` unless a run's name is that of a visible folder right under submissions/."""
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise InputError(f"{option} {name!r} must be a plain folder name")
    if name == "copies":
        raise InputError(f"{option} copies is where the groups of copies lie: choose another name")
