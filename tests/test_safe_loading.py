"""Loading files cannot execute code: neither the source nor a run's files use formats that can."""

import ast
import sys
from pathlib import Path

import pytest
from toys import SOURCE, run_command, write_competition

from trunkfold.config.parsing import load_config
from trunkfold.errors import InputError

MODULES = {
    "pickle",
    "marshal",
    "shelve",
    "joblib",
    "dill",
    "cloudpickle",
    "runpy",
    "importlib",
    "imp",
    "code",
    "codeop",
}
HARMLESS = {  # what may be taken from such modules: names that load nothing
    "importlib.metadata": {"PackageNotFoundError", "distribution", "version"},
    "importlib.resources": {"files"},
    "joblib": {"cpu_count"},
}
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}  # by their bare names
METHODS = {  # by the last part of their names, whatever they are called on
    *("read_pickle", "to_pickle", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "load_module"),
    *("import_module", "exec_module", "spec_from_file_location", "import_object", "load_from_checkpoint"),
}
SUFFIXES = {"", ".yaml", ".csv", ".json", ".safetensors", ".html", ".png", ".jpg"}
PICKLES = (
    *(bytes([0x80, protocol]) for protocol in range(6)),
    b"PK\x03\x04",
    b"(lp",
    b"(dp",
    b"c__builtin__",
    b"\x93NUMPY",
)


def unsafe_calls(source: str) -> list[str]:
    """What in a source text could run code out of data: `line: what`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            taken = {alias.name for alias in node.names}
            harmless = isinstance(node, ast.ImportFrom) and taken <= HARMLESS.get(node.module, set())
            unsafe = [] if harmless else [name for name in names if name.partition(".")[0] in MODULES]
            found += [(node.lineno, f"import {name}") for name in unsafe]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            last = name.rpartition(".")[2]
            unsafe = (
                name in CALLS
                or last in METHODS
                or (name.startswith("torch.") and last == "load" and options.get("weights_only") != "True")
                or (last == "YAML" and options.get("typ") not in ("'safe'", "'rt'"))
                or (name.startswith("yaml.") and last in ("load", "load_all", "Loader", "UnsafeLoader", "FullLoader"))
                or options.get("allow_pickle", "False") != "False"
                or options.get("trust_remote_code", "False") != "False"
            )
            found += [(node.lineno, name)] if unsafe else []
        elif isinstance(node, ast.Attribute) and node.attr in ("UnsafeLoader", "FullLoader", "Loader"):
            found += [(node.lineno, node.attr)] if ast.unparse(node).startswith("yaml.") else []
    return [f"{line}: {what}" for line, what in found]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_source_can_run_what_it_loads(path):
    assert unsafe_calls(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from pickle import loads", "import joblib as j", "import importlib.util", "import marshal"),
        *("eval(text)", "exec(text)", "__import__(name)", "pandas.read_pickle(path)", "pd.read_pickle(path)"),
        *("torch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, 'cpu', weights_only=flag)"),
        *("yaml.load(text)", "yaml.load(text, Loader=yaml.Loader)", "yaml.unsafe_load(text)", "x = yaml.UnsafeLoader"),
        *("YAML(typ='unsafe')", "ruamel.yaml.YAML(typ=kind)"),
        *("np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=flag)"),
        "importlib.import_module(name)",
    ],
)
def test_the_walk_finds_what_is_unsafe(line):
    assert unsafe_calls(line)


def test_the_walk_leaves_alone_what_is_safe():
    safe = (
        "torch.load(path, 'cpu', weights_only=True); np.load(path); yaml.safe_load(text); model.eval(); json.load(file)"
    )
    assert unsafe_calls(safe) == []


def pickles_in(folder: Path) -> list[str]:
    """Files that are pickles, or that may hold some, by name or content."""
    return sorted(
        path.name
        for path in folder.rglob("*")
        if path.is_file() and (path.suffix not in SUFFIXES or path.read_bytes().startswith(PICKLES))
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy run, trained and submitted."""
    folder = tmp_path_factory.mktemp("safe")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_competition(folder / "input", sources=12, unlabelled_sources=3, nested=False, copies=1)
        options = ["--data.root=input", "--data.classes=null", "--data.image_size=64", "--model.name=test_convnext"]
        options += ["--model.pretrained=false", "--split.groups=input/groups.csv", "--split.folds=2"]
        options += ["--split.holdout=0", "--train.batch_size=8", "--train.epochs=1", "--run.name=toy"]
        run_command("train_folds.py", *options)
        run_command("make_submission.py")
    return folder / "submissions/toy"


def test_a_finished_run_holds_no_pickle(run):
    assert (run / "submission.csv").exists()
    assert pickles_in(run) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("w.pth", b""), ("w.pkl", b""), ("w.csv", b"PK\x03\x04archive/data.pkl"), ("w.csv", b"\x80\x04\x95")),
        *(("w.npy", b""), ("w.safetensors", b"\x80\x02}q\x00."), ("w", b"\x93NUMPY")),
    ],
)
def test_the_search_finds_pickles_under_any_name(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert pickles_in(tmp_path) == [name]


@pytest.mark.parametrize(
    "yaml",
    [
        "train: {optimizer_args: {x: {class_path: planted.Planted}}}",
        "train: {optimizer_args: {x: {class_path: planted.Planted, init_args: {}}}}",
        'train: {optimizer_args: {x: "{class_path: planted.Planted}"}}',
        'train: {optimizer_args: {x: "{\\"\\\\x63lass_path\\": planted.Planted}"}}',
        "train: {scheduler_args: {x: [{class_path: planted.Planted}]}}",
        "augment: [{HorizontalFlip: {p: {class_path: planted.Planted}}}]",
        "train: {class_path: planted.Planted}",
        "train: planted.Planted",
        "data: {normalize: planted.Planted}",
        "data: {normalize: {class_path: planted.Planted}}",
        "data: {normalize: '{class_path: planted.Planted}'}",
        "data: {classes: {class_path: planted.Planted}}",
        "run: !!python/object/apply:planted.Planted []",
        "run: {name: !!python/name:planted.Planted }",
        "class_path: planted.Planted",
    ],
)
def test_a_configuration_neither_imports_nor_makes_what_it_names(yaml, tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("class Planted:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml)
    try:
        config = load_config(tmp_path / "config.yaml")
    except InputError:
        pass
    else:  # a text stays a text
        assert isinstance(config.train.optimizer_args["x"], str)
    assert "planted" not in sys.modules


def test_no_python_file_of_a_run_is_looked_at(run, monkeypatch):
    """Whatever lies in the folder beside what was written there is data at most."""
    for name in ("config.py", "model.py", "sitecustomize.py", "__init__.py"):
        (run / name).write_text("raise RuntimeError('was run')")
    monkeypatch.chdir(run.parents[1])
    run_command("make_submission.py", "--run", "submissions/toy")
    for name in ("config.py", "model.py", "sitecustomize.py", "__init__.py"):
        (run / name).unlink()
