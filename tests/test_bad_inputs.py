"""Invalid input of any kind causes one message that names the file, the row or key, and the fix; nothing is written."""

import contextlib
import hashlib
import io
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toys import leave_out_figures, png_of, run_command, write_competition

from trunkfold.config.parsing import load_config, parse_config
from trunkfold.config.schema import CacheConfig
from trunkfold.data.photos import read_photo
from trunkfold.data.tables import Competition
from trunkfold.errors import InputError, raise_problems
from trunkfold.output.submission import check_test
from trunkfold.split.dataset import load_labelled

TRAIN_CSV, TEST_CSV, IMAGES = Path("input/train/train.csv"), Path("input/test/test.csv"), Path("input/train/images")
SAMPLE, GROUPS, GIVEN, RUN = map(
    Path, ("input/sample_submission.csv", "input/groups.csv", "given.yaml", "submissions/toy")
)
SMALL = {
    "data.root": "input",
    "data.classes": "{1: a, 2: b, 3: c}",
    "data.image_size": 64,
    "model.name": "test_convnext",
    "model.pretrained": "false",
    "split.folds": 2,
    "split.holdout": 0,
    "split.groups": "input/groups.csv",
    "train.batch_size": 12,
    "train.epochs": 1,
}
TRAIN = (
    "train_folds.py",
    *(word for name, value in SMALL.items() for word in (f"--{name}", str(value))),
    "--run.name=new",
)
TUNE = ("tune.py", *TRAIN[1:], "--trials=1")
OTHER = Path("submissions/other")
SUBMIT = ("make_submission.py", "--run", RUN)
COMPARE = ("compare_runs.py", RUN, "--out", "comparison.csv")
COPIES = ("find_copies.py", "--data.root", "input")
PREDICT = ("predict_photos.py", "input/test/images")
EXPORT = ("export_model.py",)
BUNDLE = ("make_kaggle_bundle.py", "--user", "somebody")
SERVE = ("serve_app.py",)
DEMO = ("make_demo_data.py", "--out", "input/demo")


class Case(NamedTuple):
    """What is broken, the command that must refuse it, and what it must say."""

    what: str
    command: tuple
    change: Callable[[], object] | None
    message: str


def lines(path: Path, change: Callable[[list[str]], list[str]]) -> Callable[[], object]:
    """Change a text file line by line."""
    return lambda: path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def row(path: Path, number: int, text: str) -> Callable[[], object]:
    """Replace one line, counted from 1."""
    return lines(path, lambda found: [*found[: number - 1], text, *found[number:]])


def swap(path: Path, old: str, new: str) -> Callable[[], object]:
    """Replace a text everywhere in a file."""
    return lambda: path.write_text(path.read_text().replace(old, new))


def write(path: Path, content: bytes | str) -> Callable[[], object]:
    return lambda: path.write_bytes(content.encode() if isinstance(content, str) else content)


def remove(path: Path) -> Callable[[], object]:
    return lambda: shutil.rmtree(path) if path.is_dir() else path.unlink()


def folder_instead(path: Path) -> Callable[[], object]:
    return lambda: (path.unlink(), path.mkdir())


def half(path: Path) -> Callable[[], object]:
    return lambda: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_jpeg() -> None:
    Image.effect_noise((64, 64), 99).save(IMAGES / "1.png", "JPEG")
    half(IMAGES / "1.png")()


def save_weights(
    name: str, change: Callable[[dict], object] = lambda state: None, model: str = "test_convnext", **options
):
    """Write a file of weights that `change` has spoiled."""

    def spoil() -> None:
        state = timm.create_model(model, **options).state_dict()
        change(state)
        save_file(state, name) if name.endswith("safetensors") else torch.save(state, name)

    return spoil


def change_tensors(path: Path, change: Callable[[dict], object]) -> Callable[[], object]:
    def spoil() -> None:
        state = load_file(path)
        change(state)
        save_file(state, path)

    return spoil


class Code:
    """What a pickle runs when it is read."""

    def __reduce__(self) -> tuple:
        return Path("ran").touch, ()


def given(yaml: str, *words: str) -> dict:
    """A configuration file, and the command that reads it."""
    return {"command": (*TRAIN, "--config", GIVEN, *words), "change": write(GIVEN, yaml)}


def option(*words: object) -> dict:
    return {"command": (*TRAIN, *words), "change": None}


def weights(name: str, change: Callable[[], object]) -> dict:
    return {"command": (*TRAIN, "--model.weights", name), "change": change}


