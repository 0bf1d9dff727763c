"""For arbitrary bytes, readers return a result or raise an `InputError`, never another exception."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file
from toys import argmax_table, write_competition

from trunkfold.config.parsing import dump_config, load_config, load_yaml, parse_config
from trunkfold.config.rules import option_types
from trunkfold.config.schema import Config, DataConfig, ModelConfig, RunConfig, SplitConfig
from trunkfold.csv_table import read_text_table
from trunkfold.data.photos import read_photo
from trunkfold.data.tables import Competition, table_problems
from trunkfold.errors import InputError
from trunkfold.evaluation.evaluate import assess_run
from trunkfold.evaluation.predictions import (
    probabilities_of,
    probability_table,
    read_folds,
    read_predictions,
)
from trunkfold.files import write_csv
from trunkfold.metrics import Metrics, Split
from trunkfold.model.backbone import build_backbone
from trunkfold.model.ensemble import load_ensemble, save_fold, save_shared
from trunkfold.output.submission import sample_problems
from trunkfold.run_folder import RunFolder
from trunkfold.split.groups import read_groups

EXAMPLES = float(os.environ.get("FUZZ_EXAMPLES_TIMES", "1"))  # more of them, other ones each time
settings.register_profile("fuzz", deadline=None, derandomize=EXAMPLES == 1, database=None)
CLASSES = {"1": "crack", "2": "dent"}
TOY = Config(
    data=DataConfig(image_size=64, classes=CLASSES),
    split=SplitConfig(folds=2),
    model=ModelConfig("test_convnext", pretrained=False),
    run=RunConfig("toy"),
)


def many(examples: int) -> Callable:
    """As many examples, the same ones each time."""
    return settings(
        settings.get_profile("fuzz"),
        max_examples=int(examples * EXAMPLES),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def refused(error: Exception) -> None:
    """A reader's own error, which says something."""
    assert str(error)


