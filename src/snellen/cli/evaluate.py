"""``run``, ``resume`` and ``demo``: evaluate models."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snellen._util.redaction import redact
from snellen.cli.app import (
    EVALUATE,
    AsJson,
    DataOptions,
    EngineName,
    GpusPerReplica,
    LogRequests,
    MaxConcurrency,
    MaxCost,
    MaxFailures,
    ModelOptions,
    OutputPath,
    ProtocolOptions,
    Quiet,
    Replicas,
    Track,
    Verbose,
    Workspace,
    app,
    print_json,
    print_leaderboard,
    read_engine,
    read_options,
    screen,
    tell_errors,
    tell_more,
)
from snellen.cli.carrying_out import carry_out_plan, tell_how_to_go_on, tell_what_is_left_out
from snellen.cli.completion import complete_data, complete_model, complete_protocol, complete_run
from snellen.errors import BadOption, SnellenError
from snellen.scorers.base import ERROR_COUNTS

if TYPE_CHECKING:
    from snellen.runs.plan import Plan
    from snellen.runs.run import Run


@app.command("run", rich_help_panel=EVALUATE)
def run_(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            autocompletion=complete_model,
            help="A model, such as pico:llava or hf:ORG/NAME. Repeatable.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--data",
            autocompletion=complete_data,
            help="A data set, such as folder:./photos. Repeatable.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YAML file with these options; others given here override it."),
    ] = None,
    save_config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write these options to a YAML file, and run.")
    ] = None,
    data_name: Annotated[
        list[str] | None,
        typer.Option(
            help="The name of the data set in reports, cards and exports, one for each --data. [dim]Its name "
            "without folders[/dim]"
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--protocol",
            autocompletion=complete_protocol,
            help="A protocol, such as closed-set or rank. Repeatable. [dim]The data set's own, or "
            "closed-set[/dim]",
        ),
    ] = None,
    model_option: ModelOptions = None,
    data_option: DataOptions = None,
    protocol_option: ProtocolOptions = None,
    limit: Annotated[int | None, typer.Option(help="Evaluate the first N samples only.")] = None,
    classes: Annotated[
        list[str] | None, typer.Option(help="Evaluate these classes only (comma-separated). Repeatable.")
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(help="Evaluate a random subset of N classes (by --seed).")
    ] = None,
    per_class: Annotated[int | None, typer.Option(help="Evaluate the first N samples of each class.")] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Shuffle samples (by --seed).")] = False,
    split: Annotated[str | None, typer.Option(help="The split of the data set.")] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Skip unreadable samples and list them in the run.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed for shuffling, class subsets and protocols.")] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Requests per batch, or images with all their questions."),
    ] = None,
    max_cost: MaxCost = None,
    max_concurrency: MaxConcurrency = None,
    max_failures: MaxFailures = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate requests and cost without evaluating.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore stored answers and start new runs.")] = False,
    engine: EngineName = None,
    replicas: Replicas = None,
    gpus_per_replica: GpusPerReplica = None,
    sink: Annotated[
        str | None,
        typer.Option(
            metavar="parquet:URL",
            help="With --engine: replicas write predictions and answers to Parquet files here (a folder, "
            "s3://…, gs://…) instead of the workspace.",
        ),
    ] = None,
    track: Track = None,
    workspace: Workspace = None,
    output_path: OutputPath = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_requests: LogRequests = None,
) -> None:
    """Evaluate models on data sets and print a leaderboard.

    Rerunning the same command resumes: only missing samples are evaluated.
    """
    # Long for its options alone.
    tell_more(log_requests, verbose=verbose)
    from snellen.runs.config import RunConfig
    from snellen.runs.plan import Plan

    filters = {
        "classes": tuple(classes or ()),
        "num_classes": num_classes,
        "per_class": per_class,
        "shuffle": shuffle,
        "limit": limit,
        "split": split,
        "skip_invalid": skip_invalid,
    }
    given = RunConfig(
        models=tuple(model or ()),
        data=tuple(data or ()),
        protocols=tuple(protocol or ()),
        data_names=tuple(data_name or ()),
        filters={k: v for k, v in filters.items() if v is not None and v is not False and v != ()},
        model_options=read_options("-M", model_option),
        data_options=read_options("-D", data_option),
        protocol_options=read_options("-P", protocol_option),
        seed=seed,
        batch_size=batch_size,
        max_cost=max_cost,
        max_concurrency=max_concurrency,
    )
    chosen = given if config is None else RunConfig.read(config).override(given)
    plan = Plan(
        **chosen.arguments(),
        workspace=workspace,
        fresh=fresh,
        engine=read_engine(engine, replicas, gpus_per_replica),
        sink=sink,
    )
    if save_config is not None:
        chosen.write(save_config)
        typer.echo(f"written: {save_config}", err=True)
    if dry_run:
        _print_forecasts(plan, as_json=as_json)
        return
    _run(plan, max_failures, output_path, track or (), as_json=as_json, quiet=quiet)


@app.command("resume", rich_help_panel=EVALUATE)
def resume(
    run: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_run, help="A run's id, a unique prefix of it, or PREFIX@last."
        ),
    ] = "@last",
    max_cost: MaxCost = None,
    max_concurrency: MaxConcurrency = None,
    max_failures: MaxFailures = 0.0,
    engine: EngineName = None,
    replicas: Replicas = None,
    gpus_per_replica: GpusPerReplica = None,
    track: Track = None,
    workspace: Workspace = None,
    output_path: OutputPath = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_requests: LogRequests = None,
) -> None:
    """Resume a run that was interrupted or has errors; only missing samples are evaluated."""
    tell_more(log_requests, verbose=verbose)
    from snellen.runs.resume import plan_of
    from snellen.storage.store import Store

    store = Store(workspace, create=False)
    plan = plan_of(
        store,
        store.find(run),
        max_cost=max_cost,
        max_concurrency=max_concurrency,
        engine=read_engine(engine, replicas, gpus_per_replica),
    )
    _run(plan, max_failures, output_path, track or (), as_json=as_json, quiet=quiet)


def _run(
    plan: Plan,
    max_failures: float,
    output_path: Path | None,
    trackers: Sequence[str],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Evaluate, and print the results."""
    from snellen.exchange.export import writable, write_run
    from snellen.reports.notes import skipped, unscored
    from snellen.reports.tracking import tracker

    for name in trackers:
        tracker(name)
    if not 0 <= max_failures <= 1:
        raise BadOption(f"--max-failures {max_failures} is not allowed; allowed: 0 to 1.")
    if output_path is not None:
        writable(output_path)
    stopped = carry_out_plan(plan, quiet=quiet)
    runs = [run for run in plan.runs if run.metrics.n]
    if output_path is not None:
        for run in runs:
            write_run(run, output_path)
    if as_json:
        print_json({"runs": [run.as_dict() for run in runs], "incompatible": plan.skipped})
    elif runs:
        print_leaderboard(runs)
    untold = _tell(trackers, runs)
    if stopped is not None:
        typer.echo(f"Error: {redact(str(stopped))}\nAnswers so far are saved.", err=True)
        tell_how_to_go_on(plan)
        raise typer.Exit(1)
    for line in (*skipped(runs), *(line for run in runs for line in unscored(run))):
        typer.echo(line, err=True)
    tell_errors(runs)
    if untold or any(_failed_share(run) > max_failures for run in runs):
        raise typer.Exit(1)


