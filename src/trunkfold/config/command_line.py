"""The command line: jsonargparse's parser, whose complaints name the option, the value and what is wanted."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, typing

from trunkfold.config.strict_yaml import MODE, describe_error, load
from trunkfold.errors import InputError, nearest

KINDS = {
    NoneType: "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    Any: "anything",
    typing.PositiveInt: "a whole number above 0",
    typing.NonNegativeInt: "a whole number from 0 on",
    typing.PositiveFloat: "a number above 0",
    typing.NonNegativeFloat: "a number from 0 on",
    typing.ClosedUnitInterval: "a number from 0 to 1",
    typing.OpenUnitInterval: "a number between 0 and 1",
}


class Parser(ArgumentParser):
    """jsonargparse's parser; raises its complaints as `InputError` instead of printing a screen of usage above them.

    Attributes:
        types: Type of each option, by its dotted name.
        given: The options of the file that is being read.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "parser_mode": MODE, **options})
        self.types: dict[str, Any] = {}
        self.given: dict[str, Any] = {}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(self._explain(message)) from ex

    def _explain(self, message: str) -> str:
        if found := re.match(r"unrecognized arguments: (\S*)", message):
            return self._explain_unknown(found[1])
        if found := re.match(r"argument (--\S+?)(?:/\S+)?: expected (?:at least )?one argument", message):
            wanted = self._type_of(found[1].removeprefix("--"))
            return f"{found[1]} needs a value" + (f": {describe(wanted)}" if wanted else "")
        found = re.match(r'Parser key "([^"]+)":?\s*', message)
        if found and (wanted := self._type_of(found[1])):
            return f"{found[1]} must be {describe(wanted)}{self._describe_given(found[1])}"
        if found:
            return f"--{found[1]}: {' '.join(message[found.end() :].split())}"
        return message

    def _type_of(self, name: str) -> Any:
        """An option's type, None for what is no option."""
        own = {action.dest: getattr(action, "_typehint", action.type) for action in self._actions}
        return self.types.get(name) or own.get(name)

    def _explain_unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word!r} belongs to no option: options are given as --name value (--help lists them)"
        known = [name for action in self._actions for name in action.option_strings]
        option = word.partition("=")[0]
        return f"there is no option {option}; the nearest is {nearest(option, known)} (--help lists all)"

    def _describe_given(self, name: str) -> str:
        """What the option was given: `, not 'many'`."""
        words = getattr(self, "args", None) or []
        pairs = [(*word.split("=", 1), after) for word, after in zip(words, [*words[1:], ""], strict=False)]
        values = [value for option, value, *_ in pairs if option == f"--{name}"]
        if name in self.given:
            return f", not {_shown(self.given[name])}"
        if not values:
            return ""
        try:
            load(values[-1])
        except yaml.YAMLError as error:
            return f", not {_shown(values[-1])}{describe_error(error)}"
        return f", not {_shown(values[-1])}"


def accepts_null(hint: Any) -> bool:
    """Whether null is a value of this type."""
    return hint is NoneType or any(accepts_null(part) for part in get_args(hint) if _is_union(hint))


def names_class(hint: Any, text: str) -> bool:
    """Whether a text stands where options of their own are wanted, and is none of the words that may stand there."""
    parts = get_args(hint) if _is_union(hint) else (hint,)
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    return any(is_dataclass(part) for part in parts) and text not in words


def describe(hint: Any) -> str:
    """What values of a type are, in words: `a whole number above 0 or null`."""
    if _is_union(hint):
        return " or ".join(describe(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(str(choice) for choice in get_args(hint))
    if get_origin(hint) is list:
        return f"a list [{', '.join(map(describe, get_args(hint)))}, ...]"
    if get_origin(hint) is dict:
        return f"a mapping {{{': '.join(map(describe, get_args(hint)))}, ...}}"
    if is_dataclass(hint):
        return f"a mapping {{{', '.join(f'{option.name}: {describe(option.type)}' for option in fields(hint))}}}"
    return KINDS.get(hint, getattr(hint, "__name__", str(hint)))


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
