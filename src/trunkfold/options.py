"""Experiments read from YAML files and dotted command-line options, checked, and written back."""

import difflib
from argparse import SUPPRESS
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from trunkfold.config import AnyConfig, Config, Normalization, TuningConfig
from trunkfold.errors import InputError


def parse_config(args: list[str] | None = None, description: str = "") -> Config:
    """Read `--config FILE` and dotted overrides from the command line.

    Args:
        args: Command-line words; None takes those of the program.
        description: First lines of --help.

    Raises:
        InputError: An unknown key, a wrong type, or a combination of options that cannot work; it names the key.
    """
    parser = _parser(Config, description)
    return _complete(Config, parser, parser.parse_args(args))


def parse_tuning(args: list[str] | None = None, description: str = "") -> TuningConfig:
    """`parse_config` of a study, which has a section `tune` and the option --trials.

    Raises:
        InputError: As `parse_config`.
    """
    parser = _parser(TuningConfig, description)
    parser.add_argument("--trials", type=PositiveInt, default=SUPPRESS, help="The same as --tune.trials.")
    namespace = parser.parse_args(args)
    namespace["tune.trials"] = namespace.pop("trials", namespace["tune.trials"])
    return _complete(TuningConfig, parser, namespace)


def load_config(path: Path) -> Config:
    """Read a run's config.yaml.

    Raises:
        InputError: The file is missing or is not a configuration.
    """
    parser = _parser()
    try:
        return _instantiate(Config, parser, parser.parse_path(path))
    except Exception as error:  # jsonargparse passes on whatever the YAML reader and the file system raise
        raise InputError(f"{path} is not a configuration of trunkfold: {error}") from error


def dump_config(config: Config) -> str:
    """The configuration as YAML that `--config` reads back to an equal one."""
    return _parser(type(config)).dump(_namespace(config), skip_unset=False)


def option_types(kind: type[Config] = Config) -> dict[str, Any]:
    """The type of each option, by its dotted name."""
    types = {}
    for option in fields(kind):
        nested = option_types(option.type) if is_dataclass(option.type) else {"": option.type}
        types |= {f"{option.name}.{name}".rstrip("."): found for name, found in nested.items()}
    return types


def check_option(name: str, kind: type[Config] = Config) -> None:
    """Raise an `InputError` that names the nearest option unless there is one of this dotted name."""
    known = option_types(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, cutoff=0)[0]
        raise InputError(f"there is no option {name}; the nearest is {near}")


def with_options(config: AnyConfig, options: Mapping[str, Any]) -> AnyConfig:
    """The experiment with other values of some options, which are checked like those of a file.

    Args:
        config: Where the others are taken from.
        options: Values by dotted name.

    Raises:
        InputError: As `parse_config`.
    """
    parser = _parser(type(config))
    given: dict[str, Any] = {}
    for name, value in options.items():
        check_option(name, type(config))
        *sections, last = name.split(".")
        place = given
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    changed = _instantiate(type(config), parser, parser.parse_object(given, _namespace(config)))
    _check(changed)
    return changed


class Parser(ArgumentParser):
    """jsonargparse's parser; raises its complaints as `InputError` instead of printing a screen of usage above them."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(f"{message}\n(--help lists every option)") from ex


def _parser(kind: type[Config] = Config, description: str = "") -> Parser:
    parser = Parser(description=description, allow_abbrev=False)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file of an experiment, see configs/.")
    parser.add_class_arguments(kind, as_group=False)
    return parser


def _complete(kind: type[AnyConfig], parser: Parser, namespace: Namespace) -> AnyConfig:
    """The checked configuration, with a name."""
    config = _instantiate(kind, parser, namespace)
    if config.run.name is None:
        name = Path(namespace.config[-1].absolute).stem if namespace.config else "default"
        config = replace(config, run=replace(config.run, name=name))
    _check(config)
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


def _check(config: Config) -> None:
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
    if not config.predict.views:
        raise InputError("predict.views is empty: name at least one view, such as plain")
    check_run_name("run.name", name)


def check_run_name(option: str, name: str) -> None:
    """Raise an `InputError` unless a run's name is that of a visible folder right under submissions/."""
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise InputError(f"{option} {name!r} must be a plain folder name")
    if name == "copies":
        raise InputError(f"{option} copies is where the groups of copies lie: choose another name")
