"""Hooks of the documentation site: pages from elsewhere in the repository, and references from the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import typer.main
from mkdocs.structure.files import File

import snellen
from snellen.cli import app
from snellen.metrics.registry import METRICS
from snellen.reports.listings import schemes

ROOT = Path(__file__).parent.parent
#: Pages outside this folder, by their name on the site.
ELSEWHERE = {
    "index.md": ROOT / "README.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "changelog.md": ROOT / "CHANGELOG.md",
    "results.md": ROOT / "benchmarks" / "RESULTS.md",
}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not files of this folder."""
    pages = {name: _relinked(path) for name, path in ELSEWHERE.items()}
    pages |= {
        "reference/cli.md": "\n".join(cli_reference()),
        "reference/options.md": "\n".join(options_reference()),
        "reference/python.md": "\n".join(python_reference()),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links that leave this folder to the pages of the site."""
    markdown = markdown.replace("../benchmarks/RESULTS.md", "results.md")
    return markdown.replace("../CONTRIBUTING.md", "contributing.md").replace("../README.md", "index.md")


def _relinked(path: Path) -> str:
    """Return a page with its links as seen from this folder."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\]\((?:\.\./)?docs/", "](", text)
    text = text.replace("](benchmarks/RESULTS.md", "](results.md")
    return text.replace("](CONTRIBUTING.md", "](contributing.md").replace("](CHANGELOG.md", "](changelog.md")


def cli_reference() -> Iterator[str]:
    """Yield every command with its arguments and options."""
    yield "# Command line"
    yield "\nGenerated from the commands. `snellen COMMAND --help` prints the same."
    root: Any = typer.main.get_command(app)
    context = typer.Context(root, info_name="snellen")
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        if hasattr(command, "commands"):
            for part, sub in command.commands.items():
                yield from _command(f"{name} {part}", sub)
        else:
            yield from _command(name, command)


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"\n## snellen {name}\n"
    yield inspect.cleandoc(command.help or "")
    yield "\n| argument or option | description | default |\n|---|---|---|"
    for parameter in command.params:
        if parameter.name == "help":
            continue
        names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
        if parameter.param_type_name == "argument":
            names = f"`{(parameter.metavar or parameter.name).upper()}`"
        text = re.sub(r"\[/?dim\]", "", parameter.help or "")
        default = parameter.default
        shown = "" if default in (None, False, (), []) or callable(default) else f"`{default}`"
        yield f"| {_cell(names)} | {_cell(text)} | {_cell(shown)} |"


def options_reference() -> Iterator[str]:
    """Yield every model, data set, protocol and metric with its options and defaults."""
    yield "# Options"
    yield "\nGenerated from the code. Put options on a name (`rank?pmi=true`), or use `-M`, `-D` and `-P`."
    kinds: dict[Literal["models", "datasets", "protocols"], str]
    kinds = {"models": "Models", "datasets": "Data sets", "protocols": "Protocols"}
    for what, title in kinds.items():
        yield f"\n## {title}\n"
        yield "| name | description | options (defaults) |\n|---|---|---|"
        for row in schemes(what):
            options = ", ".join(f"`{name}={value}`" for name, value in row["options"].items())
            yield f"| `{row['name']}` | {_cell(row['what'])} | {_cell(options)} |"
    yield "\n## Metrics\n"
    yield "| key | heading | better | `metric=` |\n|---|---|---|---|"
    for metric in METRICS.values():
        better = "higher" if metric.higher_is_better else "lower"
        option = f"`{metric.option}`" if metric.option else ""
        yield f"| `{metric.name}` | {_cell(metric.title)} | {better} | {option} |"


def python_reference() -> Iterator[str]:
    """Yield the public names, for mkdocstrings."""
    yield "# Python"
    yield "\nThe public names of the package `snellen`. Everything else may change without notice."
    for home, names in snellen.HOMES.items():
        for name in names:
            if name.isupper():
                continue
            yield f"\n::: {home}.{name}\n"


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
