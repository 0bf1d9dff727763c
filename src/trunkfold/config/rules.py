"""Validation of options by dotted name, and of combinations of options."""

import functools
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from trunkfold.config.schema import Config
from trunkfold.errors import InputError, nearest, raise_problems

WORDS = {NoneType: "null", bool: "true or false", int: "an integer", str: "text", Any: "any value"}
adapter_of = functools.cache(TypeAdapter)


def option_types(kind: type[Config] = Config) -> dict[str, Any]:
    """Return the type of each option, by dotted name."""
    types = {}
    for option in fields(kind):
        nested = option_types(option.type) if is_dataclass(option.type) else {"": option.type}
        types |= {f"{option.name}.{name}".rstrip("."): found for name, found in nested.items()}
    return types


def option_values(config: Config) -> dict[str, Any]:
    """Return the value of each option, by dotted name."""
    return {name: attrgetter(name)(config) for name in option_types(type(config))}


def check_option(name: str, kind: type[Config] = Config) -> None:
    """Raise an `InputError` that suggests the nearest option if there is none of this dotted name."""
    known, sections = option_types(kind), [option.name for option in fields(kind)]
    if name not in known:
        close = nearest(name, known if "." in name else [*known, *sections])
        raise InputError(f"there is no option {name}; the nearest is {close}")


def validate(name: str, value: Any, hint: Any) -> Any:
    """Convert a value to the type of its option.

    Raises:
        InputError: The option does not accept the value.
    """
    try:
        return adapter_of(hint).validate_python(value)
    except ValidationError as error:
        shown = "null" if value is None else repr(value)
        shown = shown if len(shown) <= 200 else f"{shown[:200]} ..."
        raise InputError(f"{name} must be {describe(hint)}, not {shown}") from error


def describe(hint: Any) -> str:
    """Describe the values that a type accepts: `a positive integer or null`."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return next((text for text in hint.__metadata__ if isinstance(text, str)), describe(parts[0]))
    if origin in (Union, UnionType):
        return " or ".join(map(describe, parts))
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin is list:
        return f"a list [{describe(parts[0])}, ...]"
    if origin is dict:
        return f"a mapping {{{describe(parts[0])}: {describe(parts[1])}, ...}}"
    if is_dataclass(hint):
        return f"{{{', '.join(f'{option.name}: {describe(option.type)}' for option in fields(hint))}}}"
    return WORDS.get(hint) or f"a {hint.__name__.lower()}"


def check_config(config: Config) -> None:
    """Raise an `InputError` that names the options if their values are incompatible."""
    raise_problems(_problems(config))


def check_run_name(option: str, name: str) -> None:
    """Raise an `InputError` unless a run's name is a valid name of a visible folder directly under submissions/."""
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise InputError(f"{option} {name!r} must be a plain folder name")
    if name == "copies":
        raise InputError(f"{option} copies is reserved for the results of copy searches: choose another name")


def _problems(config: Config) -> Iterator[str]:
    classes, split, batch_size = config.data.classes, config.split, config.train.batch_size
    if classes is not None and len({str(label) for label in classes}) < len(classes):
        yield "data.classes lists a label twice, as a number and as text: remove one of them"
    if classes is not None and (len(classes) < 2 or len(set(classes.values())) < len(classes)):
        yield "data.classes must have at least two labels with distinct names"
    for name in (classes or {}).values():
        if name != name.strip():  # tables are read without surrounding whitespace, also their columns p_<name>
            yield f"data.classes has whitespace around the name {name!r}: remove it"
    if split.holdout == "legacy" and split.groups != "none":
        yield "split.holdout legacy is a random split that separates copies: it requires split.groups none"
    if batch_size % split.folds:
        fits = max(batch_size // split.folds, 1) * split.folds
        yield (
            f"train.batch_size {batch_size} must be a multiple of split.folds {split.folds}, because each batch "
            f"contains equal numbers of photos of all folds: use {fits}, for example"
        )
    if config.run.name is not None:
        check_run_name("run.name", config.run.name)
