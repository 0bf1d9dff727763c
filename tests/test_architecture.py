"""The package's docstring lists the modules in the order of the flow; no module imports one that stands later."""

import re
from pathlib import Path

import trunkfold

MODULES = {path.stem: path.read_text() for path in Path(trunkfold.__file__).parent.glob("*.py")}
FLOW = re.findall(r"^    (\w+)  ", trunkfold.__doc__, re.MULTILINE)


def imported(source: str) -> set[str]:
    return set(re.findall(r"^from trunkfold\.(\w+) import", source, re.MULTILINE))


def test_every_module_is_listed_or_draws_the_demo():
    assert set(MODULES) - set(FLOW) - {"__init__"} == {name for name in MODULES if name.startswith("demo")}
    assert set(FLOW) <= set(MODULES)


def test_imports_go_one_way():
    for place, name in enumerate(FLOW):
        assert imported(MODULES[name]) <= set(FLOW[:place]), name
