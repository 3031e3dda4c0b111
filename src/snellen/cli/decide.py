"""``choose``: which of several models to use; ``labels``: which labels are probably wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

import typer

from snellen._util.words import counted
from snellen.cli.app import (
    EVALUATE,
    INSPECT,
    AsJson,
    DataOptions,
    MaxConcurrency,
    MaxCost,
    ModelOptions,
    ProtocolOptions,
    Quiet,
    Workspace,
    app,
    print_json,
    read_options,
    screen,
)
from snellen.cli.carrying_out import tell_what_is_left_out
from snellen.cli.completion import complete_data, complete_model, complete_protocol, complete_run
from snellen.errors import BadOption

if TYPE_CHECKING:
    from snellen.decisions.standing import Look


@app.command("choose", rich_help_panel=EVALUATE)
def choose_(
    model: Annotated[
        list[str],
        typer.Option(
            "-m",
            "--model",
            autocompletion=complete_model,
            help="A model, such as pico:llava or hf:ORG/NAME. Repeatable.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "-d", "--data", autocompletion=complete_data, help="The images, such as folder:./photos."
        ),
    ],
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--protocol",
            autocompletion=complete_protocol,
            help="A protocol; several race as well. Repeatable. [dim]The data set's own, or closed-set[/dim]",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="A wording of the question for every protocol; several race as well. Repeatable.",
        ),
    ] = None,
    within: Annotated[
        float, typer.Option(metavar="POINTS", help="The choice may be worse than the best by so much.")
    ] = 1.0,
    confidence: Annotated[float, typer.Option(metavar="PERCENT", help="How sure to be.")] = 95.0,
    prefer: Annotated[
        Literal["cost", "speed", "size"] | None,
        typer.Option(help="Among models that are as good: the cheapest, fastest or smallest."),
    ] = None,
    score: Annotated[
        Literal["plain", "balanced"] | None,
        typer.Option(
            help="Whether images count alike, or classes. [dim]balanced, if classes are unequal[/dim]"
        ),
    ] = None,
    population: Annotated[
        Literal["like", "data"], typer.Option(help="Decide for images like these, or for exactly these.")
    ] = "like",
    limit: Annotated[int | None, typer.Option(help="Use the first N samples only.")] = None,
    classes: Annotated[
        list[str] | None, typer.Option(help="Use these classes only (comma-separated). Repeatable.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split of the data set.")] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Skip unreadable images and report them.")
    ] = False,
    model_option: ModelOptions = None,
    data_option: DataOptions = None,
    protocol_option: ProtocolOptions = None,
    seed: Annotated[int, typer.Option(help="Random seed for the order of images and for protocols.")] = 0,
    batch_size: Annotated[int | None, typer.Option(help="Requests per batch.")] = None,
    max_cost: MaxCost = None,
    max_concurrency: MaxConcurrency = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate the most that it takes, without asking anything.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Draw the race here (.png, .svg, .pdf), or on a page (.html).",
        ),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the best of several models on your images, and stop asking models that are beaten.

    Rerunning the same command resumes.
    """
    # Long for its options alone.
    from snellen.decisions.choosing import Choosing
    from snellen.reports.decisions import check_picture, decision_table, write_race
    from snellen.reports.forecasts import forecasts_table
    from snellen.runs.filters import Filters
    from snellen.runs.plan import Plan, SharedResources

    if prompt and not protocol:
        raise BadOption("--prompt needs --protocol: it is a wording of that protocol's question.")
    choosing = Choosing(
        Plan(
            models=model,
            data=[data],
            protocols=_worded(protocol or (), prompt or ()),
            model_options=read_options("-M", model_option),
            data_options=read_options("-D", data_option),
            protocol_options=read_options("-P", protocol_option),
            filters=Filters(
                classes=tuple(classes or ()), limit=limit, split=split, skip_invalid=skip_invalid
            ),
            seed=seed,
            batch_size=batch_size,
            workspace=workspace,
            max_cost=max_cost,
            max_concurrency=max_concurrency,
            resources=SharedResources(),
        ),
        within=within / 100,
        confidence=confidence / 100,
        prefer=prefer,
        score=score,
        population=population == "data",
    )
    plan = choosing.plan
    if output is not None:
        check_picture(output)
    if dry_run:
        estimates = plan.forecasts()
        if as_json:
            print_json({"forecasts": [e.as_dict() for e in estimates], "incompatible": plan.skipped})
        else:
            tell_what_is_left_out(plan)
            screen().print(forecasts_table(estimates))
            screen().print(
                "This is what asking everything would take, and the most that a race takes: it asks all "
                "models the same first images, drops those that are beaten, and stops when it can tell.",
                soft_wrap=True,
            )
        return
    if not quiet:
        tell_what_is_left_out(plan)
    try:
        with _looks(quiet=quiet) as watch, redirect_stdout(sys.stderr):
            decision = choosing.run(watch)
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. Answers so far are saved. Rerun the same command to resume.", err=True)
        raise typer.Exit(130) from None
    finally:
        choosing.close()
    if output is not None:
        write_race(decision, output, plan.store.option)
    if as_json:
        print_json(decision.as_dict())
        return
    console = screen()
    console.print(decision_table(decision))
    console.print(decision.sentence, soft_wrap=True, highlight=False)
    for note in decision.notes:
        console.print(f"Note: {note}", soft_wrap=True, highlight=False, markup=False)
    if output is not None:
        console.print(f"The race: {output}", soft_wrap=True)
    elif choosing.kept is not None:
        console.print(
            f"The race in the browser: snellen view{plan.store.option}", style="dim", soft_wrap=True
        )
    first = next(arm for arm in decision.arms if arm.name == (decision.choice or decision.leader))
    rest = f". Answer the rest: snellen resume {first.run}{plan.store.option}"
    console.print(
        f"Look at its answers: snellen show {first.run}{plan.store.option}"
        + (rest if first.images < decision.of else ""),
        style="dim",
        soft_wrap=True,
    )


