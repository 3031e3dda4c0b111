"""The application, the options that commands share, and how they print."""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import typer.core

from snellen._version import __version__
from snellen.errors import BadOption

if TYPE_CHECKING:
    from rich.console import Console

    from snellen.engine.ray.cluster import Engine
    from snellen.models.base import Model
    from snellen.runs.run import Run

F = TypeVar("F", bound=Callable[..., Any])
#: The order of commands in ``snellen --help``.
ORDER = (
    *("choose", "run", "check", "resume", "eye-test", "suite", "sample-size", "demo"),
    *("view", "ls", "show", "compare", "report", "labels", "rescore", "doctor"),
    *("diagnose", "tune", "build"),
    *("chat", "play", "arena", "votes"),
    *("import", "export", "push"),
)


#: Panels of a command's options, with the options in them; the others come first.
PANELS = {
    "Options of models, data and protocols": ("model_option", "data_option", "protocol_option"),
    "Which samples": (
        *("limit", "classes", "num_classes", "per_class", "shuffle", "split", "skip_invalid", "seed"),
    ),
    "Limits": ("batch_size", "max_cost", "max_concurrency", "max_failures", "dry_run", "fresh"),
    "Several machines or GPUs": ("engine", "replicas", "gpus_per_replica", "sink"),
    "Where results go": (
        *("output", "output_path", "workspace", "save_config", "data_name", "track"),
        *("log_requests", "as_json", "quiet", "verbose"),
    ),
}


class PlainCommand(typer.core.TyperCommand):
    """A command whose help has panels, and names values by what they are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        panels = {name: panel for panel, names in PANELS.items() for name in names}
        places = {panel: place for place, panel in enumerate(PANELS, 1)}
        self.params.sort(key=lambda option: places.get(panels.get(option.name or "", ""), 0))
        several = len([p for p in self.params if p.name in panels]) > FEW_OPTIONS
        for option in self.params:
            if not isinstance(option, typer.core.TyperOption):
                continue
            if option.is_flag:
                option.metavar = ""
            elif option.metavar is None:
                option.metavar = METAVARS.get(option.name or "")
            if several and option.rich_help_panel is None:
                option.rich_help_panel = panels.get(option.name or "")

    def get_help_option(self, ctx: Any) -> Any:
        """Return ``--help``, which takes no value."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.metavar = ""
        return option


#: With fewer options, a command has no panels.
FEW_OPTIONS = 6
#: What the values of common options are called.
METAVARS = {
    "model": "MODEL",
    "data": "DATA",
    "protocol": "PROTOCOL",
    "split": "SPLIT",
    "classes": "CLASSES",
    **dict.fromkeys(("limit", "num_classes", "per_class", "seed", "batch_size", "max_concurrency"), "N"),
    "data_name": "NAME",
    "replicas": "N",
    "gpus_per_replica": "X",
    "max_failures": "SHARE",
}


class Application(typer.Typer):
    """An application of such commands."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[[F], F]:
        """Register a command."""
        return super().command(*args, **{"cls": PlainCommand, **kwargs})


class OrderedGroup(typer.core.TyperGroup):
    """Commands in the order of :data:`ORDER` rather than of imports."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all command names; those without a place come last."""
        known = {name: place for place, name in enumerate(ORDER)}
        return sorted(super().list_commands(ctx), key=lambda name: known.get(name, len(known)))


app = Application(
    cls=OrderedGroup,
    name="snellen",
    help="An eye test for vision-language models: find the best one for your images, at what speed and cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode="rich",
)

#: Panels of ``snellen --help``, in the order in which people need them.
EVALUATE, INSPECT, IMPROVE = "Evaluate", "Inspect", "Diagnose and fine-tune"
PEOPLE, EXCHANGE = "People", "Data in and out"

Workspace = Annotated[
    str | None,
    typer.Option(
        "-w",
        "--workspace",
        metavar="DIR|URL",
        help="The workspace: a folder, or postgresql://USER@HOST/NAME. "
        "[dim]$SNELLEN_WORKSPACE, or ./snellen-workspace[/dim]",
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(metavar="USD", help="Stop before hosted models cost more than this in total."),
]
MaxConcurrency = Annotated[int | None, typer.Option(help="The most concurrent requests to a hosted model.")]
MaxFailures = Annotated[
    float,
    typer.Option(help="The share of samples that may fail before the exit code is 1."),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ray|ray://HOST:PORT",
        help="Run model replicas in parallel on Ray.",
    ),
]
Replicas = Annotated[
    int | None,
    typer.Option(help="With --engine: number of replicas. [dim]One per GPU, or per core without GPUs[/dim]"),
]
GpusPerReplica = Annotated[
    float | None, typer.Option(help="With --engine: GPUs per replica; may be a fraction.")
]
Track = Annotated[
    list[str] | None,
    typer.Option(metavar="wandb|mlflow|trackio", help="Log metrics to this tracker too. Repeatable."),
]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option("-M", metavar="KEY=VALUE", help="Set an option for every model. Repeatable."),
]
ProtocolOptions = Annotated[
    list[str] | None,
    typer.Option("-P", metavar="KEY=VALUE", help="Set an option for every protocol. Repeatable."),
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("-D", metavar="KEY=VALUE", help="Set an option for every data set. Repeatable."),
]
OutputPath = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="Write results as JSON to this folder too."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Hide progress.")]

