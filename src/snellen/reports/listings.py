"""The lists that ``snellen ls`` prints."""

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
from snellen.registry import Registration, Registry

__all__ = [
    "as_catalog",
    "as_providers",
    "as_table",
    "brief",
    "catalog",
    "hub_models",
    "providers",
    "schemes",
]


def schemes(what: Literal["models", "datasets", "protocols"]) -> list[dict[str, Any]]:
    """Return name, summary and options (with defaults) of each scheme."""
    registries: dict[str, Registry[Any]] = {
        "models": MODELS,
        "datasets": DATASETS,
        "protocols": PROTOCOLS,
    }
    target = MODELS.entries["openai"]

    def shorthand(entry: Registration) -> bool:
        """Whether it has the options of its target, as its summary says."""
        return entry is not target and bool(entry.explained) and entry.explained == target.explained

    return [
        {
            "name": entry.example,
            "what": entry.summary.replace("``", ""),
            "about": "" if shorthand(entry) else entry.explained,
            "options": {}
            if shorthand(entry)
            else {name: _default(p.default) for name, p in registries[what].options_of(entry).items()},
            "allowed": {
                name: list(values)
                for name in registries[what].options_of(entry)
                if (values := entry.allowed(name))
            },
        }
        for entry in registries[what].entries.values()
        if entry.listed
    ]


def brief(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the same with the many column roles of tables on one line, and options of all rows in a last
    row.
    """
    from snellen.datasets.columns import ColumnMapping

    roles = [role.name for role in fields(ColumnMapping)]
    lines = []
    every = [row.get("options", {}) for row in rows]
    common = {
        name: value
        for name, value in every[0].items()
        if len(rows) > 1 and all(name in options and options[name] == value for options in every)
    }
    for row in rows:
        options = {name: value for name, value in row.get("options", {}).items() if name not in common}
        own = [name for name in roles if name in options]
        if len(own) > 5:
            options = {"ROLE": f"COLUMN, for {', '.join(own)}"} | {
                name: value for name, value in options.items() if name not in own
            }
        if "options" not in row:
            lines.append(row)
            continue
        told = {
            name: f"{value} ({', '.join(row['allowed'][name])})" if name in row["allowed"] else value
            for name, value in options.items()
        }
        about = f"\nOptions: {row['about']}" if row["about"] else ""
        lines.append({"name": row["name"], "what": f"{row['what']}{about}", "options": told})
    return (
        [*lines, {"name": "all", "what": "Options of all of them.", "options": common}] if common else lines
    )


def catalog() -> list[dict[str, Any]]:
    """Return the benchmarks in the catalog, as described by their files."""
    from snellen.datasets.benchmarks import entry, names

    return [
        {
            "name": item.name,
            "what": item.title,
            "task": item.task,
            "protocol": item.protocol,
            "samples": item.samples,
            "license": item.license,
            "hub": item.hub,
            "revision": item.revision,
            "documented": item.documented,
            "citation": item.citation,
        }
        for item in map(entry, names())
    ]


def as_catalog(rows: list[dict[str, Any]]) -> Table:
    """Return the catalog as a table; the JSON also has documentation and citations."""
    table = Table(header_style="bold", title="Benchmarks", title_justify="left", caption_justify="left")
    shown = ("name", "protocol", "samples", "license", "hub", "revision", "source")
    for heading in shown:
        table.add_column(heading, justify="right" if heading == "samples" else "left")
    for row in rows:
        source = row["citation"].rsplit(", ", 1)[-1]
        short = {**row, "revision": (row["revision"] or "the newest")[:10], "source": source}
        table.add_row(*(_cell(short[name]) for name in shown))
    table.caption = (
        "Evaluated as their authors do, unless --protocol is set. To use a local copy: -D "
        "path=FOLDER or $SNELLEN_DATA/NAME. For documentation and citations: snellen ls datasets "
        "--json"
    )
    return table


def providers() -> list[dict[str, Any]]:
    """Return name, address, key and limits of each provider of hosted models."""
    from snellen.models.remote.providers import PROVIDERS

    return [{"name": f"{name}:NAME", **provider._asdict()} for name, provider in PROVIDERS.items()]


def as_providers(rows: list[dict[str, Any]]) -> Table:
    """Return the providers as a table; the JSON also has the sources."""
    table = Table(header_style="bold", caption_justify="left")
    for heading in ("name", "address", "key", "images", "notes"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        images = [", ".join(row["formats"]), f"{row['max_bytes'] / 1e6:.1f} MB"]
        images += [f"{row['max_side']} px"] * bool(row["max_side"])
        images += [f"{row['max_images']} a request"] * bool(row["max_images"])
        key = row["key"] if row["needs_key"] else f"{row['key']}, if required"
        notes = "; ".join([row["note"]] * bool(row["note"]) + ["batch=true"] * bool(row["batches"]))
        cells = (row["name"], row["address"] or "base_url=", key, "; ".join(images), notes)
        table.add_row(*map(escape, cells))
    table.caption = (
        "Other servers: openai:NAME with -M base_url=URL -M api_key_env=VARIABLE. Sizes are of an image in "
        "base64. What a provider does not document is what every server takes; for the sources: snellen ls "
        "providers --json"
    )
    return table


def _default(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def hub_models(search: str | None, limit: int) -> list[dict[str, Any]]:
    """List image-text-to-text models on the Hub, most downloaded first.

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
            f"({type(error).__name__}). For built-in and local models: snellen ls models"
        ) from error
    return [
        {
            "name": f"hf:{model.id}",
            "parameters": getattr(model.safetensors, "total", None),
            "license": (getattr(model, "card_data", None) or {}).get("license"),
            "downloads": model.downloads,
        }
        for model in models
    ]


def as_table(rows: list[dict[str, Any]]) -> Table:
    """Return rows with equal keys as a table, one option per line."""
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
