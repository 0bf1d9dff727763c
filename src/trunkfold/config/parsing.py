"""Parsing of YAML files and dotted command-line options to a `Config`, and dumping as YAML.

Files are data: nothing in them is imported or executed.
"""

import argparse
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import docstring_parser
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

from trunkfold.config.rules import check_config, check_option, describe, option_types, option_values, validate
from trunkfold.config.schema import COMMON, AnyConfig, Config
from trunkfold.errors import InputError, nearest, raise_problems


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises `InputError`s, and suggests the nearest option for an unknown one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **options})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown and not unknown[0].startswith("-"):
            raise InputError(f"unexpected argument {unknown[0]!r}: write options as --name value (--help lists them)")
        if unknown:
            name = unknown[0].partition("=")[0]
            close = nearest(name, self._option_string_actions)
            raise InputError(f"there is no option {name}; the nearest is {close} (--help lists all)")
        return options

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def parse_config(
    args: Sequence[str] | None = None, description: str = "", kind: type[AnyConfig] = Config, **aliases: str
) -> AnyConfig:
    """Parse `--config FILE` and dotted options; options override files, regardless of their order.

    Args:
        args: Arguments; None uses `sys.argv`.
        description: First lines of --help.
        kind: Type of the configuration.
        **aliases: Short names of options: `trials="tune.trials"` adds --trials.

    Raises:
        InputError: An option is unknown, a value is invalid, or options are incompatible; the message names them.
    """
    options = vars(_parser(kind, description, aliases).parse_args(args))
    files, print_config = options.pop("config"), options.pop("print_config")
    config = kind()
    for path in files:
        with _file_named(path):
            config = _override(config, _dotted(_read(path), kind))
    config = _override(config, [given for given in options.items() if given[1] is not None], _validate_word)
    if config.run.name is None:
        config = replace(config, run=replace(config.run, name=files[-1].stem if files else "default"))
    check_config(config)
    if print_config:
        print(dump_config(config), end="")
        sys.exit(0)
    return config


def load_config(path: Path) -> Config:
    """Read a run's config.yaml.

    Raises:
        InputError: The file is missing or is not a valid configuration.
    """
    with _file_named(path):
        config = _override(Config(), _dotted(_read(path), Config))
        check_config(config)
    return config


def with_options(config: AnyConfig, options: Mapping[str, Any]) -> AnyConfig:
    """Return a copy of the configuration with new values of some options, given by dotted name.

    Raises:
        InputError: As `parse_config`.
    """
    changed = _override(config, options.items())
    check_config(changed)
    return changed


def dump_config(config: Config) -> str:
    """Return the configuration as YAML; `load_config` restores an equal one."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style, writer.sort_base_mapping_type_on_output = False, False
    text = io.StringIO()
    writer.dump(asdict(config, dict_factory=_paths_as_text), text)
    return text.getvalue()


def load_yaml(text: str) -> Any:
    """Parse YAML 1.2: mappings, lists, strings, numbers, true, false and null.

    Raises:
        YAMLError: Invalid syntax, a duplicate key, a tag or an alias.
    """
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = _Constructor
    try:
        if any(isinstance(event, AliasEvent) for event in reader.parse(text)):  # aliases can expand exponentially
            raise YAMLError("aliases (*name) are not supported: repeat the value")
        return reader.load(text)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, OverflowError) as error:  # `[[[[ ...`
        raise YAMLError(str(error) or type(error).__name__) from error


def _paths_as_text(options: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in options}


class _Constructor(SafeConstructor):
    """Reads dates such as 2024-01-31, which may be names of runs, as strings."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def _parser(kind: type[Config], description: str, aliases: Mapping[str, str]) -> Parser:
    parser = Parser(description=description, usage="%(prog)s [--config FILE] [--OPTION VALUE ...]")
    parser.add_argument("--config", action="append", type=Path, default=[], help="YAML file of options, see configs/.")
    parser.add_argument("--print_config", action="store_true", help="Print all options as YAML and exit.")
    common, groups, texts = parser.add_argument_group("common options"), {}, {}
    for section in fields(kind):
        nested = is_dataclass(section.type)
        docstring = docstring_parser.parse((section.type if nested else Config).__doc__)
        groups[section.name] = parser.add_argument_group(section.name, nested and docstring.short_description or None)
        texts |= {f"{section.name}.{text.arg_name}" if nested else text.arg_name: text for text in docstring.params}
    defaults = option_values(kind())
    for name, hint in option_types(kind).items():
        default = json.dumps(defaults[name], default=str).strip('"')
        (common if name in COMMON else groups[name.partition(".")[0]]).add_argument(
            *(f"--{option}" for option in (name, *(alias for alias, full in aliases.items() if full == name))),
            **{"dest": name, "metavar": "VALUE", **({"nargs": "?", "const": "true"} if hint is bool else {})},
            help=f"{texts[name].description} ({describe(hint)}; default: {default})".replace("%", "%%"),
        )
    return parser


@contextmanager
def _file_named(path: Path) -> Iterator[None]:
    """Start the message of every `InputError` raised in the block with the file's name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        options = load_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError("no such file") from error
    except UnicodeDecodeError as error:
        raise InputError("not a UTF-8 text file: save it as UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"cannot be read: {getattr(error, 'strerror', error)}") from error
    except YAMLError as error:
        raise InputError(_describe_error(error)) from error
    if not isinstance(options, Mapping | None):
        raise InputError(f"must be a mapping of options, such as `train: {{epochs: 5}}`, not {str(options)[:200]!r}")
    return options or {}


def _dotted(options: Mapping[Any, Any], kind: type[Config]) -> Iterator[tuple[str, Any]]:
    """Yield options by dotted name; empty sections yield none."""
    sections = {option.name for option in fields(kind) if is_dataclass(option.type)}
    for key, value in options.items():
        if key not in sections:
            yield str(key), value
        elif isinstance(value, Mapping):
            yield from ((f"{key}.{name}", part) for name, part in value.items())
        elif value is not None:
            raise InputError(f"{key} is a section: write `{key}: {{option: value}}`, not {value!r}")


def _override(config: AnyConfig, options: Iterable[tuple[str, Any]], check: Callable = validate) -> AnyConfig:
    """Return the configuration with validated options, or raise one error that lists all problems."""
    problems, values, types = [], {}, option_types(type(config))
    for name, value in options:
        try:
            check_option(name, type(config))
            if name in values:
                raise InputError(f"the option {name} is given twice")
            values[name] = check(name, value, types[name])
        except InputError as error:
            problems.append(str(error))
    raise_problems(problems)
    for name, value in values.items():
        section, _, option = name.rpartition(".")
        changed = replace(getattr(config, section), **{option: value}) if section else value
        config = replace(config, **{section or option: changed})
    return config


def _validate_word(name: str, word: str, hint: Any) -> Any:
    """Validate a value from the command line: YAML, or a plain string if the option accepts strings."""
    structured = word.lstrip().startswith(("[", "{"))
    try:
        return validate(name, load_yaml(word), hint)
    except InputError:
        if structured:
            raise
    except YAMLError as error:
        if structured:
            raise InputError(f"{name} is not valid YAML, {_describe_error(error)}") from error
    return validate(name, word, hint)


def _describe_error(error: YAMLError) -> str:
    """Return the position and the reason of a YAML error: `line 3: found duplicate key "epochs"`."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).partition("\n")[0]
