"""``diagnose``: find out why a model fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from snellen._util.paths import bare_name
from snellen._util.redaction import redact
from snellen.cli.app import (
    AGAIN,
    IMPROVE,
    AsJson,
    DataOptions,
    MaxConcurrency,
    MaxCost,
    ModelOptions,
    Quiet,
    Workspace,
    app,
    interruptible,
    print_json,
    read_options,
    screen,
    slug,
    tell_errors,
)
from snellen.cli.completion import complete_data

if TYPE_CHECKING:
    from snellen.diagnosis.diagnosis import Diagnosis


@app.command("diagnose", rich_help_panel=IMPROVE)
def diagnose_(
    model: Annotated[str, typer.Argument(help="A model, such as hf:ORG/NAME or pico:llava-skewed.")],
    data: Annotated[
        str,
        typer.Option(
            "-d",
            "--data",
            autocompletion=complete_data,
            help="A data set with classes, such as folder:./photos.",
        ),
    ],
    only: Annotated[
        list[str] | None, typer.Option(metavar="PART,…", help="Run only these parts. Repeatable.")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="A model to compare with: clip:…, classifier:… Repeatable."),
    ] = None,
    train_split: Annotated[str | None, typer.Option(help="The split to fit probes on.")] = None,
    captions: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="The model's training texts: .jsonl, .json, .parquet, .txt."),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Your own prompt for the open question. Repeatable.")
    ] = None,
    layers: Annotated[
        Literal["last", "all"], typer.Option(help="The layers whose hidden states to probe.")
    ] = "last",
    limit: Annotated[int | None, typer.Option(help="Evaluate the first N samples only.")] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Skip unreadable images and list them.")
    ] = False,
    max_cost: MaxCost = None,
    max_concurrency: MaxConcurrency = None,
    model_option: ModelOptions = None,
    data_option: DataOptions = None,
    batch_size: Annotated[int | None, typer.Option(help="Requests per batch.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write the report here. [dim]In the workspace[/dim]"
        ),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Diagnose why a model fails: labels, prompts, order, decoding, features, training data.

    Parts: gap, sweep, prompts, order, cot, decoding, probe, exposure, size, confusions.
    """
    # Long for its options alone.
    from snellen.diagnosis.analysis import Subject
    from snellen.diagnosis.diagnosis import Diagnosis, chosen, diagnose, references_of
    from snellen.reports.progress import progress
    from snellen.runs.filters import Filters
    from snellen.runs.run import Run
    from snellen.storage.store import Store

    chosen(only or [])  # fail early on misspelled parts
    store = Store(workspace)
    with interruptible(), progress(quiet=quiet) as watch:
        case = Subject(
            model=model,
            data=data,
            store=store,
            references=reference or references_of(model),
            train=train_split,
            captions=captions or (),
            prompts=prompt or (),
            layers=layers,
            filters=Filters(limit=limit, skip_invalid=skip_invalid),
            data_options=read_options("-D", data_option),
            model_options=read_options("-M", model_option),
            batch_size=batch_size,
            watch=watch,
            max_cost=max_cost,
            max_concurrency=max_concurrency,
        )
        named = bare_name(redact(model)), bare_name(redact(data))  # pages are published
        diagnosis = Diagnosis(model=named[0], data=named[1], n=len(case.selection))
        words = [*named, *(name for item in only or [] for name in item.split(","))]
        stem = "-".join(slug(word)[-60:] for word in words)
        output = output or store.folder / f"diagnosis-{stem[:200]}.html"
        try:
            diagnose(case, only or [], into=diagnosis)
        finally:  # also when stopped: with the findings so far
            case.close()
            if diagnosis.findings or diagnosis.left_out:
                diagnosis.write(output)
    if as_json:
        print_json({**diagnosis.as_dict(), "report": str(output)})
    else:
        _print(diagnosis, output)
    ids = dict.fromkeys(id for finding in diagnosis.findings for id in finding.runs)
    if tell_errors((Run(store, id) for id in ids), AGAIN) or not diagnosis.findings:
        raise typer.Exit(1)


def _print(diagnosis: Diagnosis, output: Path) -> None:
    """Print each finding in one line."""
    from snellen.reports.tables import escape

    console = screen()
    for finding in diagnosis.findings:
        like = {True: " [green]As in the study.[/]", False: " [yellow]Unlike in the study.[/]", None: ""}[
            finding.shows
        ]
        console.print(f"[bold]{finding.title}[/]: {escape(finding.verdict)}{like}", soft_wrap=True)
    for name, reason in (diagnosis.left_out | diagnosis.missing).items():
        console.print(f"[dim]Skipped {escape(name)}: {escape(reason)}[/]", soft_wrap=True)
    console.print(f"Report: {output}", soft_wrap=True)
