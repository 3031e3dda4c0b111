"""``ls``, ``show``, ``report``, ``compare``, ``export`` …: inspect what is available and what was run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from snellen._util.words import counted
from snellen.cli.app import (
    EVALUATE,
    EXCHANGE,
    INSPECT,
    AsJson,
    Workspace,
    app,
    print_json,
    print_leaderboard,
    read_options,
    screen,
)
from snellen.cli.completion import complete_model, complete_protocol, complete_run
from snellen.errors import BadOption


@app.command("ls", rich_help_panel=INSPECT)
def ls(
    what: Annotated[
        Literal["models", "providers", "datasets", "protocols", "runs"],
        typer.Argument(help="What to list."),
    ],
    hub: Annotated[
        bool, typer.Option("--hub", help="With models: list image-text-to-text models on the Hub.")
    ] = False,
    search: Annotated[str | None, typer.Option(help="With --hub: filter by name.")] = None,
    limit: Annotated[int | None, typer.Option(help="With --hub: how many to list. [dim]20[/dim]")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """List models, providers of hosted ones, data sets, protocols (with their options), or runs."""
    from snellen.reports import listings

    if hub and what != "models":
        raise BadOption(f"--hub lists models, not {what}: snellen ls models --hub")
    if search is not None and not hub:
        raise BadOption(f"--search needs --hub: snellen ls models --hub --search {search}")
    if limit is not None and not hub:
        raise BadOption("--limit needs --hub: snellen ls models --hub --limit 20")
    if what == "runs":
        from snellen.reports.tables import runs_table
        from snellen.runs.run import list_runs

        runs = list(list_runs(workspace))
        if as_json:
            print_json([run.as_dict() for run in runs])
        else:
            screen().print(runs_table(runs))
        return
    if what == "providers":
        rows = listings.providers()
        if as_json:
            print_json(rows)
        else:
            screen().print(listings.as_providers(rows))
        return
    rows = listings.hub_models(search, 20 if limit is None else limit) if hub else listings.schemes(what)
    benchmarks = listings.catalog() if what == "datasets" else []
    if as_json:
        print_json([*rows, *benchmarks])
        return
    screen().print(listings.as_table(listings.brief(rows)))
    if benchmarks:
        screen().print(listings.as_catalog(benchmarks))


@app.command("show", rich_help_panel=INSPECT)
def show(
    run: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_run, help="A run's id, a unique prefix of it, or PREFIX@last."
        ),
    ],
    prompts: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Show the first N prompts as sent."),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Show a run: metrics, classes, most confused pairs, examples of each failure."""
    from snellen.metrics.classification import per_class
    from snellen.reports import tables
    from snellen.reports.official import official_table
    from snellen.runs.run import open_run

    stored = open_run(run, workspace)
    if prompts is not None and as_json:
        raise BadOption(
            "--prompts cannot be used with --json. For all prompts as JSON: snellen export --format lm-eval"
        )
    if prompts is not None:
        for line in tables.prompt_lines(stored, prompts):
            screen().print(line, soft_wrap=True)
        return
    frame = stored.predictions
    labeled = stored.classifies and len(frame)
    if as_json:
        classes = per_class(frame["label"].tolist(), frame["prediction"].tolist()) if labeled else []
        print_json({**stored.as_dict(), "classes": classes, "manifest": stored.manifest.as_dict()})
        return
    console = screen()
    console.print(tables.figures_table(stored))
    if (categories := tables.category_table(stored)) is not None:
        console.print(categories)
    if (official := official_table(stored)) is not None:
        console.print(official)
    if labeled:
        console.print(tables.class_table(frame))
        console.print(tables.confusion_table(frame))
    if len(frame) and (failures := tables.failures_table(frame)):
        console.print(failures)
    if (skipped := tables.skipped_table(stored)) is not None:
        console.print(skipped)


