"""Strings, docstrings, comments and pages avoid phrases that are not native engineering English."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNITS = (
    "batch|class|column|core|day|epoch|file|fold|group|hour|line|machine|minute|pass|photo|process|row|run|second|set|"
    "source|split|step|thread|trial|update|view|weight"
)
PHRASES = {  # pattern: what to write instead
    r"\bmend(s|ed|ing)?\b": "fix, repair",
    r"\banew\b": "from scratch, again",
    r"\b(go|goes|going|gone|went) on\b": "resume, continue",
    r"\bbegun\b": "started",
    r"\b(?<!splits )(lie|lies|lain)\b": "is (in), are (in)",
    r"\b(is|are|was|were|be|been) (told|asked)\b": "the error names ..., receives, requested",
    r"\b(a|an|the|whoever|somebody|who) (wants|asks)\b": "you can request",
    rf"\b(once|one|rows?|lines?|photos|files?|columns?|steps?|times|numbers?|bytes) an? ({UNITS})\b": "per ...",
    r"\blearn(s|ed|ing)? from\b": "train(ed) on",
    r"\blearned (weights|copy)\b": "trained ...",
    r"\bnumbers of a model\b": "parameters",
    r"\b(taken?|takes|taking) for\b(?! granted)": "predicted as",
    r"\bloader process(es)?\b": "data-loader worker(s)",
    r"\bmake room\b": "free space",
    r"\bunharmed\b": "intact",
    r"\ball that (is|are|was|were)\b": "everything ...",
    r"\bnobody's\b": "of no other",
    r"\bshall\b": "must, should",
    r"\b(surer|surest|most surely)\b": "(more, most) confident",
    r"\bby heart\b": "overfits, memorizes",
}
DOCSTRING = {r"^(What|How|Where|Which)\b(?! many)": "a noun phrase, or an imperative verb"}


def texts_of(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line and prose of a file's docstrings, strings and comments, or of its paragraphs; True marks a docstring."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        line = 1
        for paragraph in re.split(r"(\n\s*\n)", source):
            yield line, paragraph, False
            line += paragraph.count("\n")
        return
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value, id(node) in docstrings
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(token.start[0], token.string.lstrip("# ")) for token in tokens if token.type == tokenize.COMMENT]
    for _, run in groupby(enumerate(comments), key=lambda item: item[1][0] - item[0]):
        lines = [comment for _, comment in run]
        yield lines[0][0], " ".join(text for _, text in lines), False


def complaints(path: Path) -> Iterator[str]:
    for line, text, is_docstring in texts_of(path):
        prose = " ".join(re.sub(r"`[^`\n]*`", "CODE", text).split())
        for pattern, better in (PHRASES | (DOCSTRING if is_docstring else {})).items():
            for found in re.finditer(pattern, prose, re.IGNORECASE):
                around = prose[max(found.start() - 30, 0) : found.end() + 30]
                yield f"{path.relative_to(ROOT)}:{line}: ...{around}... ({found[0]!r}: write {better})"


def files() -> list[Path]:
    found = [*ROOT.glob("src/**/*.py"), *ROOT.glob("src/**/*.html"), *ROOT.glob("configs/*.yaml")]
    found += [ROOT / "README.md", *ROOT.glob("[a-z]*/README.md")]
    return sorted({*found, ROOT / "src/trunkfold/README.md"})


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_avoids_phrases_that_are_not_english_engineering_prose(path):
    found = list(complaints(path))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text", ['"""What the trunk makes."""', "# it goes\n# on", 'x = f"learned from {y}"', "x = 'a row a photo'"]
)
def test_phrases_are_seen_in_docstrings_comments_and_strings(text, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "module.py").write_text(text)
    assert len(list(complaints(tmp_path / "module.py"))) == 1