FILES = [
    Case("a JPEG cut in half", TRAIN, cut_jpeg, r"1 photo unreadable: 1\.png \(.*truncated.*\)"),
    Case("a web page as a photo", TRAIN, write(IMAGES / "2.png", "<html>"), r"unreadable: 2\.png \(not an image\)"),
    Case(
        "a file as submissions",
        TRAIN,
        lambda: (shutil.rmtree("submissions"), write(Path("submissions"), "")()),
        r"cannot write to submissions/\.cache/.* choose another --cache\.dir",
    ),
    Case("an empty photo", TRAIN, write(IMAGES / "2.png", ""), r"1 photo empty \(0 bytes\): 2\.png"),
    Case("a missing photo", TRAIN, remove(IMAGES / "3.png"), r"1 photo missing: 3\.png"),
    Case("a folder as a photo", TRAIN, folder_instead(IMAGES / "3.png"), r"1 photo missing: 3\.png"),
    Case(
        "a decompression bomb",
        TRAIN,
        write(IMAGES / "4.png", png_of(30_000, 30_000)),
        r"4\.png \(30000 x 30000 pixels exceed 268 million\)",
    ),
    Case(
        "a dangling link",
        TRAIN,
        lambda: ((IMAGES / "5.png").unlink(), (IMAGES / "5.png").symlink_to("nowhere")),
        r"1 photo missing: 5\.png",
    ),
    Case("no data", TRAIN, remove(Path("input")), r"data\.root input is not a folder: pass --data\.root DIR"),
    Case("a file as data.root", (*TRAIN, "--data.root", GROUPS), None, r"data\.root .*groups\.csv is not a folder"),
    Case("no train.csv", TRAIN, remove(TRAIN_CSV), r"no train\.csv under data\.root input"),
    Case("no images folder", TRAIN, remove(IMAGES), r"train\.csv has no images/ folder beside it"),
    Case(
        "two train.csv",
        TRAIN,
        lambda: shutil.copytree("input/train", "input/again"),
        r"several train\.csv under input: .*set data\.root to one competition",
    ),
    Case("a folder as train.csv", TRAIN, folder_instead(TRAIN_CSV), r"no train\.csv under data\.root input"),
]
TABLES = [
    Case(
        "an empty table", TRAIN, write(TRAIN_CSV, ""), r"train\.csv is empty: it needs the columns image_id, filename"
    ),
    Case(
        "a header alone", TRAIN, write(TRAIN_CSV, "image_id,filename,label\n"), r"train\.csv has a header but no rows"
    ),
    Case(
        "no header",
        TRAIN,
        lines(TRAIN_CSV, lambda found: found[1:]),
        r"train\.csv has no column image_id, filename, label: its first line must name .* but names 1, 1\.png, 1",
    ),
    Case(
        "no label column", TRAIN, swap(TRAIN_CSV, "label", "class"), r"train\.csv has no column label: .* names .*class"
    ),
    Case(
        "a column twice",
        TRAIN,
        lines(TRAIN_CSV, lambda found: [found[0] + ",label", *(f"{line},2" for line in found[1:])]),
        r"train\.csv has several columns named 'label'",
    ),
    Case(
        "semicolons",
        TRAIN,
        swap(TRAIN_CSV, ",", ";"),
        r"train\.csv separates its values by semicolons: save it with co",
    ),
    Case("tabs", TRAIN, swap(TRAIN_CSV, ",", "\t"), r"train\.csv separates its values by tabs: save it with commas"),
    Case(
        "UTF-16",
        TRAIN,
        lambda: TRAIN_CSV.write_text(TRAIN_CSV.read_text(), "utf-16"),
        r"train\.csv, line 1 is not in UTF-8 but in UTF-16: save it as CSV UTF-8",
    ),
    Case("latin-1", TRAIN, write(TRAIN_CSV, b"image_id,filename,label\n1,1.png,\xe9\n"), r"line 2 is not in UTF-8"),
    Case(
        "NUL bytes", TRAIN, write(TRAIN_CSV, b"image_id,filename,label\n1,1.png,\0\n"), r"train\.csv is not a text file"
    ),
    Case("a comma too many", TRAIN, row(TRAIN_CSV, 4, "3,a,3.png,1"), r"train\.csv, line 4 has 4 values for 3 columns"),
    Case(
        "an open quote", TRAIN, row(TRAIN_CSV, 5, '4,"4.png,1'), r"train\.csv, line 5 cannot be read as CSV: unexpected"
    ),
    Case(
        "a quoted line break",
        TRAIN,
        row(TRAIN_CSV, 5, '4,"4.png\n4.png",1'),
        r"train\.csv: filename spans several lines, starting in line 5: is a quote missing\?",
    ),
    Case("a repeated id", TRAIN, row(TRAIN_CSV, 3, "1,2.png,1"), r"1 duplicate image_id: 1$"),
    Case("a repeated file", TRAIN, row(TRAIN_CSV, 3, "2,1.png,1"), r"1 duplicate filename: 1\.png"),
    Case("no id", TRAIN, row(TRAIN_CSV, 3, ",2.png,1"), r"train\.csv: no image_id in line 3$"),
    Case("a blank label", TRAIN, row(TRAIN_CSV, 3, "2,2.png, "), r"train\.csv: no label in line 3$"),
    Case(
        "climbing file names",
        TRAIN,
        row(TRAIN_CSV, 3, "2,../2.png,1"),
        r"a path below images/.*: \.\./2\.png in line 3",
    ),
    Case("an absolute path", TRAIN, row(TRAIN_CSV, 3, "2,/etc/passwd,1"), r"below images/.*: /etc/passwd in line 3"),
    Case("a Windows path", TRAIN, row(TRAIN_CSV, 3, r"2,C:\2.png,1"), r"below images/.*: C:\\2\.png in line 3"),
    Case(
        "labels from 0",
        TRAIN,
        lines(TRAIN_CSV, lambda found: [found[0], *(f"{line[:-1]}{int(line[-1]) - 1}" for line in found[1:])]),
        r"label '0' of \d+ photos \(first in line 2\) is not one of data\.classes \(1 a, 2 b, 3 c\): add it there, "
        r"or pass --data\.classes null.*\n.*no photo has the label 3 c of data\.classes",
    ),
    Case(
        "labels with a point",
        TRAIN,
        row(TRAIN_CSV, 3, "2,2.png,1.0"),
        r"the labels 1 and 1\.0 are the same number: use",
    ),
    Case(
        "one class",
        (*TRAIN, "--data.classes=null"),
        lines(TRAIN_CSV, lambda found: [found[0], *(f"{line[:-1]}1" for line in found[1:])]),
        r"train\.csv: all photos have the label 1: at least two classes are needed",
    ),
    Case("a rare class", (*TRAIN, "--split.folds=12"), None, r"class '1' has 6 groups of photos, too few for 12 folds"),
    Case("no groups file", (*TRAIN, "--split.groups=no.csv"), None, r"no\.csv does not exist"),
    Case("a folder of groups", (*TRAIN, "--split.groups=input"), None, r"input cannot be read: Is a directory"),
    Case("a misspelt choice", (*TRAIN, "--split.groups=copy"), None, r"copy does not exist"),
    Case("photos without group", TRAIN, row(GROUPS, 2, "999,x"), r"groups\.csv has no group for 1 labelled photo: 1$"),
    Case(
        "an id in two groups",
        TRAIN,
        row(GROUPS, 3, "1,x"),
        r"groups\.csv: 1 duplicate image_id: 1$",
    ),
    Case(
        "an id of both sets",
        TRAIN,
        row(TEST_CSV, 2, "1,1.png"),
        r"groups\.csv: image_id 1 is in both train\.csv and test\.csv: add a column set \(train or test\)",
    ),
    Case(
        "groups of other sets",
        TRAIN,
        write(GROUPS, "image_id,set,group\n1,valid,a\n"),
        r"set must be train or test, not v",
    ),
    Case(
        "several rows",
        TRAIN,
        lambda: (row(TRAIN_CSV, 3, ",2.png,1")(), row(TRAIN_CSV, 4, "3,,9")(), remove(IMAGES / "5.png")()),
        r"^error: \d problems:\n(  - .*\n)*  - train\.csv: no image_id in line 3\n(.*\n)*.*no filename in line 4\n"
        r"(.*\n)*.*label '9' of 1 photos(.*\n)*.*missing: 5\.png",
    ),
    Case("the same of a search", COPIES, row(TRAIN_CSV, 3, "1,2.png,1"), r"1 duplicate image_id: 1$"),
    Case("the same of a study", TUNE, row(TRAIN_CSV, 3, "1,2.png,1"), r"1 duplicate image_id: 1$"),
]
YAML = [
    Case(
        "an unknown key",
        **given("train: {epoch: 3}"),
        message=r"given\.yaml: there is no option train\.epoch; the nearest is train\.epochs$",
    ),
    Case(
        "an unknown section",
        **given("trian: {epochs: 3}"),
        message=r"given\.yaml: there is no option trian; the nearest is train$",
    ),
    Case(
        "a wrong type",
        **given("train: {epochs: many}"),
        message=r"given\.yaml: train\.epochs must be a positive integer, not 'many'",
    ),
    Case("a fraction", **given("train: {epochs: 2.5}"), message=r"train\.epochs must be a positive integer, not 2\.5"),
    Case("null", **given("train: {seed: null}"), message=r"train\.seed must be an integer from 0 to .*, not null"),
    Case(
        "infinity",
        **given("train: {head_lr: .inf}", "--train.seed=1"),
        message=r"train\.head_lr must be a positive finite number, not inf",
    ),
    Case(
        "a huge seed",
        **given("split: {seed: 99999999999}"),
        message=r"split\.seed must be an integer .*4294967295",
    ),
    Case(
        "out of range",
        **given("split: {holdout: 1.5}"),
        message=r"split\.holdout must be a number of at least 0 and below 1 or legacy, not 1\.5",
    ),
    Case(
        "several options",
        **given("train: {epochs: 0, keep: first}"),
        message=r"given\.yaml: 2 problems:\n.*train\.epochs must be.*\n.*train\.keep must be last or best, not 'first'",
    ),
    Case(
        "wrong syntax",
        **given("train:\n  epochs: 3\n seed: 4\n"),
        message=r"given\.yaml: line 3: expected <block end>",
    ),
    Case(
        "tabs",
        **given("train:\n\tepochs: 3\n"),
        message=r"given\.yaml: line 2: found character '\\t' that cannot start any token",
    ),
    Case(
        "a list",
        **given("- train\n- data\n"),
        message=r"given\.yaml: must be a mapping of options, such as `train: \{epochs: 5\}`, not .*train",
    ),
    Case("a text", **given("train\n"), message=r"given\.yaml: must be a mapping of options, .* not 'train'"),
    Case(
        "a key twice",
        **given("train:\n  epochs: 3\n  epochs: 4\n"),
        message=r"given\.yaml: line 3: found duplicate key \"epochs\"",
    ),
    Case(
        "an option twice",
        **given("train: {epochs: 3}\ntrain.epochs: 4\n"),
        message=r"given\.yaml: the option train\.epochs is given twice",
    ),
    Case(
        "a section that is a number",
        **given("train: 3"),
        message=r"given\.yaml: train is a section: write `train: \{option: value\}`, not 3",
    ),
    Case(
        "code",
        **given("run: !!python/object/apply:os.system [ls]"),
        message=r"given\.yaml: line 1: could not determine a constructor",
    ),
    Case(
        "a class",
        **given("train: {optimizer_args: {x: {class_path: pathlib.Path}}}"),
        message=r"given\.yaml: train\.optimizer_args must be a mapping .*, not \{'x': \{'class_path'",
    ),
    Case(
        "an endless alias",
        **given("train: &a {x: *a}"),
        message=r"given\.yaml: aliases \(\*name\) are not supported: repeat the value",
    ),
    Case(
        "binary",
        **given("\udcff".encode("utf-8", "surrogateescape").decode("latin-1")),
        message=r"given\.yaml: must be a mapping of options",
    ),
    Case(
        "latin-1",
        (*TRAIN, "--config", GIVEN),
        write(GIVEN, b"run: {name: \xe9}"),
        r"given\.yaml: not a UTF-8 text file",
    ),
    Case("no file", (*TRAIN, "--config", "none.yaml"), None, r"none\.yaml: no such file"),
    Case("a folder", (*TRAIN, "--config", "input"), None, r"input: cannot be read: Is a directory"),
    Case(
        "the second of two files",
        (*TRAIN, "--config", GIVEN, "--config", "none.yaml"),
        write(GIVEN, ""),
        r"none\.yaml: no such file",
    ),
    Case("a study with trackers", (*TUNE, "--run.trackers=[tensorboard]"), None, r"run.trackers: tune.py"),
    Case(
        "an unknown key of a study",
        (*TUNE, "--config", GIVEN),
        write(GIVEN, "tune: {trails: 3}"),
        r"there is no option tune\.trails; the nearest is tune\.trials",
    ),
    Case(
        "a space of unknown options",
        (*TUNE, "--config", GIVEN),
        write(GIVEN, "tune: {space: {train.lr: {low: 1, high: 2}}}"),
        r"tune\.space train\.lr: there is no option train\.lr; the nearest is train\.",
    ),
]
OPTIONS = [
    Case(
        "an unknown option",
        **option("--train.epoch", 3),
        message=r"there is no option --train\.epoch; the nearest is --train\.epochs",
    ),
    Case("a word too many", **option("fast"), message=r"unexpected argument 'fast'"),
    Case("no value", **option("--train.epochs"), message=r"argument --train\.epochs: expected one argument"),
    Case(
        "a wrong value",
        **option("--train.epochs", "many"),
        message=r"train\.epochs must be a positive integer, not 'many'",
    ),
    Case(
        "a negative number",
        **option("--data.image_size=-4"),
        message=r"data\.image_size must be a positive integer or null, not '-4'",
    ),
    Case("not a flag", **option("--run.restart=perhaps"), message=r"run\.restart must be true or false, not 'perhaps'"),
    Case("a name with slashes", **option("--run.name=../x"), message=r"run\.name '\.\./x' must be a plain folder name"),
    Case(
        "a name that is taken",
        **option("--run.name=toy"),
        message=r"toy contains a finished run: .*--run\.restart true",
    ),
    Case(
        "an unknown preset",
        **option("--augment=strnog"),
        message=r"no preset 'strnog'; the nearest is strong of none, standard",
    ),
    Case(
        "an unknown transform",
        **option("--augment", "[{HorizontalFlop: {}}]"),
        message=r"has no transform 'HorizontalFlop'; the nearest is HorizontalFlip",
    ),
    Case(
        "a wrong argument",
        **option("--augment", "[{HorizontalFlip: {chance: 1}}]"),
        message=r"augment: HorizontalFlip has no argument chance; it has p",
    ),
    Case(
        "a wrong argument's value",
        **option("--augment", "[{HorizontalFlip: {p: often}}]"),
        message=r"augment: HorizontalFlip does not accept \{'p': 'often'\}",
    ),
    Case(
        "a view",
        **option("--predict.views", "[plain, flip]"),
        message=r"predict\.views: there is no view flip; the nearest is hflip",
    ),
    Case(
        "a model",
        **option("--model.name=convnext_tinny"),
        message=r"model\.name: timm has no model 'convnext_tinny'; similar names: .*convnext_tiny",
    ),
    Case(
        "a model of another family",
        **option("--model.name=test_nfnet"),
        message=r"model\.name test_nfnet cannot be cut",
    ),
    Case("an optimizer", **option("--train.optimizer=adamv"), message=r"train\.optimizer.*adamv"),
    Case("a schedule", **option("--train.scheduler=cosinus"), message=r"train\.scheduler.*cosinus"),
    Case(
        "fp16 on a CPU",
        **option("--train.mixed_precision=fp16"),
        message=r"train\.mixed_precision fp16 needs a GPU: choose auto, no or bf16",
    ),
    Case(
        "an odd batch",
        **option("--train.batch_size=13"),
        message=r"train\.batch_size 13 must be a multiple of split\.folds 2.*: use 12, for example",
    ),
    Case(
        "smoothing everything",
        **option("--train.label_smoothing=1"),
        message=r"train\.label_smoothing must be a number of at least 0 and below 1, not '1'",
    ),
    Case(
        "leaving out everything",
        **option("--model.drop_path=1"),
        message=r"model\.drop_path must be .* below 1",
    ),
    Case(
        "an unwritable cache",
        (*TRAIN, "--cache.dir", GROUPS),
        None,
        r"cannot write to .*groups\.csv.*: choose another --cache\.dir",
    ),
    Case(
        "an unwritable folder of copies",
        (*COPIES, "--out", GROUPS),
        None,
        r"cannot write to .*groups\.csv.*: choose another --out",
    ),
    Case(
        "an unknown option of a search",
        (*COPIES, "--output", "x"),
        None,
        r"there is no option --output; the nearest is --out",
    ),
    Case(
        "a search without data",
        ("find_copies.py", "--data.root", "nowhere"),
        None,
        r"data\.root nowhere is not a folder",
    ),
    Case(
        "an unknown option of the demo",
        (*DEMO, "--photo", 90),
        None,
        r"there is no option --photo; the nearest is --photos",
    ),
    Case("a demo of many photos", (*DEMO, "--photos", "many"), None, r"argument --photos: invalid int value: 'many'"),
    Case("a demo of few photos", (*DEMO, "--photos", 10), None, r"--photos 10 is too small"),
    Case("a demo of tiny photos", (*DEMO, "--size", 8), None, r"size 8 must be 32 to 1024 pixels"),
    Case(
        "a demo over something else",
        (*DEMO, "--out", "input"),
        None,
        r"input exists and is not this demo competition: delete it",
    ),
    Case("a demo under a file", (*DEMO, "--out", GROUPS / "demo"), None, r"cannot write to .*: choose another --out"),
    Case("a study of trials", (*TUNE, "--trials", 0), None, r"trials must be a positive integer, not '0'"),
    Case("a study in the place of a run", (*TUNE, "--run.name", "toy"), None, r"toy contains a run, not a study"),
]
WEIGHTS = [
    Case(
        "no file",
        **weights("none.safetensors", lambda: None),
        message=r"model\.weights none\.safetensors does not exist",
    ),
    Case("a folder", **weights("input", lambda: None), message=r"model\.weights input has no model\.safetensors"),
    Case(
        "another architecture",
        **weights("w.pth", save_weights("w.pth", model="test_convnext2")),
        message=r"model\.weights w\.pth do not fit model\.name test_convnext: \d+ are missing",
    ),
    Case(
        "another number of channels",
        **weights("w.safetensors", save_weights("w.safetensors", in_chans=1)),
        message=r"1 are of a different shape \(stem\.0\.weight \(\d+, 1, 4, 4\) instead of \(\d+, 3, 4, 4\)\)",
    ),
    Case(
        "numbers that are none",
        **weights("w.safetensors", save_weights("w.safetensors", lambda state: state["stem.0.weight"].fill_(np.nan))),
        message=r"1 are not finite \(stem\.0\.weight\)",
    ),
    Case(
        "code",
        **weights("w.pth", lambda: torch.save({"stem.0.weight": Code()}, "w.pth")),
        message=r"w\.pth cannot be loaded: it contains objects other than tensors, which can run code",
    ),
    Case(
        "a web page",
        **weights("w.pth", write(Path("w.pth"), "<!doctype html>")),
        message=r"w\.pth cannot be loaded: it is a web page",
    ),
    Case(
        "a web page as safetensors",
        **weights("w.safetensors", write(Path("w.safetensors"), "<!doctype html>")),
        message=r"it is a web page: download the weights again",
    ),
    Case(
        "half a file",
        **weights("w.safetensors", lambda: (save_weights("w.safetensors")(), half(Path("w.safetensors"))())),
        message=r"it is not a safetensors file, or incomplete",
    ),
    Case(
        "half a pickle",
        **weights("w.pth", lambda: (save_weights("w.pth")(), half(Path("w.pth"))())),
        message=r"it is not a PyTorch state dict, or incomplete",
    ),
    Case(
        "an empty file",
        **weights("w.pth", write(Path("w.pth"), "")),
        message=r"it is not a PyTorch state dict, or incomplete",
    ),
    Case(
        "a list of tensors",
        **weights("w.pth", lambda: torch.save([torch.ones(2)], "w.pth")),
        message=r"w\.pth is not a state dict",
    ),
    Case("of a study", (*TUNE, "--model.weights", "none.pth"), None, r"model\.weights none\.pth does not exist"),
]
RUNS = [
    Case(
        "no run",
        ("make_submission.py", "--run", "submissions/none"),
        None,
        r"none is not a run, or did not finish training",
    ),
    Case("a file as a run", ("make_submission.py", "--run", GROUPS), None, r"groups\.csv is not a run"),
    Case("no run at all", ("make_submission.py",), remove(RUN), r"no finished run under submissions/: train one first"),
    Case(
        "no weights a run",
        (*SUBMIT, OTHER, "--weights", 1),
        lambda: shutil.copytree(RUN, OTHER),
        r"--weights has 1 numbers for 2 runs: pass one per run",
    ),
    Case(
        "a weight of a single run",
        (*SUBMIT, "--weights", 1),
        None,
        r"--weights requires several runs",
    ),
    Case(
        "a weight that is no number",
        (*SUBMIT, OTHER, "--weights", "a"),
        None,
        r"--weights: invalid float value: 'a'",
    ),
    Case("a name with slashes", (*SUBMIT, "--out", "a/b"), None, r"--out 'a/b' must be a plain folder name"),
    Case("a run twice", (*SUBMIT, RUN), None, r"--run lists the same run twice, submissions/toy: pass it once"),
    Case(
        "a run by another path",
        (*SUBMIT, OTHER, "--weights", 1, 2),
        lambda: OTHER.symlink_to(RUN.absolute()),
        r"--run lists the same run twice, submissions/toy and submissions/other: pass it once",
    ),
    Case("no metrics", SUBMIT, remove(RUN / "metrics.json"), r"metrics\.json is missing"),
    Case("half the metrics", SUBMIT, half(RUN / "metrics.json"), r"metrics\.json is damaged"),
    Case("metrics that are a list", SUBMIT, write(RUN / "metrics.json", "[]"), r"metrics\.json is damaged"),
    Case(
        "metrics without classes",
        SUBMIT,
        write(RUN / "metrics.json", "{}"),
        r"metrics\.json is damaged or was written by another version: classes: Field required",
    ),
    Case(
        "metrics of other classes",
        SUBMIT,
        swap(RUN / "metrics.json", '"a"', '"z"'),
        r"config\.yaml and .*metrics\.json have different classes",
    ),
    Case("no configuration", SUBMIT, remove(RUN / "config.yaml"), r"config\.yaml: no such file"),
    Case("half a configuration", SUBMIT, write(RUN / "config.yaml", "data: {classes: {"), r"config\.yaml: line \d"),
    Case(
        "no image size",
        SUBMIT,
        swap(RUN / "config.yaml", "image_size: 64", "image_size: null"),
        r"config\.yaml has no data\.image_size",
    ),
    Case(
        "a configuration of nothing",
        SUBMIT,
        write(RUN / "config.yaml", "x: 1"),
        r"config\.yaml: there is no option x",
    ),
    Case(
        "another number of folds",
        SUBMIT,
        swap(RUN / "config.yaml", "folds: 2", "folds: 1"),
        r"toy has fold_1, but config\.yaml has split\.folds 1",
    ),
    Case(
        "a missing fold",
        SUBMIT,
        remove(RUN / "fold_1"),
        r"fold_1/adapter_model\.safetensors is missing: the run did not finish, or was copied",
    ),
    Case("half a fold", SUBMIT, half(RUN / "fold_0/tail.safetensors"), r"fold_0/tail\.safetensors cannot be read"),
    Case(
        "a web page as weights",
        SUBMIT,
        write(RUN / "shared.safetensors", "<html>"),
        r"shared\.safetensors cannot be read",
    ),
    Case(
        "a fold of another number of classes",
        SUBMIT,
        change_tensors(RUN / "fold_0/tail.safetensors", lambda state: state.update({"head.fc.bias": torch.zeros(5)})),
        r"fold_0/tail\.safetensors does not fit .*: 1 are of a different shape \(head\.fc\.bias \(5,\) instead of",
    ),
    Case(
        "a fold that is not finite",
        SUBMIT,
        change_tensors(
            RUN / "fold_1/adapter_model.safetensors", lambda state: next(iter(state.values())).fill_(np.inf)
        ),
        r"fold_1/adapter_model\.safetensors does not fit .*: 1 are not finite",
    ),
    Case(
        "another model",
        SUBMIT,
        swap(RUN / "config.yaml", "name: test_convnext", "name: test_convnext2"),
        r"shared\.safetensors does not fit the model of config\.yaml",
    ),
    Case(
        "an unknown model",
        SUBMIT,
        swap(RUN / "config.yaml", "name: test_convnext", "name: test_convnix"),
        r"timm has no model 'test_convnix'",
    ),
    Case("no folds.csv", SUBMIT, remove(RUN / "folds.csv"), r"folds\.csv does not exist"),
    Case(
        "folds that are no numbers",
        SUBMIT,
        row(RUN / "folds.csv", 2, "1,1.png,1,g,first"),
        r"folds\.csv: fold must be an integer, not first",
    ),
    Case(
        "folds with a label of no class",
        SUBMIT,
        row(RUN / "folds.csv", 2, "1,1.png,9,g,0"),
        r"toy/folds\.csv: unknown label '9' of image_id 1: restore the file that training wrote",
    ),
    Case(
        "several runs",
        ("make_submission.py", "--run", RUN, OTHER),
        lambda: (
            shutil.copytree(RUN, OTHER),
            write(RUN / "history.csv", "")(),
            write(OTHER / "groups.csv", "image_id,group\n1,a\n1,b\n")(),
        ),
        r"2 problems:\n  - .*toy/history\.csv is empty: .*\n  - .*other/groups\.csv: 1 duplicate image_id: 1",
    ),
    Case(
        "reviewed labels in another encoding",
        SUBMIT,
        write(RUN / "label_issues.csv", "image_id,label,suggestion\n1,1,2\nfür,1,2\n".encode("cp1252")),
        r"label_issues\.csv, line 3 is not in UTF-8 but in another encoding: save it as CSV UTF-8",
    ),
    Case("no predictions", SUBMIT, remove(RUN / "oof.csv"), r"oof\.csv does not exist"),
    Case(
        "predictions of fewer photos",
        SUBMIT,
        lines(RUN / "oof.csv", lambda found: found[:-1]),
        r"toy/oof\.csv and .*toy/folds\.csv list different photos: restore the files that training wrote",
    ),
    Case(
        "predictions without labels",
        SUBMIT,
        swap(RUN / "oof.csv", "label", "class"),
        r"oof\.csv is damaged: the column label is missing or contains unknown labels",
    ),
    Case(
        "no predictions for a hold-out",
        SUBMIT,
        swap(RUN / "folds.csv", ",1\n", ",-1\n"),
        r"holdout\.csv does not exist",
    ),
    Case("an empty history", SUBMIT, write(RUN / "history.csv", ""), r"history\.csv is empty: it needs the columns ep"),
    Case("a history with semicolons", SUBMIT, swap(RUN / "history.csv", ",", ";"), r"history\.csv .* by semicolons"),
    Case(
        "a comparison of such a history", COMPARE, swap(RUN / "history.csv", ",", ";"), r"history\.csv .* by semicolons"
    ),
    Case(
        "a history of words",
        SUBMIT,
        row(RUN / "history.csv", 2, "1,0,low,1,1,1,1,1,1"),
        r"history\.csv: train_loss must be a number, not low",
    ),
    Case(
        "a history of no epoch",
        SUBMIT,
        row(RUN / "history.csv", 2, "first,0,1,1,1,1,1,1,1"),
        r"history\.csv: epoch must be an integer, not first",
    ),
    Case(
        "damaged groups",
        SUBMIT,
        write(RUN / "groups.csv", "image_id,group\n1,a\n1,b\n"),
        r"groups\.csv: 1 duplicate image_id",
    ),
    Case(
        "test ids of labelled photos",
        SUBMIT,
        lambda: (row(TEST_CSV, 2, "1,19.png")(), row(SAMPLE, 2, "1,1")()),
        r"toy/groups\.csv: image_id 1 is in both train\.csv and test\.csv: add a column set \(train or test\)",
    ),
    Case(
        "a blend of a blend",
        SUBMIT,
        swap(RUN / "metrics.json", '"runs": {}', '"runs": {"a": 1.0}'),
        r"toy is an average of runs and has no weights: pass --run a",
    ),
    Case("no test.csv", SUBMIT, remove(TEST_CSV), r"no test\.csv under data\.root input"),
    Case(
        "a repeated test id",
        SUBMIT,
        row(TEST_CSV, 3, "19,20.png"),
        r"test\.csv: 1 duplicate image_id: 19",
    ),
    Case(
        "a sample of other ids",
        SUBMIT,
        row(SAMPLE, 2, "999,1"),
        r"sample_submission\.csv has 1 id missing from test\.csv: 999\n.*test\.csv has 1 id missing from .*: 19",
    ),
    Case(
        "a sample of other columns",
        SUBMIT,
        swap(SAMPLE, "label", "class"),
        r"sample_submission\.csv has the columns image_id, class, not image_id, label",
    ),
    Case(
        "a sample with an id twice",
        SUBMIT,
        lines(SAMPLE, lambda found: [*found, found[-1]]),
        r"sample_submission\.csv has 1 duplicate image_id: 21",
    ),
]
USES = [
    Case(
        "an unknown tracker",
        **option("--run.trackers=[tensorbord]"),
        message=r"run\.trackers: Accelerate has no tracker tensorbord; the nearest is tensorboard",
    ),
    Case(
        "a tracker that is not installed",
        **option("--run.trackers=[comet_ml]"),
        message=r"run\.trackers: comet_ml is not installed: pip install comet_ml",
    ),
    Case("a tracker that is no list", **option("--run.trackers=3"), message=r"run\.trackers must be a list \[text"),
    Case("nothing to predict", ("predict_photos.py",), None, r"the following arguments are required: photos"),
    Case(
        "photos that are not there",
        (*PREDICT, "gone.jpg", "x*.jpg"),
        None,
        r"no photos in gone\.jpg \(not found\), x\*\.jpg \(not found\): pass photo files, folders with",
    ),
    Case("no run to predict with", (*PREDICT, "--run", "gone"), None, r"gone is not a run, or did not finish"),
    Case("predictions as a text", (*PREDICT, "--out", "out.txt"), None, r"--out out\.txt must end in \.csv or \.jsonl"),
    Case(
        "predictions below a file",
        (*PREDICT, "--out", GROUPS / "out.csv"),
        None,
        r"cannot write .*groups\.csv/out\.csv .*: choose another --out",
    ),
    Case(
        "damaged embeddings",
        PREDICT,
        write(RUN / "embeddings.safetensors", "<html>"),
        r"embeddings\.safetensors is damaged .*copy the run's folder again",
    ),
    Case("an export of no run", (*EXPORT, "--run", "gone"), None, r"gone is not a run, or did not finish"),
    Case("an unknown format", (*EXPORT, "--format", "tflite"), None, r"--format: invalid choice: 'tflite' \(choose"),
    Case(
        "a precision of another format",
        (*EXPORT, "--format", "torch", "--precision", "int8"),
        None,
        r"--precision int8 requires --format onnx",
    ),
    Case(
        "a loss without a hold-out",
        (*EXPORT, "--precision", "int8"),
        None,
        r"toy has no hold-out .*; --precision int8 needs held-out photos to measure the loss",
    ),
    Case(
        "a fold that is not there",
        (*EXPORT, "--format", "timm", "--fold", 7),
        None,
        r"--fold 7: choose one of 0, 1, or average",
    ),
    Case(
        "an export over a folder",
        (*EXPORT, "--format", "timm", "--out", "input"),
        None,
        r"cannot write input: it is a folder; choose another --out",
    ),
    Case("a bundle of nobody", ("make_kaggle_bundle.py",), None, r"the following arguments are required: --user"),
    Case("a bundle without data", BUNDLE, None, r"--data OWNER/SLUG, or --competition SLUG"),
    Case("a bundle of other data", (*BUNDLE, "--data", "x"), None, r"--data x must be OWNER/SLUG"),
    Case("a bundle of no run", (*BUNDLE, "--data", "a/b", "--run", "gone"), None, r"gone is not a run"),
    Case(
        "a bundle over a folder",
        (*BUNDLE, "--data", "a/b", "--out", "input"),
        None,
        r"--out input exists: remove it",
    ),
    Case("a page of no run", ("serve_app.py", "--run", "gone"), None, r"gone is not a run, or did not finish"),
    Case(
        "a page without a run", ("serve_app.py",), remove(RUN), r"no finished run under submissions/: train one first"
    ),
    Case("a page at no port", (*SERVE, "--port", 70_000), None, r"port 70000: choose another --host or --port"),
    Case("a page of no photos", (*SERVE, "--max_megabytes", 0), None, r"--max_megabytes 0 must be above 0"),
    Case("a page without its data", (*SERVE, "--data.root", "gone"), None, r"data\.root gone is not a folder"),
    Case("an unknown option of the page", (*SERVE, "--prot", 1), None, r"no option --prot; the nearest is --port"),
]
CASES = {
    **{
        f"{name}: {case.what}": case
        for name, cases in (
            ("files", FILES),
            ("tables", TABLES),
            ("yaml", YAML),
            ("options", OPTIONS),
            ("weights", WEIGHTS),
            ("runs", RUNS),
            ("uses", USES),
        )
        for case in cases
    },
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which nothing is wrong: a competition, and a run."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.chdir(folder)
        leave_out_figures(patch)
        write_competition(folder / "input", sources=18, unlabelled_sources=3, nested=False, copies=1)
        run_command(*TRAIN, "--run.name=toy")
        shutil.rmtree("submissions/.cache")
    return folder


@pytest.fixture
def workplace(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(whole, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def listing(folder: Path) -> dict[str, str]:
    """All files with their contents, but for caches and locks."""
    return {
        name: hashlib.blake2b(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
        if not (name := str(path.relative_to(folder))).startswith(("submissions/.cache", "submissions/copies"))
        and path.name != ".lock"
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_wrong_is_one_message_and_nothing_is_written(case, workplace, capsys):
    if case.change:
        case.change()
    before = listing(workplace)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run_command(*case.command)
    message = capsys.readouterr().err[-2000:]
    said = message[message.find("error: ") :]
    assert stopped.value.code == 2
    assert message.count("error: ") == 1, message
    assert said.startswith("error: "), message
    assert re.search(case.message, said.strip()), said
    assert "Traceback" not in message
    assert listing(workplace) == before


def as_spreadsheets_save() -> None:
    for table in (TRAIN_CSV, TEST_CSV, GROUPS):
        table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n") + b",,\r\n\r\n")


def photos_elsewhere() -> None:
    IMAGES.rename("elsewhere")
    IMAGES.mkdir()
    for photo in Path("elsewhere").iterdir():
        (IMAGES / photo.name).symlink_to(photo.resolve())


@pytest.mark.parametrize("change", [as_spreadsheets_save, photos_elsewhere])
def test_what_only_looks_wrong_changes_nothing(change, workplace):
    """Byte order marks, Windows lines, empty rows at the end; photos that are links, as data managers make them."""
    config = load_config(RUN / "config.yaml")
    expected = load_labelled(config)
    change()
    found = load_labelled(replace(config, cache=CacheConfig(Path("anew"))))
    pd.testing.assert_frame_equal(found.table, expected.table)
    assert found.pixels.key == expected.pixels.key


def test_a_camera_of_a_hundred_megapixels_is_read(tmp_path):
    Image.new("L", (12_000, 9_000), 99).save(tmp_path / "large.jpg")
    assert read_photo(tmp_path / "large.jpg", 64).shape == (64, 85, 3)


def test_options_count_more_than_files_and_later_files_more_than_earlier_ones(workplace):
    GIVEN.write_text("train: {epochs: 5, seed: 1, tail_lr: 1e-4}\nmodel:\n")
    Path("later.yaml").write_text("train: {seed: 2}\nrun: {name: 2024-01-31}")
    Path("empty.yaml").write_text("# nothing yet\n")
    words = [
        "--run.restart",
        "--train.epochs=7",
        "--config",
        "given.yaml",
        "--config=later.yaml",
        "--config=empty.yaml",
    ]
    config = parse_config(words)
    assert (config.train.epochs, config.train.seed, config.train.tail_lr) == (7, 2, 0.0001)
    assert (config.run.name, config.run.restart) == ("2024-01-31", True)


def test_a_list_of_problems_within_another_is_indented():
    with pytest.raises(InputError) as found:
        raise_problems(["a", "2 problems:\n  - b\n  - c"])
    assert str(found.value) == "2 problems:\n  - a\n  - 2 problems:\n    - b\n    - c"


def test_a_sample_of_other_labels_is_warned_of(workplace, caplog):
    SAMPLE.write_text(SAMPLE.read_text().replace(",1", ",crack"))
    check_test(Competition(Path("input")), {"1": "a"})
    assert "sample_submission.csv has the labels crack, none of which is in train.csv" in caplog.text
