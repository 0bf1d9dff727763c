"""pyproject.toml declares every third-party package that the source imports."""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def imported(source: str) -> set[str]:
    """Return the top-level names of all absolute imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_every_imported_package_is_declared():
    text = (ROOT / "pyproject.toml").read_text()  # optional dependencies count
    declared = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r'"([\w.-]+)(?:\[\w+\])?[=>]', text)}
    names = set().union(*(imported(path.read_text()) for path in (ROOT / "src").rglob("*.py")))
    distributions = importlib.metadata.packages_distributions()
    missing = {
        name: distributions.get(name)
        for name in names - set(sys.stdlib_module_names) - {"trunkfold"}
        if declared.isdisjoint(re.sub(r"[-_.]+", "-", found).lower() for found in distributions.get(name, []))
    }
    assert missing == {}
