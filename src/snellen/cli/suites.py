"""``suite``: studies as many runs, and their published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snellen._util.redaction import redact
from snellen.cli.app import (
    AGAIN,
    EVALUATE,
    Application,
    AsJson,
    MaxCost,
    Quiet,
    Workspace,
    app,
    interruptible,
    print_json,
    read_options,
    screen,
    tell_errors,
)
from snellen.cli.completion import complete_model
from snellen.errors import Stopped, require

suite_app = Application(no_args_is_help=True, help="Reproduce published studies and compare the figures.")
app.add_typer(suite_app, name="suite", rich_help_panel=EVALUATE)

SuiteName = Annotated[str, typer.Argument(help="A suite, or a suite file: FILE.yaml.")]


@suite_app.command("ls")
def suite_ls(as_json: AsJson = False) -> None:
    """List the suites."""
    from snellen.reports.listings import as_table
    from snellen.suites.suite import find, names

    rows = [
        {
            "name": name,
            "title": (suite := find(name)).title,
            "parts": len(suite.parts),
            "source": suite.source,
        }
        for name in names()
    ]
    if as_json:
        print_json(rows)
    else:
        screen().print(as_table(rows))


@suite_app.command("show")
def suite_show(name: SuiteName, as_json: AsJson = False) -> None:
    """Show a suite: parts, models, published figures and claims."""
    from dataclasses import asdict

    from snellen.reports.suites import suite_tables
    from snellen.suites.suite import find

    suite = find(name)
    if as_json:
        print_json(asdict(suite))
        return
    for table in suite_tables(suite):
        screen().print(table)


@suite_app.command("run")
def suite_run(
    name: SuiteName,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            autocompletion=complete_model,
            help="Evaluate this model instead of the suite's. Repeatable.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Evaluate at most N samples per part.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate requests and cost without evaluating.")
    ] = False,
    max_cost: MaxCost = None,
    protocol_option: Annotated[
        list[str] | None,
        typer.Option(
            "-P", metavar="KEY=VALUE", help="Set an option for every protocol that has it. Repeatable."
        ),
    ] = None,
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
    """Run a suite and write a report of measured against published figures. Rerunning it resumes."""
    # Long for its options alone.
    from snellen.exchange.export import write_text
    from snellen.reports.forecasts import forecasts_table
    from snellen.reports.progress import progress
    from snellen.reports.suites import outcome_tables, suite_page
    from snellen.suites.runner import forecast, run_suite
    from snellen.suites.suite import find

    suite = find(name)
    require("jinja2", "report", "Writing the report")  # fail now rather than after the evaluation
    if dry_run:
        options = read_options("-P", protocol_option)
        estimates, left_out = forecast(
            suite, model or (), limit=limit, workspace=workspace, max_cost=max_cost, options=options
        )
        _tell_left_out(left_out)
        if as_json:
            rows = [{"part": part, **estimate.as_dict()} for part, estimate in estimates]
            print_json({"forecasts": rows, "left_out": left_out})
        elif estimates:
            screen().print(forecasts_table([estimate for _, estimate in estimates]))
        if left_out:
            raise typer.Exit(1)
        return
    try:
        with interruptible(), progress(quiet=quiet) as watch:
            outcome = run_suite(
                suite,
                model or (),
                limit=limit,
                workspace=workspace,
                max_cost=max_cost,
                options=read_options("-P", protocol_option),
                watch=watch,
            )
    except Stopped as error:
        typer.echo(f"Error: {redact(str(error))}\nRerun the same command to resume.", err=True)
        raise typer.Exit(1) from None
    if output is None:
        output = outcome.runs[0].folder / f"suite-{suite.name}.html"
    write_text(output, suite_page(outcome))
    if as_json:
        print_json({**outcome.as_dict(), "report": str(output)})
    else:
        for table in outcome_tables(outcome):
            screen().print(table)
        screen().print(f"The report: {output}", soft_wrap=True)
    _tell_left_out(outcome.left_out)
    failed = tell_errors(outcome.runs, AGAIN)
    if outcome.left_out or failed:
        raise typer.Exit(1)


def _tell_left_out(left_out: list[str]) -> None:
    for line in left_out:
        typer.echo(f"skipped: {redact(line)}", err=True)
