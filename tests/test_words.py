"""The words: no phrase that would make an engineer stumble, in anything that people read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "snellen"
BANNED = re.compile(
    r"gone on with|\bmend(s|ed|ing)?\b|left out and said|\bat hand\b|\b(is|are) told\b|asked anew|"
    r"One folder a class|one row a sample|a line a sample|from memory alone|what was answered|"
    r"\bbesides?\b|\bof its own\b|\bparted\b|(?<![\w-])\d+(?:\.\d+)? %",
    re.IGNORECASE,
)
TEXTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(SOURCE.rglob("*.html.jinja")),
    *sorted(SOURCE.rglob("*.js")),
    *sorted(SOURCE.rglob("*.yaml")),
]
MODULES = sorted(SOURCE.rglob("*.py"))


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of prose, without code spans: names of tests and options are no prose."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        yield number, re.sub(r"`[^`]*`|{%.*?%}|{{.*?}}", "", line)


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings, messages and every other string."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_phrase_in_texts(path):
    assert [f"{number}: {line}" for number, line in lines_of(path) if BANNED.search(line)] == []


def test_no_banned_phrase_in_the_code():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in MODULES
        for number, text in strings_of(path)
        if (match := BANNED.search(text))
    ]
    assert found == []