@app.command("report", rich_help_panel=INSPECT)
def report_(
    runs: Annotated[
        list[str],
        typer.Argument(autocompletion=complete_run, help="Runs: ids, unique prefixes, or PREFIX@last."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to this file. [dim]Standard output[/dim]"),
    ] = None,
    format: Annotated[
        Literal["html", "markdown"] | None,
        typer.Option(help="html or markdown. [dim]markdown for FILE.md, otherwise html[/dim]"),
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Write a report: leaderboard, classes, confusions, right and wrong samples, manifests."""
    from snellen.reports.report import report
    from snellen.runs.run import open_run

    text = report([open_run(run, workspace) for run in runs], output, format=format)
    if output is None:
        typer.echo(text)
    else:
        typer.echo(f"written: {output}", err=True)


@app.command("rescore", rich_help_panel=INSPECT)
def rescore_(
    run: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_run, help="A run's id, a unique prefix of it, or PREFIX@last."
        ),
    ],
    protocol_option: Annotated[
        list[str] | None,
        typer.Option("-P", metavar="KEY=VALUE", help="A protocol option to change. Repeatable."),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Parse and score stored answers again by other rules, as a new run, without calling the model."""
    from snellen.runs.rescore import rescore
    from snellen.runs.run import Run
    from snellen.storage.store import Store

    store = Store(workspace, create=False)
    old = store.find(run)
    new = rescore(store, old, read_options("-P", protocol_option))
    runs = [Run(store, old), Run(store, new)]
    if as_json:
        print_json([item.as_dict() for item in runs])
    else:
        print_leaderboard(runs)


@app.command("compare", rich_help_panel=INSPECT)
def compare_(
    runs: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_run, help="Two or more runs: ids, unique prefixes, or PREFIX@last."
        ),
    ],
    across: Annotated[
        bool, typer.Option("--across", help="Compare across protocols, prompts and protocol options too.")
    ] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Test whether differences between runs are significant, on the samples that they share."""
    from snellen.leaderboards.conclusion import conclude
    from snellen.reports import tables
    from snellen.runs.compare import compare
    from snellen.runs.run import open_run

    opened = [open_run(run, workspace) for run in runs]
    comparisons = compare(opened, across=across)
    if as_json:
        print_json([comparison.as_dict() for comparison in comparisons])
        return
    console = screen()
    if sentences := conclude(opened, lambda _: comparisons):
        console.print(tables.escape(" ".join(sentences)), soft_wrap=True)
    console.print(tables.comparison_table(comparisons))
    if len(comparisons) == 1:
        for table in tables.disagreement_tables(comparisons[0]):
            console.print(table)


@app.command("sample-size", rich_help_panel=EVALUATE)
def sample_size(
    difference: Annotated[float, typer.Option(help="The difference in accuracy to detect, in points.")],
    discordant: Annotated[
        float, typer.Option(help="Samples that exactly one model gets right, in percent.")
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Compute the sample size needed to detect a difference (5% level, 80% power)."""
    from snellen.metrics.stats import samples_needed

    if not 0 < difference <= discordant <= 100:
        raise BadOption(
            f"--difference {difference} --discordant {discordant} is not allowed. The difference must be "
            "above 0 and at most the discordant share, which is at most 100."
        )
    n = samples_needed(difference / 100, discordant / 100)
    if as_json:
        print_json({"difference": difference, "discordant": discordant, "samples": n})
    else:
        typer.echo(
            f"{counted(n, 'image')}. If {discordant:g}% of them are right under exactly one model, a "
            "difference of "
            f"{difference:g} points is then detected in 8 of 10 studies."
        )


@app.command("export", rich_help_panel=EXCHANGE)
def export_(
    runs: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_run, metavar="RUN...", help="Runs: ids, unique prefixes, or PREFIX@last."
        ),
    ],
    format: Annotated[
        Literal["jsonl", "csv", "parquet", "lm-eval", "inspect", "hub", "latex", "markdown"] | None,
        typer.Option(
            help="One row per sample: jsonl, csv, parquet. Other tools' layouts: lm-eval, inspect, hub. "
            "Tables of runs: latex, markdown. [dim]By the file's extension[/dim]"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PATH", help="A file, or a folder for lm-eval, inspect and hub."
        ),
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Export runs: samples, tables with intervals, or the layouts of other tools."""
    # Long for its options alone.
    from snellen.exchange.dispatch import export
    from snellen.runs.run import open_run

    opened = [open_run(name, workspace) for name in runs]
    written = export(opened, output, format=format)
    if isinstance(written, str):
        typer.echo(written, nl=False)
        return
    for path in written:
        typer.echo(f"written: {path}", err=True)


@app.command("import", rich_help_panel=EXCHANGE)
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="LMMs-Eval's samples (.jsonl), VLMEvalKit's predictions (.xlsx, .tsv)."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            autocompletion=complete_model,
            help="The name of the model that gave the answers.",
        ),
    ],
    protocol: Annotated[
        str | None,
        typer.Option(
            "-p",
            "--protocol",
            autocompletion=complete_protocol,
            help="The protocol that reads the answers. [dim]By the file: multiple-choice, yes-no, vqa[/dim]",
        ),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Import another tool's results as a run: its stored answers, read by our parsers, without calling a
    model.
    """
    from snellen.exchange.imported import import_results
    from snellen.storage.store import Store

    imported = import_results(file, model=model, workspace=Store(workspace), protocol=protocol)
    if as_json:
        changed = [{"id": id, "theirs": theirs, "ours": ours} for id, theirs, ours in imported.changed]
        print_json({**imported.run.as_dict(), "theirs": imported.theirs, "changed": changed})
        return
    print_leaderboard([imported.run])
    console, n = screen(), imported.run.metrics.n
    if imported.other_scale:
        console.print("The file's scores are not between 0 and 1, so they are not compared.")
        return
    if imported.theirs is None:
        console.print("The file contains no scores to compare with.")
        return
    figure = imported.run.headline
    ours = "none" if figure is None else f"{100 * figure.value:.1f}%"
    console.print(
        f"Their score: {100 * imported.theirs:.1f}%. Ours on the same answers: {ours}.", soft_wrap=True
    )
    if imported.changed:
        some = ", ".join(f"{id} ({theirs:g} → {ours:g})" for id, theirs, ours in imported.changed[:8])
        more = " …" if len(imported.changed) > 8 else ""
        console.print(
            f"{len(imported.changed)} of {n} answers are scored differently: {some}{more}", soft_wrap=True
        )


@app.command("push", rich_help_panel=EXCHANGE)
def push_(
    runs: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_run, metavar="RUN...", help="Runs: ids, unique prefixes, or PREFIX@last."
        ),
    ],
    to: Annotated[str, typer.Option(metavar="hub:ORG/DATASET", help="The target data set.")],
    public: Annotated[bool, typer.Option("--public", help="Make it public.")] = False,
    workspace: Workspace = None,
) -> None:
    """Publish predictions as a data set on the Hub, with a card; private and without images by default."""
    from snellen.exchange.predictions import push
    from snellen.runs.run import open_run

    opened = [open_run(name, workspace) for name in runs]
    typer.echo(push(opened, to, public=public))