Verbose = Annotated[
    bool,
    typer.Option("--verbose", help="Say what happens: retries, limits, how images are shared."),
]
LogRequests = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Log what is sent to hosted models, and their answers, as JSON lines without keys and images.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print only one JSON document.")]


def tell_more(log_requests: Path | None, *, verbose: bool) -> None:
    """Show what is logged, and log requests to a file, as a command's options say."""
    if verbose:
        logging.basicConfig(format="%(message)s", stream=sys.stderr)
        logging.getLogger("snellen").setLevel(logging.INFO)
    if log_requests is not None:
        from snellen.models.remote.transport import LOG_REQUESTS

        os.environ[LOG_REQUESTS] = str(log_requests)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"snellen {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def load(models: Sequence[Model]) -> None:
    """Load models while someone waits, and say so."""
    for model in models:
        typer.echo(f"loading {model.name} …", err=True)
        model.load()


def print_leaderboard(runs: list[Run]) -> None:
    """Print the table of runs, and how to inspect one."""
    from snellen.leaderboards.conclusion import conclusions
    from snellen.leaderboards.ranking import PairedTests, rank_runs
    from snellen.reports.leaderboard import leaderboards
    from snellen.reports.tables import escape

    console = screen()
    tests = PairedTests()
    for text in conclusions(runs, tests):
        console.print(escape(text), soft_wrap=True)
    for table in leaderboards(runs, console.width, rank_runs(runs, tests)):
        console.print(table)
    console.print(f"Details: snellen show {runs[-1].id}{runs[-1].where}", style="dim", soft_wrap=True)


#: How to retry what failed in one of many runs.
AGAIN = "rerun the same command"


def tell_errors(runs: Iterable[Run], again: str = "") -> bool:
    """Report runs in which samples ended in an error, and how to retry; return whether there are any."""
    failed = False
    for run in runs:
        if count := run.metrics.outcomes.get("error"):
            failed = True
            typer.echo(
                f"{count} of {run.metrics.n} samples of {run.id} ended in an error; the first: "
                f"{run.first_error()}\nRetry with: {again or run.resuming}",
                err=True,
            )
    return failed


@contextmanager
def interruptible() -> Iterator[None]:
    """A context in which Ctrl-C loses nothing and rerunning resumes."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. Answers so far are saved; rerun the same command to resume.", err=True)
        raise typer.Exit(130) from None


def slug(text: str) -> str:
    """Turn a name into part of a file name: letters, digits and hyphens.

    >>> slug("hf:org/Name?x=1")
    'hf-org-Name-x-1'
    """
    return "".join(c if c.isalnum() else "-" for c in text).strip("-")


def read_options(flag: str, given: list[str] | None) -> dict[str, str]:
    """Parse ``KEY=VALUE`` items.

    Raises:
        BadOption: an item has another form.
    """
    options = {}
    for item in given or []:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise BadOption(f"{flag} {item!r} is not allowed; write {flag} KEY=VALUE.")
        options[key] = value
    return options


def screen() -> Console:
    """Standard output, wide enough for tables."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:  # when piped, a table keeps its columns rather than folding them
        console.width = 160
    console.width = max(console.width, 60)
    return console


def read_engine(name: str | None, replicas: int | None, gpus: float | None) -> Engine | None:
    """Build the engine from its options; None if none are set.

    Raises:
        BadOption: options that need an engine, without one; or invalid values.
    """
    from snellen.engine.ray.cluster import Engine

    if name is not None:
        return Engine.read(name, replicas, gpus)
    if replicas is not None or gpus is not None:
        raise BadOption("--replicas and --gpus-per-replica need --engine ray.")
    return None


def print_json(document: Any) -> None:
    """Print one JSON document, in ASCII if the output has no other characters."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=not _has_unicode(sys.stdout)))


#: How to write signs that an old terminal lacks.
PLAIN = str.maketrans(
    {"–": "-", "—": "-", "…": "...", "→": "->", "×": "x", "“": '"', "”": '"', "’": "'", "⁷": "7", "±": "+-"}
)


def _has_unicode(stream: Any) -> bool:
    encoding = str(getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
    return encoding.startswith("utf")


def speak_ascii() -> None:
    """On a terminal without Unicode, replace signs instead of failing."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        text = error.object[error.start : error.end].translate(PLAIN)
        return text.encode("ascii", "replace").decode(), error.end

    codecs.register_error("snellen-plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if not _has_unicode(stream) and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="snellen-plain")
