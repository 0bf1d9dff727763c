"""Experiments read from YAML files and dotted command-line options, checked, and written back."""

import sys
from argparse import SUPPRESS
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, Namespace
from jsonargparse.typing import PositiveInt

from trunkfold.config.command_line import Parser, names_class
from trunkfold.config.rules import check_config, check_option, option_types
from trunkfold.config.schema import AnyConfig, Config, TuningConfig
from trunkfold.config.strict_yaml import read_options
from trunkfold.errors import InputError, raise_problems


def parse_config(args: list[str] | None = None, description: str = "") -> Config:
    """Read `--config FILE` and dotted overrides from the command line.

    Args:
        args: Command-line words; None takes those of the program.
        description: First lines of --help.

    Raises:
        InputError: An unknown key, a wrong type, or a combination of options that cannot work; it names the key.
    """
    parser = _parser(Config, description)
    return _complete(Config, parser, parser.parse_args(_files_first(args)))


def parse_tuning(args: list[str] | None = None, description: str = "") -> TuningConfig:
    """`parse_config` of a study, which has a section `tune` and the option --trials.

    Raises:
        InputError: As `parse_config`.
    """
    parser = _parser(TuningConfig, description)
    parser.add_argument("--trials", type=PositiveInt, default=SUPPRESS, help="The same as --tune.trials.")
    namespace = parser.parse_args(_files_first(args))
    namespace["tune.trials"] = namespace.pop("trials", namespace["tune.trials"])
    return _complete(TuningConfig, parser, namespace)


def load_config(path: Path) -> Config:
    """Read a run's config.yaml.

    Raises:
        InputError: The file is missing or is not a configuration.
    """
    try:
        parser = _parser()
        config = _instantiate(Config, parser, _merged(Config, parser, read_options(path), parser.get_defaults()))
        check_config(config)
    except InputError as error:
        raise InputError(f"{path} is not a configuration of trunkfold: {error}") from error
    return config


def dump_config(config: Config) -> str:
    """The configuration as YAML that `--config` reads back to an equal one."""
    return _parser(type(config)).dump(_namespace(config), skip_unset=False)


def with_options(config: AnyConfig, options: Mapping[str, Any]) -> AnyConfig:
    """The experiment with other values of some options, which are checked like those of a file.

    Args:
        config: Where the others are taken from.
        options: Values by dotted name.

    Raises:
        InputError: As `parse_config`.
    """
    parser = _parser(type(config))
    changed = _instantiate(type(config), parser, _merged(type(config), parser, options, _namespace(config)))
    check_config(changed)
    return changed


class _File(ActionConfigFile):
    """--config FILE, read by us: jsonargparse names no file, no line and no nearest option."""

    def __call__(self, parser: Parser, namespace: Namespace, value: str, option_string: str | None = None) -> None:
        path = Path(value)
        earlier = namespace.pop("config", None) or []
        try:
            merged = _merged(parser.kind, parser, read_options(path), namespace)
        except InputError as error:
            raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
        vars(namespace).update(vars(merged), config=[*earlier, path])


def _files_first(words: list[str] | None) -> list[str]:
    """The command line with its files in front: an option counts more than a file, wherever it stands."""
    words = sys.argv[1:] if words is None else words
    places = range(len(words))
    files = {place for place in places if words[place].partition("=")[0] == "--config"}
    files |= {place + 1 for place in files if "=" not in words[place]}
    return [words[place] for place in sorted(places, key=lambda place: place not in files)]


def _parser(kind: type[Config] = Config, description: str = "") -> Parser:
    parser = Parser(description=description)
    parser.kind, parser.types = kind, option_types(kind)
    parser.add_argument("--config", action=_File, help="YAML file of an experiment, see configs/.")
    parser.add_class_arguments(kind, as_group=False)
    for action in parser._actions:
        if parser.types.get(action.dest) is bool:
            action.nargs, action.const = "?", True  # the bare option switches it on
    return parser


def _merged(kind: type[Config], parser: Parser, options: Mapping[str, Any], base: Namespace) -> Namespace:
    """The options of a file, or dotted ones, put over others and checked one by one."""
    found = list(_dotted(options, kind))
    names = [name for name, _ in found]
    problems = [
        f"the option {name} is given twice" for name in sorted({name for name in names if names.count(name) > 1})
    ]
    for name in names:
        try:
            check_option(name, kind)
        except InputError as error:
            problems.append(str(error))
    raise_problems(problems)
    parser.given = dict(found)
    try:
        return _parsed(parser, parser.given, base)
    except InputError:
        for name, value in found:  # all that is wrong, not only the first
            try:
                _parsed(parser, {name: value}, base)
            except InputError as error:
                problems.append(str(error))
        raise_problems(problems)
        raise
    finally:
        parser.given = {}


def _parsed(parser: Parser, options: Mapping[str, Any], base: Namespace) -> Namespace:
    """Dotted options put over others."""
    nested: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, str) and names_class(parser.types[name], value):
            parser.error(f'Parser key "{name}"')  # jsonargparse would import what the text may name
        *sections, last = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return parser.parse_object(nested, base, defaults=False)


def _dotted(options: Mapping[str, Any], kind: type, before: str = "") -> Iterator[tuple[str, Any]]:
    """Options by dotted name; an empty section has none.

    Raises:
        InputError: A section is no mapping.
    """
    sections = {option.name: option.type for option in fields(kind) if is_dataclass(option.type)}
    for key, value in options.items():
        name = f"{before}{key}"
        if key not in sections:
            yield name, value
        elif isinstance(value, Mapping):
            yield from _dotted(value, sections[key], f"{name}.")
        elif value is not None:
            raise InputError(f"{name} must hold options of its own, not {value!r}")


def _complete(kind: type[AnyConfig], parser: Parser, namespace: Namespace) -> AnyConfig:
    """The checked configuration, with a name."""
    config = _instantiate(kind, parser, namespace)
    if config.run.name is None:
        name = namespace.config[-1].stem if namespace.config else "default"
        config = replace(config, run=replace(config.run, name=name))
    check_config(config)
    return config


def _instantiate(kind: type[AnyConfig], parser: Parser, namespace: Namespace) -> AnyConfig:
    for option in fields(kind):
        # jsonargparse lets it through
        if is_dataclass(option.type) and not isinstance(namespace[option.name], Namespace):
            raise InputError(f"{option.name} must hold options of its own, not {namespace[option.name]!r}")
    values = parser.instantiate(namespace).as_dict()
    return kind(**{option.name: values[option.name] for option in fields(kind)})


def _namespace(config: Any) -> Namespace:
    return Namespace(
        {name: _namespace(value) if is_dataclass(value) else value for name, value in vars(config).items()}
    )
