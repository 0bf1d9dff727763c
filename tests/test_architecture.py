"""The package's docstring lists the rooms and their imports; every import is checked against it with `ast`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import trunkfold

PACKAGE = Path(trunkfold.__file__).parent
ROOMS = {
    name: set(allowed.split())
    for name, allowed in re.findall(r"^    (\w+)  +\S.*?(?:  +([\w ]+))?$", trunkfold.__doc__, re.MULTILINE)
}
COMMON = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES_OF_MODULE, LINES_OF_FUNCTION = 250, 50


def imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every module of the package that a module imports, in whatever form."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if name.name.split(".")[0] == "trunkfold")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *filter(None, [base])])
            if base == "trunkfold":
                yield from ((node.lineno, f"trunkfold.{name.name}") for name in node.names)
            elif base.startswith("trunkfold."):
                yield node.lineno, base


def room_of(module: str) -> str | None:
    """The room of a module; None for those that every room may import."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None


def violations(source: str, module: str) -> list[str]:
    """Each import that the room of a module may not make, as `line N: what imports what`."""
    room = room_of(module)
    allowed = {room, None} | (ROOMS[room] if room else set())
    return [
        f"line {line}: {module} imports {name}"
        for line, name in imports(source, module)
        if room_of(name) not in allowed
    ]


def rooms_imported(room: str) -> set[str]:
    """The rooms that the modules of a room import from."""
    paths = (PACKAGE / room).rglob("*.py")
    found = {room_of(name) for path in paths for _, name in imports(path.read_text(), name_of(path))}
    return found - {room, None}


def arrows() -> set[str]:
    """Arrows from room to importing room, without those that follow from others."""
    uses = {room: rooms_imported(room) for room in ROOMS}
    all_uses: dict[str, set[str]] = {}
    for room in ROOMS:  # in order, so that the rooms it uses are complete
        all_uses[room] = uses[room].union(*(all_uses[used] for used in uses[room]))
    return {
        f"{used} --> {room}"
        for room in ROOMS
        for used in uses[room]
        if not any(used in all_uses[other] for other in uses[room])
    }


def name_of(path: Path) -> str:
    return ".".join(["trunkfold", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_only_where_the_room_may_go(path):
    assert violations(path.read_text(), name_of(path)) == []


def test_every_folder_is_a_listed_room_and_the_arrows_run_forward():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS)
    for place, (room, allowed) in enumerate(ROOMS.items()):
        assert allowed <= set(list(ROOMS)[:place]), room


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_may_import_only_what_it_does_import(room):
    assert ROOMS[room] == rooms_imported(room)


def test_the_diagram_shows_the_rooms_and_their_arrows():
    page = (PACKAGE / "README.md").read_text()
    diagram = page.split("```")[1]
    lines = [line.strip() for line in diagram.splitlines()]
    titles = re.findall(r"^    (\w+)  +(\S.*?)(?:  +[\w ]+)?$", trunkfold.__doc__, re.MULTILINE)
    assert [line for line in lines if '"' in line] == [f'{room}["{room}: {title}"]' for room, title in titles]
    assert {line for line in lines if "-->" in line} == arrows()


def test_the_ways_of_a_photo_and_of_an_option_lead_through_modules_that_exist():
    page = (PACKAGE / "README.md").read_text()
    modules = re.findall(r'\["(\w+/\w+\.py)', page)
    assert len(modules) > 10
    assert all((PACKAGE / module).is_file() for module in modules)


def test_every_room_says_what_comes_in_and_what_goes_out():
    for room in ROOMS:
        text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
        assert "In:" in text or room == "demo", room
        assert "Out:" in text, room


@pytest.mark.parametrize(
    "line",
    [
        "import trunkfold.training.loop",
        "import trunkfold.training.loop as loop",
        "from trunkfold.training import loop",
        "from trunkfold.training.loop import train",
        "from trunkfold import training",
        "from ..training import loop",
        "from ..training.loop import train",
        "def later():\n    from trunkfold.training.loop import train",
    ],
)
def test_every_form_of_import_is_seen(line):
    assert violations(line, "trunkfold.data.tables")
    assert not violations(line, "trunkfold.tuning.study")


@pytest.mark.parametrize("room", ["evaluation", "report"])
def test_rooms_that_need_no_torch_do_not_load_it(room):
    for path in (PACKAGE / room).glob("*.py"):
        found = re.findall(r"^\s*(?:import|from) (torch|accelerate|timm|peft)\b", path.read_text(), re.MULTILINE)
        assert not found, path.name


@pytest.mark.parametrize("path", [*MODULES, *PACKAGE.parent.glob("*.py")], ids=lambda path: path.stem)
def test_modules_and_functions_are_short(path):
    source = path.read_text()
    lengths = {path.stem: len(source.splitlines()) - LINES_OF_MODULE}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lengths[node.name] = node.end_lineno - node.lineno + 1 - LINES_OF_FUNCTION
    assert {name: lines for name, lines in lengths.items() if lines > 0} == {}, "lines too many"
