"""``eye-test``: what a model can see, on drawn charts or on the user's own images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snellen._util.redaction import redact
from snellen.cli.app import (
    AGAIN,
    EVALUATE,
    AsJson,
    DataOptions,
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
from snellen.cli.completion import complete_data, complete_protocol
from snellen.errors import BadOption, require

if TYPE_CHECKING:
    from snellen.eye_test.eye_test import Reading
    from snellen.runs.plan import SharedResources
    from snellen.storage.documents import Document
    from snellen.storage.store import Store


@app.command("eye-test", rich_help_panel=EVALUATE)
def eye_test(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="A model, such as pico:llava or hf:ORG/NAME; or several."),
    ],
    chart: Annotated[
        list[str] | None, typer.Option(help="A chart, such as chart:acuity. Repeatable. [dim]all[/dim]")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "-d", "--data", autocompletion=complete_data, help="Your own images, instead of drawn charts."
        ),
    ] = None,
    degradations: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="NAME,…",
            help="With --data: how to degrade the images: size, blur, jpeg, noise, contrast, rotation, crop; "
            "with levels: size:448:224. [dim]size,blur,jpeg[/dim]",
        ),
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="With --data: the loss that does not matter. [dim]2[/dim]"),
    ] = None,
    stop_early: Annotated[
        bool,
        typer.Option(
            "--stop-early",
            help="With --data: ask no more images of a level than it takes to tell whether it loses more "
            "than --within, and no level after one that may.",
        ),
    ] = False,
    protocol: Annotated[
        str | None,
        typer.Option(
            "-p",
            "--protocol",
            autocompletion=complete_protocol,
            help="With --data: the protocol. [dim]The data set's own, or closed-set[/dim]",
        ),
    ] = None,
    model_option: ModelOptions = None,
    data_option: DataOptions = None,
    max_cost: MaxCost = None,
    limit: Annotated[
        int, typer.Option(help="Pictures per chart; with --data: images, drawn at random.")
    ] = 160,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="With --data: skip unreadable images.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed for the pictures.")] = 0,
    batch_size: Annotated[int | None, typer.Option(help="Requests per batch.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the card here (.png, .svg or .pdf). [dim]In the workspace[/dim]",
        ),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run the eye test: fit a psychometric curve to each chart (size, contrast, crowding …) and draw the
    card. With --data, find out how small, blurred or compressed your own images may be.
    """
    # Long for its options alone.
    from snellen.exchange.export import writable
    from snellen.eye_test.eye_test import CHARTS, run_eye_test
    from snellen.eye_test.record import keep_card
    from snellen.models.base import MODELS
    from snellen.reports.eye_test import card_table, cards_table, draw_card
    from snellen.reports.progress import progress

    require("matplotlib", "report", "Drawing the card")  # fail now rather than after the evaluation
    if output is not None and output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise BadOption(f"-o {output}: allowed endings: .png, .svg, .pdf.")
    if output is not None:
        writable(output.parent)
    for name in models:  # all of them before any is asked
        MODELS.make(name, read_options("-M", model_option)).check()
    if data is not None:
        if chart:
            raise BadOption("--chart draws pictures, so it cannot be used with --data.")
        names = [part for part in (degradations or "size,blur,jpeg").split(",") if part]
        own = {
            "degradations": [name.partition(":")[0] for name in names],
            "levels": _levels(names),
            "within": (2.0 if within is None else within) / 100,
            "protocol": protocol,
            "limit": limit,
            "skip_invalid": skip_invalid,
            "model_options": read_options("-M", model_option),
            "data_options": read_options("-D", data_option),
            "seed": seed,
            "batch_size": batch_size,
            "max_cost": max_cost,
            "workspace": workspace,
        }
        _own_images(models, data, own, output, stop_early=stop_early, as_json=as_json, quiet=quiet)
        return
    own_only = {
        "--stop-early": stop_early or None,
        "--skip-invalid": skip_invalid or None,
        "--with": degradations,
        "--within": within,
        "-p": protocol,
        "-M": model_option,
    }
    for flag, given in {**own_only, "-D": data_option, "--max-cost": max_cost}.items():
        if given is not None:
            raise BadOption(f"{flag} is for your own images and needs --data.")
    cards: dict[str, list[Reading]] = {}
    with interruptible(), progress(quiet=quiet) as watch:
        for model in dict.fromkeys(models):
            cards[redact(model)] = run_eye_test(
                model,
                charts=chart or CHARTS,
                n=limit,
                seed=seed,
                batch_size=batch_size,
                workspace=workspace,
                watch=watch,
            )
    runs = [reading.run for readings in cards.values() for reading in readings]
    output = output or runs[0].folder / f"eye-test-{_of_models(cards)}.png"
    draw_card(cards, output)
    kept = keep_card(runs[0].store, cards)
    if as_json:
        known = [
            {"model": model, "charts": [reading.as_dict() for reading in readings]}
            for model, readings in cards.items()
        ]
        print_json(_one_or_several(known, output))
    else:
        for model, readings in cards.items():
            screen().print(card_table(model, readings))
        if len(cards) > 1:
            screen().print(cards_table(cards))
        _tell_card(output, runs[0].store, kept)
    if tell_errors(runs, AGAIN):
        raise typer.Exit(1)


