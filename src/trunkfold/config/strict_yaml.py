"""YAML read strictly: a key that is there twice, or a class to be made, is an error that names its line."""

import re
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_loader

from trunkfold.errors import InputError

MODE = "trunkfold"  # of jsonargparse's parsers, which then read every value by `load`
CLASSES = {"class_path", "init_args"}  # by which jsonargparse would import and make an object of any class
MOST_NODES = 100_000  # aliases of aliases grow without end
TAG = "tag:yaml.org,2002:"
PLAIN = {  # what is not a text without quotes; YAML 1.1 reads 010 as 8, 1:30 as 90, no as false and 1e-4 as a text
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Texts, numbers, true, false and null look as they do in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in (f"{TAG}null", f"{TAG}merge")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
for _kind, _pattern in PLAIN.items():
    _Loader.add_implicit_resolver(f"{TAG}{_kind}", re.compile(f"(?:{_pattern})$"), list("+-.0123456789tTfF"))


def load(text: str) -> Any:
    """What a YAML text says: mappings, lists, texts, numbers, true, false and null.

    Raises:
        yaml.YAMLError: Its syntax is wrong, a key is there twice, or it names a class to be made.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:  # `!!int x`, `[[[[ ...`
        raise yaml.YAMLError(str(error) or type(error).__name__) from error


set_loader(MODE, load, (yaml.YAMLError,))


def read_options(path: Path) -> dict[str, Any]:
    """A file of options, none of them where it is empty.

    Raises:
        InputError: The file cannot be read, or holds something else; the message names the line.
    """
    try:
        options = load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text in UTF-8: save it as such") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}{describe_error(error)}") from error
    if not isinstance(options, dict | None):
        kind = "a list" if isinstance(options, list) else repr(options)
        raise InputError(f"{path} must hold options, such as `train: {{epochs: 5}}`, not {kind}")
    return options or {}


def describe_error(error: yaml.YAMLError) -> str:
    """Where and why, as it follows a file's name: `, line 3: the key epochs is there twice`."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).partition("\n")[0]
    if "cannot start any token" in reason:
        reason = "a character that YAML does not allow there, such as a tab: indent by blanks"
    return f"{f', line {mark.line + 1}' if mark else ''}: {reason}"


def _check(root: yaml.Node) -> None:
    """Walk all nodes, those behind aliases each time anew."""
    nodes = [root]
    for _ in range(MOST_NODES):
        if not nodes:
            return
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            _check_keys([key for key, _ in node.value])
            nodes += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    raise yaml.YAMLError("it is too large, or an alias contains itself")


def _check_keys(keys: list[yaml.Node]) -> None:
    seen = set()
    for key in keys:
        if not isinstance(key, yaml.ScalarNode):
            raise _error(key, "a key must be a text or a number")
        if key.value in CLASSES:
            raise _error(key, f"{key.value} is refused: options are values, no classes to be made")
        if key.value in seen and key.tag != f"{TAG}merge":
            raise _error(key, f"the key {key.value} is there twice")
        seen.add(key.value)


def _error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