def _worded(protocols: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """Return every protocol with every wording.

    >>> _worded(["open-world"], ["What is it?"]), _worded(["rank"], [])
    (['open-world?prompt=What is it%3F'], ['rank'])
    """
    if not prompts:
        return list(protocols)
    return [
        f"{name}{'&' if '?' in name else '?'}prompt={quote(text, safe=' ,.:;')}"
        for name in protocols
        for text in prompts
    ]


@contextmanager
def _looks(*, quiet: bool) -> Iterator[Callable[[Look], None] | None]:
    """Return a watcher that prints one line a look."""

    def watch(state: Look) -> None:
        best = ", ".join(f"{name} {100 * score:.1f}" for name, score in list(state.scores.items())[:3])
        more = f" and {len(state.scores) - 3} more" if len(state.scores) > 3 else ""
        cost = "" if state.cost is None else f", ${state.cost:.2f}"
        line = (
            f"{state.images:,} of {state.of:,} images, {counted(state.answers, 'answer')}{cost}: {best}{more}"
        )
        if state.to_go and state.to_go < state.of - state.images:
            line += f"; about {counted(state.to_go, 'image')} to go"
            line += f" (${state.forecast:.2f} in all)" if state.forecast else ""
        gone = [f"{name} leaves ({by})" for name, by in state.left.items()]
        print("; ".join([line, *gone]), file=sys.stderr, flush=True)

    yield None if quiet else watch


@app.command("labels", rich_help_panel=INSPECT)
def labels_(
    runs: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_run, help="Runs of different models on the same data, at least two."
        ),
    ],
    suspects: Annotated[int, typer.Option(help="Show this many suspicious labels at most.")] = 50,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write a page to decide on each (.html), or a file to edit (.json).",
        ),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Find labels that are probably wrong: images whose label several models contradict in agreement.

    Apply decisions with: snellen run … -D corrections=labels.json
    """
    # Long for its options, and for all that there is to say.
    from snellen.decisions.labels import review_labels, write_corrections
    from snellen.decisions.record import keep_review
    from snellen.exchange.export import write_text
    from snellen.reports.labels import labels_page, labels_table
    from snellen.runs.run import Run
    from snellen.storage.store import Store

    if suspects < 1:
        raise BadOption(f"--suspects {suspects} is not allowed; allowed: 1 or more.")
    if output is not None and output.suffix not in (".html", ".json"):
        raise BadOption(f"-o {output}: allowed endings: .html, .json.")
    store = Store(workspace, create=False)
    review = review_labels([Run(store, store.find(name)) for name in runs], suspects)
    kept = keep_review(store, review)
    if output is not None and output.suffix == ".json":
        write_corrections(review, output)
    elif output is not None:
        write_text(output, labels_page(review, store))
    if as_json:
        print_json(review.as_dict())
        return
    console = screen()
    if review.suspects:
        console.print(labels_table(review))
    console.print(review.sentence, soft_wrap=True, highlight=False)
    for a, x, b, y in review.duplicates[:5]:
        console.print(f"Look alike: {a} ({x}) and {b} ({y})", soft_wrap=True, highlight=False, markup=False)
    if len(review.duplicates) > 5:
        console.print(
            f"… and {counted(len(review.duplicates) - 5, 'more pair', 'more pairs')} with different labels."
        )
    if review.unfit:
        console.print(f"On {counted(len(review.unfit), 'image')} no two models agree (--json lists them).")
    for note in review.notes:
        console.print(f"Note: {note}", soft_wrap=True, highlight=False)
    if output is not None:
        console.print(f"Written: {output}", soft_wrap=True)
    elif review.suspects:
        browser = f", or in the browser: snellen view{store.option}" if kept is not None else ""
        console.print(f"Decide on each: add -o labels.html{browser}", style="dim")
