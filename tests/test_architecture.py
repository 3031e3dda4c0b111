"""The house rules that a reader of the code relies on: layout, names, sizes, what is loaded when."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import snellen
from helpers import ROOT

SOURCE = ROOT / "src/snellen"
FILES = sorted(SOURCE.rglob("*.py"))
#: A function, and a module, of more lines says why in its first comment.
LONGEST_FUNCTION, LONGEST_MODULE = 60, 400


def modules() -> list[str]:
    found = pkgutil.walk_packages(snellen.__path__, "snellen.")
    return [m.name for m in found if not m.name.endswith("__main__")]


def test_at_the_root_stand_the_public_modules():
    names = {path.stem for path in SOURCE.glob("*.py")}
    assert names == {
        *("__init__", "__main__", "_version"),
        *("api", "errors", "prompts", "registry", "testing", "types"),
    }


def test_no_class_name_is_used_twice():
    where: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(str(path.relative_to(SOURCE)))
    assert {name: files for name, files in where.items() if len(files) > 1} == {}


def test_no_package_has_the_name_of_a_public_function():
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    functions = {name for name in snellen.__all__ if callable(getattr(snellen, name))}
    assert not packages & functions


@pytest.mark.slow
def test_after_every_submodule_was_imported_the_public_functions_still_work(workspace):
    for name in modules():
        importlib.import_module(name)
    sample = snellen.Sample("a", ())
    request = snellen.ask((), "Which is it?")
    assert (request.messages[0].text, sample.id) == ("Which is it?", "a")
    done = snellen.run(model="pico:clip", data="chart:shapes", protocol="rank", limit=3)
    assert snellen.open_run("@last").id == done.id
    assert [one.id for one in snellen.list_runs()] == [done.id]


@pytest.mark.parametrize("heavy", ["numpy", "pydantic", "torch", "pandas", "sqlalchemy", "PIL"])
def test_help_loads_nothing_heavy(heavy):
    code = (
        "import sys; sys.argv = ['snellen', '--help']\n"
        "import snellen.cli\n"
        "try: snellen.cli.main()\n"
        "except SystemExit: pass\n"
        f"sys.exit({heavy!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, f"snellen --help loads {heavy}"


def test_long_functions_and_modules_say_why():
    silent = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        place = str(path.relative_to(SOURCE))
        if len(lines) > LONGEST_MODULE and "Long:" not in text.partition("import")[0]:
            silent.append(f"{place}: {len(lines)} lines")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            last = node.end_lineno or node.lineno
            if last - node.lineno + 1 > LONGEST_FUNCTION:
                body = lines[node.body[0].lineno - 1 : last]
                first = next((line.strip() for line in body if line.strip().startswith("#")), "")
                if not first.startswith("# Long"):
                    silent.append(f"{place}: {node.name}, {last - node.lineno + 1} lines")
    assert silent == []


@pytest.mark.parametrize("words", ["__dict__", "locals()", "__signature__"])
def test_nothing_reaches_into_others(words):
    assert [str(path) for path in FILES if words in Path(path).read_text(encoding="utf-8")] == []
