"""What ``snellen ls`` lists."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from snellen._util.hub import check_hub
from snellen.datasets.base import DATASETS
from snellen.errors import SnellenError, require
from snellen.models.base import MODELS
from snellen.protocols.base import PROTOCOLS
from snellen.registry import Registry

__all__ = ["as_catalogue", "as_table", "brief", "catalogue", "hub_models", "schemes"]


def schemes(what: Literal["models", "datasets", "protocols"]) -> list[dict[str, Any]]:
    """Name, summary and options (with defaults) of each scheme."""
    registries: dict[str, Registry[Any]] = {
        "models": MODELS,
        "datasets": DATASETS,
        "protocols": PROTOCOLS,
    }
    return [
        {
            "name": entry.example,
            "what": entry.summary,
            # A shorthand's options are those of what it is short for, as its summary says.
            "options": {}
            if entry.bundle is not None and entry.scheme != "openai" and what == "models"
            else {name: _default(p.default) for name, p in entry.options.items()},
        }
        for entry in registries[what].entries.values()
        if entry.listed
    ]


def brief(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with the roles of columns, which tables have many of, in one line."""
    from snellen.datasets.columns import ColumnMapping

    roles = [role.name for role in fields(ColumnMapping)]
    lines = []
    for row in rows:
        options = dict(row.get("options", {}))
        own = [name for name in roles if name in options]
        if len(own) > 5:
            options = {"ROLE": f"COLUMN, for {', '.join(own)}"} | {
                name: value for name, value in options.items() if name not in own
            }
        lines.append({**row, "options": options} if "options" in row else row)
    return lines


def catalogue() -> list[dict[str, Any]]:
    """The benchmarks of the catalogue, as their files describe them."""
    from snellen.datasets.benchmarks import entry, names

    return [
        {
            "name": item.name,
            "what": item.title,
            "task": item.task,
            "protocol": item.protocol,
            "samples": item.samples,
            "licence": item.licence,
            "hub": item.hub,
            "revision": item.revision,
            "documented": item.documented,
            "citation": item.citation,
        }
        for item in map(entry, names())
    ]


def as_catalogue(rows: list[dict[str, Any]]) -> Table:
    """The catalogue as a table; where each is documented and cited stands in the JSON."""
    table = Table(header_style="bold", title="Benchmarks", title_justify="left", caption_justify="left")
    shown = ("name", "protocol", "samples", "licence", "hub", "revision", "source")
    for heading in shown:
        table.add_column(heading, justify="right" if heading == "samples" else "left")
    for row in rows:
        source = row["citation"].rsplit(", ", 1)[-1]
        short = {**row, "revision": (row["revision"] or "the newest")[:10], "source": source}
        table.add_row(*(_cell(short[name]) for name in shown))
    table.caption = (
        "Asked as their authors do, unless --protocol says otherwise. A copy on this machine: -D "
        "path=FOLDER or $SNELLEN_DATA/NAME. Where columns are documented, how to cite: snellen ls datasets "
        "--json"
    )
    return table


def _default(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def hub_models(search: str | None, limit: int) -> list[dict[str, Any]]:
    """Image-text-to-text models of the Hub, the most downloaded first.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        SnellenError: the Hub cannot be reached.
    """
    hub: Any = require("huggingface_hub", "local", "Asking the Hub")
    check_hub()
    fields = ["safetensors", "cardData", "downloads"]
    try:
        models = list(
            hub.HfApi().list_models(
                pipeline_tag="image-text-to-text",
                search=search,
                sort="downloads",
                limit=limit,
                expand=fields,
            )
        )
    except Exception as error:
        raise SnellenError(
            "The Hugging Face Hub cannot be reached "
            f"({type(error).__name__}). What is built in or on disk: snellen ls models"
        ) from error
    return [
        {
            "name": f"hf:{model.id}",
            "parameters": getattr(model.safetensors, "total", None),
            "licence": (getattr(model, "card_data", None) or {}).get("license"),
            "downloads": model.downloads,
        }
        for model in models
    ]


def as_table(rows: list[dict[str, Any]]) -> Table:
    """Rows of equal keys as a table; options one a line."""
    table = Table(header_style="bold", show_lines=bool(rows) and "options" in rows[0])
    for heading in rows[0] if rows else ("nothing found",):
        table.add_column(heading, no_wrap=heading == "name")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(escape(f"{key}={shown}") for key, shown in value.items()) or "–"
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if value is None else escape(str(value))
