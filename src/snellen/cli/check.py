"""``check``: look at data before a run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from snellen.cli.app import (
    EVALUATE,
    AsJson,
    DataOptions,
    ModelOptions,
    ProtocolOptions,
    app,
    print_json,
    read_options,
    screen,
)
from snellen.cli.completion import complete_data, complete_model, complete_protocol
from snellen.errors import BadOption


@app.command("check", rich_help_panel=EVALUATE)
def check_(
    data: Annotated[
        str,
        typer.Option(
            "-d", "--data", autocompletion=complete_data, help="A data set, such as folder:./photos."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            autocompletion=complete_model,
            help="Also show a prompt to this model, and estimate the run.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "-p",
            "--protocol",
            autocompletion=complete_protocol,
            help="The protocol of the prompt and the estimate.",
        ),
    ] = None,
    protocol_option: ProtocolOptions = None,
    model_option: ModelOptions = None,
    data_option: DataOptions = None,
    limit: Annotated[int | None, typer.Option(help="Check the first N samples only.")] = None,
    per_class: Annotated[int | None, typer.Option(help="Check the first N samples of each class.")] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Shuffle samples.")] = False,
    split: Annotated[str | None, typer.Option(help="The split of the data set.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at data before a run: classes, duplicates, unreadable images, the prompt, time and cost."""
    # Long for its options alone.
    from snellen.reports.tables import escape
    from snellen.runs.filters import Filters
    from snellen.runs.preflight import preflight

    if model is None and (protocol is not None or model_option or protocol_option):
        raise BadOption("-p, -P and -M are for the prompt that a model is shown; name one with -m MODEL.")
    filters = Filters(limit=limit, per_class=per_class, shuffle=shuffle, split=split, skip_invalid=True)
    result = preflight(
        data, model, protocol, filters=filters,
        data_options=read_options("-D", data_option), model_options=read_options("-M", model_option),
        protocol_options=read_options("-P", protocol_option),
    )  # fmt: skip
    if as_json:
        print_json(result.as_dict())
        return
    console = screen()
    for line in result.lines():
        console.print(escape(line), soft_wrap=True)
    problems: list[Any] = list(result.problems())
    console.print("\n[bold]To look at[/]" if problems else "\n[green]Nothing to look at.[/]")
    for problem in problems:
        console.print(f"- {escape(problem)}.", soft_wrap=True)