def outcome(read: Callable, *args: object) -> object:
    """What a reader gives; None where it refuses in one message that names the file."""
    try:
        return read(*args)
    except InputError as error:
        return refused(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """The files that a run is read from."""
    run = folder / "run"
    run.mkdir()
    made = RunFolder(run, write=True)
    backbone = build_backbone(TOY.model, len(CLASSES), load_weights=False)
    save_shared(made, backbone)
    for fold in range(TOY.split.folds):
        save_fold(made, fold, backbone.make_tail(fold))
    folds = pd.DataFrame({"image_id": ["1", "2", "3"], "filename": "a.png", "label": ["1", "2", "1"]})
    folds = folds.assign(group=["a", "b", "c"], fold=[0, 1, -1])
    write_csv(folds, run / "folds.csv")
    write_csv(folds[["image_id", "group"]].assign(set="train"), run / "groups.csv")
    probabilities = np.array([[0.2, 0.8], [0.5, 0.5], [1, 0]])
    write_csv(argmax_table(folds, probabilities, CLASSES), run / "oof.csv")
    write_csv(probability_table(folds["image_id"], probabilities, CLASSES), run / "test_probabilities.csv")
    metrics = Metrics(
        **vars(assess_run(argmax_table(folds, probabilities, CLASSES)[:2], None, folds, CLASSES, test_photos=3)),
        classes=CLASSES,
        split=Split("copies", folds=2, holdout=0.1, seed=1),
    )
    made.save(metrics, made.metrics)
    (run / "config.yaml").write_text(dump_config(TOY))
    return run


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file cut short, with other bytes in it, with a part of it removed, doubled or replaced."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        change = draw(st.sampled_from(["cut", "flip", "remove", "double", "insert", "replace"]))
        if change == "cut":
            del data[end:]
        elif change == "flip" and data:
            data[min(start, len(data) - 1)] ^= 1 << draw(st.integers(0, 7))
        elif change == "remove":
            del data[start:end]
        elif change == "double":
            data[end:end] = data[start:end]
        else:
            new = draw(
                st.binary(max_size=20)
                | st.sampled_from([b"\0", b",", b'"', b"\n", b"\r", b"nan", b"-1", b"\xef\xbb\xbf"])
            )
            data[start : end if change == "replace" else start] = new
    return bytes(data)


def check_table(table: pd.DataFrame | None, columns: list[str]) -> None:
    """Texts without surrounding blanks, and every column that was asked for, once."""
    if table is not None:
        assert len(table)
        assert all((table.columns == column).sum() == 1 for column in columns)
        assert all(isinstance(value, str) and value == value.strip() for value in table[columns].to_numpy().ravel())


COLUMNS = ["image_id", "filename", "label"]
CELL = st.text("ab01.,;\"'\t\r\n \0é\u2028\ufeff", max_size=5) | st.sampled_from(
    ["1", "nan", "../x", "/x", "C:\\x", '"']
)
TABLE = st.lists(st.lists(CELL, max_size=5), max_size=5)


@many(150)
@given(content=st.binary(max_size=200))
@example(content=b"\xff\xfei\0d\0")
@example(content=b"image_id,filename,label\n1,a\x85b,c\n")
def test_a_table_of_any_bytes(folder, content):
    (folder / "any.csv").write_bytes(content)
    check_table(outcome(read_text_table, folder / "any.csv", ["image_id"]), ["image_id"])
    outcome(read_groups, folder / "any.csv")
    outcome(lambda *of: list(sample_problems(*of)), pd.DataFrame({"image_id": ["1"]}), folder / "any.csv")


@many(200)
@given(
    rows=TABLE,
    header=st.permutations(COLUMNS),
    sign=st.sampled_from(",,,;\t"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_a_table_with_any_cells(folder, rows, header, sign, end):
    (folder / "images").mkdir(exist_ok=True)
    text = end.join(sign.join(row) for row in [header, *rows])
    (folder / "train.csv").write_bytes(text.encode())
    table = outcome(lambda: Competition(folder).train)
    check_table(table, COLUMNS)
    if table is not None and not list(table_problems(table, "train.csv")):
        assert table["image_id"].is_unique
        assert all(Path(os.path.normpath(path)).is_relative_to(folder / "images") for path in table["path"])


@pytest.fixture(scope="module")
def competition(folder: Path) -> Path:
    """A competition whose train.csv is there once more as whole.csv."""
    root = write_competition(folder / "input", sources=3, unlabelled_sources=1, nested=False)
    shutil.copy(root / "train/train.csv", root / "whole.csv")
    return root


@many(200)
@given(data=st.data())
def test_a_damaged_table(competition, data):
    (competition / "train/train.csv").write_bytes(data.draw(damaged((competition / "whole.csv").read_bytes())))
    check_table(outcome(lambda: Competition(competition).train), COLUMNS)


VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["1e-4", "none", "{a", "x: y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([*option_types(), *(name.partition(".")[0] for name in option_types())]) | st.text(max_size=9)


def check_configuration(config: Config | None, folder: Path) -> None:
    """What was read is of the types that it promises, and comes back from what is dumped of it."""
    if config is not None:
        assert isinstance(config.train.epochs, int)
        assert config.train.epochs > 0
        assert isinstance(config.data.root, Path)
        (folder / "dumped.yaml").write_text(dump_config(config), encoding="utf-8")
        assert load_config(folder / "dumped.yaml") == config


@many(40)
@given(content=st.text(max_size=80).map(str.encode) | st.binary(max_size=80))
@example(content=b"[" * 1000)
@example(content=b"[" * 1000 + b"]" * 1000)
@example(content=b"a: &a [*a]")
@example(content=b"x: !!timestamp y")
@example(content=b"x: " + b"9" * 5000)
def test_a_configuration_of_any_bytes(folder, content):
    (folder / "any.yaml").write_bytes(content)
    check_configuration(outcome(parse_config, ["--config", str(folder / "any.yaml")]), folder)


@many(60)
@given(options=st.dictionaries(NAMES, VALUE, min_size=1, max_size=3))
def test_a_configuration_of_any_values(folder, options):
    """Options, sections or neither, with values of any kind put over a whole configuration."""
    whole = load_yaml(dump_config(TOY))
    for name, value in options.items():
        place = whole
        *sections, last = name.split(".")
        for section in sections:
            place = place.setdefault(section, {})
            place = place if isinstance(place, dict) else {}
        place[last] = value
    YAML(typ="safe", pure=True).dump(whole, folder / "config.yaml")
    check_configuration(outcome(load_config, folder / "config.yaml"), folder)


@many(100)
@given(
    words=st.lists(
        NAMES.map("--{}".format) | VALUE.map(str) | st.sampled_from(["--", "-", "--config", "=", ""]), max_size=4
    )
)
def test_any_words_on_the_command_line(folder, words):
    words = [word for word in words if word not in ("-h", "--help") and not word.startswith("--print_config")]
    check_configuration(outcome(parse_config, words), folder)


@many(60)
@given(data=st.data())
def test_a_damaged_configuration(folder, run, data):
    (folder / "damaged.yaml").write_bytes(data.draw(damaged((run / "config.yaml").read_bytes())))
    check_configuration(outcome(load_config, folder / "damaged.yaml"), folder)


@many(200)
@given(data=st.data())
def test_damaged_tables_of_a_run(folder, run, data):
    readers = {
        "folds.csv": lambda path: read_folds(path, CLASSES),
        "groups.csv": read_groups,
        "oof.csv": lambda path: read_predictions(path, CLASSES),
        "test_probabilities.csv": lambda path: read_predictions(path, CLASSES),
    }
    name = data.draw(st.sampled_from(sorted(readers)))
    (folder / name).write_bytes(data.draw(damaged((run / name).read_bytes())))
    table = outcome(readers[name], folder / name)
    if table is not None and name in ("oof.csv", "test_probabilities.csv"):
        np.testing.assert_allclose(probabilities_of(table, CLASSES).sum(1), 1, atol=2e-3)


@many(200)
@given(data=st.data())
def test_damaged_metrics(folder, run, data):
    metrics = data.draw(
        damaged((run / "metrics.json").read_bytes()) | VALUE.map(lambda value: json.dumps(value).encode())
    )
    (folder / "metrics.json").write_bytes(metrics)
    found = outcome(RunFolder(folder).read_metrics)
    if found is not None:
        assert all(isinstance(name, str) for pair in found.classes.items() for name in pair)


@many(50)
@given(data=st.data())
def test_damaged_weights(folder, run, data):
    """Also where only the header, a few hundred bytes at the begin, is hit."""
    copy = folder / "copy"
    if not copy.exists():
        shutil.copytree(run, copy)
    name = data.draw(st.sampled_from(["shared", "fold_0/adapter_model", "fold_1/tail"])) + ".safetensors"
    whole = (run / name).read_bytes()
    header = data.draw(damaged(whole[:400])) + whole[400:]
    (copy / name).write_bytes(data.draw(st.sampled_from([header, header[:500]]) | damaged(whole)))
    loaded = outcome(load_ensemble, RunFolder(copy), TOY, len(CLASSES))
    if loaded is not None:
        assert all(np.isfinite(tensor.float().numpy()).all() for tensor in load_file(copy / name).values())
    (copy / name).write_bytes(whole)


@pytest.fixture(scope="module")
def pictures(folder: Path) -> dict[str, bytes]:
    """Small pictures, by format."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff"):
        Image.fromarray(pixels).save(folder / f"whole.{kind}")
    return {path.suffix: path.read_bytes() for path in sorted(folder.glob("whole.*"))}


@many(150)
@given(data=st.data())
def test_damaged_pictures(folder, pictures, data):
    """The decoders' own errors all become one kind."""
    kind = data.draw(st.sampled_from(sorted(pictures)))
    path = folder / f"damaged{kind}"
    path.write_bytes(data.draw(damaged(pictures[kind])))
    try:
        pixels = read_photo(path, 8)
    except ValueError as error:
        refused(error)
    else:
        assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)


def test_the_whole_run_is_read(run):
    """The fuzzed readers accept what was not damaged."""
    assert load_config(run / "config.yaml") == replace(TOY, data=replace(TOY.data, classes=CLASSES))
    assert RunFolder(run).read_metrics().classes == CLASSES
    assert read_folds(run / "folds.csv", CLASSES)["fold"].tolist() == [0, 1, -1]
    assert len(load_ensemble(RunFolder(run), TOY, len(CLASSES))[1]) == 2
