"""Commands in the README files are valid: every option exists, and the sequences work."""

import argparse
import re
import shlex
import shutil
from pathlib import Path

import pytest
from toys import ROOT, SOURCE, printed_commands, run_command, write_competition

PAGES = [ROOT / name for name in ("README.md", "configs/README.md", "submissions/README.md")]
PRINTED = [line for page in PAGES for line in printed_commands(page)]
# A toy's options, added to what a page prints: it trains for seconds.
TOY = {"data.image_size": 64, "model.name": "test_convnext", "model.pretrained": "false", "split.folds": 3}
TOY |= {"train.batch_size": 12, "train.epochs": 1, "split.groups": "input/toy/groups.csv", "predict.views": "[plain]"}


class Parsed(Exception):
    """The command line was understood."""


@pytest.mark.parametrize("line", PRINTED)
def test_every_printed_command_has_the_options_and_files_that_it_names(line, monkeypatch):
    """Up to where the work would begin: a script's parser accepts the words, and configuration files exist."""
    script, words = read_command(line)
    names = [word for word in words if word.startswith("configs/") and word != "configs/relabel.csv"]
    assert all((ROOT / name).exists() for name in names if "NAME" not in name)
    parse = argparse.ArgumentParser.parse_known_args

    def stop(parser, *args):
        parse(parser, *args)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    with pytest.raises(Parsed):
        run_command(script, *words)


def test_every_script_is_printed_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert {path.name for path in SOURCE.glob("*.py")} == set(re.findall(r"src/(\w+\.py)", readme))


def read_command(line: str) -> tuple[str, list[str]]:
    """Script and words of a printed command, of `accelerate launch` as of `python`."""
    found = re.fullmatch(r"(?:\w+=\S+ )*(?:python|accelerate launch.*?) src/(\w+\.py) ?(.*)", line)
    assert found, line
    return found[1], shlex.split(found[2])


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A checkout's folders, with a toy competition."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    write_competition(Path("input/toy"))
    return tmp_path


def execute(line: str, **placeholders: str) -> None:
    for name, value in placeholders.items():
        line = re.sub(rf"\b{name}\b", value, line)
    if line.startswith("cp "):
        _, source, target = shlex.split(line, comments=True)
        shutil.copy(source, target)
        return
    script, words = read_command(line)
    if script == "train_folds.py":
        words += [word for option in TOY.items() for word in (f"--{option[0]}", str(option[1]))]
    if "*" in line:
        words = [str(path) for word in words for path in (sorted(Path().glob(word)) if "*" in word else [word])]
    run_command(script, *words)


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
def test_your_own_photos_label_errors_and_blends_work_as_printed(workplace):
    """The README's section on own photos, then those of submissions/README.md, in their order."""
    own = printed_commands(ROOT / "README.md", "Your own photos")
    errors = printed_commands(ROOT / "submissions/README.md", "Label errors")
    blends = printed_commands(ROOT / "submissions/README.md", "Comparing and blending")
    for line in own:
        execute(line, DIR="input/toy")
    relabel = Path("submissions/first/label_issues.csv").read_text().splitlines()
    Path("submissions/first/label_issues.csv").write_text("\n".join(relabel[:2]) + "\n")
    for line in (*errors, *blends):
        execute(line, a="first", b="second")
    assert {"first", "second", "first+second"} <= {path.name for path in Path("submissions").iterdir()}
    for path in ("first/report.html", "second/report.html", "first+second/submission.csv", "comparison.html"):
        assert (Path("submissions") / path).exists()
    assert Path("submissions/index.html").read_text().count("report.html</a>") == 3


def test_the_screenshot_is_there():
    pictures = re.findall(r"!\[[^]]+\]\((\S+)\)", (ROOT / "README.md").read_text())
    assert pictures
    assert all((ROOT / picture).stat().st_size > 10_000 for picture in pictures)