def _tell(trackers: Sequence[str], runs: Sequence[Run]) -> bool:
    """Send figures to trackers; return whether one failed."""
    from snellen.reports.tracking import track

    failed = False
    for name in trackers:
        for run in runs:
            try:
                track(name, run)
            except SnellenError as error:
                typer.echo(f"Error: {redact(str(error))}", err=True)
                failed = True
    return failed


def _print_forecasts(plan: Plan, *, as_json: bool) -> None:
    from snellen.reports.forecasts import forecasts_table

    estimates = plan.forecasts()
    tell_what_is_left_out(plan)
    if as_json:
        document = {"forecasts": [e.as_dict() for e in estimates], "incompatible": plan.skipped}
        print_json(document)
    else:
        screen().print(forecasts_table(estimates))


def _failed_share(run: Run) -> float:
    """The share of samples that ended in an error, or that a judge or an extractor failed to answer about."""
    figures = run.metrics
    unscored = (figures.protocol.get(name, 0) for name in ERROR_COUNTS)
    failed = max(figures.outcomes["error"], *unscored)
    return float(failed / figures.n)


@app.command("demo", rich_help_panel=EVALUATE)
def demo(
    workspace: Workspace = None,
    quiet: Quiet = False,
) -> None:
    """Evaluate the built-in models on a built-in data set: offline, no GPU, in a minute."""
    from snellen.exchange.export import write_text
    from snellen.models.pico import NAMES
    from snellen.reports import page
    from snellen.runs.filters import Filters
    from snellen.runs.plan import Plan

    plan = Plan(
        models=[f"pico:{name}" for name in NAMES],
        data=["chart:shapes"],
        protocols=["closed-set", "binary", "rank"],
        filters=Filters(limit=DEMO_SAMPLES),
        workspace=workspace,
    )
    plan.notes = [
        f"{len(NAMES)} built-in models, {DEMO_SAMPLES} drawn pictures in 28 classes, 3 protocols. "
        "The models are tiny, but trained."
    ]
    plan.skipped, skipped = [], plan.skipped
    carry_out_plan(plan, quiet=quiet)
    runs = plan.runs
    print_leaderboard(runs)
    console = screen()
    console.print(f"[dim]Skipped: {'; '.join(skipped)}.[/dim]", soft_wrap=True)
    report = plan.folder / "report.html"
    write_text(report, page.html(runs))
    console.print(f"Report with pictures, confusions and samples: {report}", soft_wrap=True)
    console.print(
        f"\nNext, your own images, one folder per class{_activation()}:\n"
        "  snellen run --model hf:HuggingFaceTB/SmolVLM-500M-Instruct "
        "--data folder:./photos --protocol closed-set\n"
        "Without a download, to try it out:\n"
        "  snellen run --model pico:clip --data folder:./photos --protocol rank\n"
        "More: snellen ls models, snellen ls datasets, snellen ls protocols, snellen show @last",
        soft_wrap=True,
    )


def _activation() -> str:
    """Explain how to activate the environment, if the command is not on the PATH."""
    import shutil

    if shutil.which("snellen"):
        return ""
    return f" (first: source {Path(sys.executable).parent / 'activate'})"


#: Five pictures per class.
DEMO_SAMPLES = 140