def _tell_card(card: Path, store: Store, kept: Document | None) -> None:
    """Say where the card is, and where the browser shows it."""
    screen().print(f"The card: {card}", soft_wrap=True)
    if kept is not None:
        screen().print(f"In the browser: snellen view{store.option}", style="dim", soft_wrap=True)


def _of_models(names: Collection[str]) -> str:
    """Return the part of a file's name that says of which models it is."""
    return slug("-".join(names))[:80].rstrip("-")


def _one_or_several(known: Sequence[Mapping[str, Any]], card: Path) -> dict[str, Any]:
    """Return the document of one model, or of several."""
    return {**(known[0] if len(known) == 1 else {"models": known}), "card": str(card)}


def _levels(names: Sequence[str]) -> dict[str, list[float]]:
    """Read levels that are named: ``size:448:224``.

    Raises:
        BadOption: one is not allowed.
    """
    from snellen.images.degrade import read_degradation

    levels = {}
    for text in names:
        name, *given = text.split(":")
        if given:
            try:
                levels[name] = [read_degradation(f"{name}:{level}")[1] for level in given]
            except BadOption as error:
                raise BadOption(str(error).replace("degrade=", "--with ")) from error
    return levels


def _own_images(
    models: Sequence[str],
    data: str,
    options: Mapping[str, Any],
    output: Path | None,
    *,
    stop_early: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the eye test on the user's own images."""
    from snellen.datasets.base import DATASETS
    from snellen.decisions.early import EarlyStop
    from snellen.eye_test.own_images import OwnReading, run_own_images
    from snellen.eye_test.record import keep_own_card
    from snellen.reports.own_images import draw_own_card, enough_table, own_table
    from snellen.reports.progress import progress
    from snellen.runs.plan import SharedResources

    cards: dict[str, list[OwnReading]] = {}
    resources = SharedResources()
    for model in models:
        _refuse_unfit(model, data, options, resources, stop_early=stop_early)
    with interruptible(), progress(quiet=quiet) as watch:
        for model in dict.fromkeys(models):
            test = (
                EarlyStop(within=options["within"], seed=options["seed"], watch=watch) if stop_early else None
            )
            cards[redact(model)] = run_own_images(
                model, data, **options, watch=watch, resources=resources, test=test
            )
    every = [reading for readings in cards.values() for reading in readings]
    runs = list(
        {run.id: run for each in every for run in (each.plain, *(x.run for x in each.levels))}.values()
    )
    output = output or runs[0].folder / f"eye-test-{_of_models(cards)}-own.png"
    first = DATASETS.make(data, options["data_options"])
    images = first.sample(0, first.labels, first.background).images
    draw_own_card(cards, images[0] if images else None, output)
    kept = keep_own_card(runs[0].store, cards, redact(data))
    if as_json:
        known = [
            {"model": model, "data": redact(data), "readings": [reading.as_dict() for reading in readings]}
            for model, readings in cards.items()
        ]
        print_json(_one_or_several(known, output))
    else:
        for model, readings in cards.items():
            if len(cards) > 1:
                screen().print(f"\n{model}", style="bold", markup=False, highlight=False)
            for reading in readings:
                screen().print(own_table(reading))
                screen().print(reading.sentence, soft_wrap=True, highlight=False)
        if len(cards) > 1:
            screen().print(enough_table(cards))
        _tell_card(output, runs[0].store, kept)
    if tell_errors(runs, AGAIN):
        raise typer.Exit(1)


def _refuse_unfit(
    model: str, data: str, options: Mapping[str, Any], resources: SharedResources, *, stop_early: bool
) -> None:
    """Refuse what a model cannot do, before any is asked.

    Raises:
        UsageError: as for :class:`snellen.runs.plan.Plan`; or its levels cannot stop early.
    """
    from snellen.decisions.early import EarlyStop
    from snellen.eye_test.levels import plan_of

    of_levels = ("degradations", "levels", "within")
    asked = {name: value for name, value in options.items() if name not in of_levels}
    plan = plan_of(model, data, **asked, resources=resources)
    if stop_early:
        EarlyStop(within=options["within"]).check(plan)
