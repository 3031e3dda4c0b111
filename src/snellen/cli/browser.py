"""``view``, ``arena`` and ``votes``: the web app and its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from snellen._util.redaction import guard
from snellen.cli.app import (
    INSPECT,
    PEOPLE,
    Application,
    AsJson,
    DataOptions,
    MaxCost,
    ModelOptions,
    Workspace,
    app,
    load,
    print_json,
    read_options,
    screen,
)
from snellen.cli.completion import complete_data, complete_model
from snellen.errors import BadOption, require

Host = Annotated[
    str, typer.Option(help="The address to bind. One that other machines can reach requires a token.")
]
Port = Annotated[int, typer.Option(help="The port; 0 for any free one.")]
TokenOption = Annotated[
    str | None,
    typer.Option(envvar="SNELLEN_TOKEN", help="The access token. Prefer $SNELLEN_TOKEN."),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Another hostname of this server, such as a proxy's. Repeatable."),
]
Browse = Annotated[bool, typer.Option("--open/--no-open", help="Open a browser.")]


@contextmanager
def _door(
    host: str, port: int, token: str | None, names: list[str] | None, browse: bool
) -> Iterator[Callable[..., None]]:
    """Create the server of a workspace. The address is bound, and errors reported, before models load."""
    from snellen.web.security import Policy
    from snellen.web.serve import bound, serve
    from snellen.web.state import AppState

    if token:
        guard(token)
    policy = Policy(host, token, tuple(names or ()))
    with bound(host, port) as sock:
        yield lambda store, arena, play=None: serve(
            AppState(store, policy, arena, play=play),
            sock,
            browse=browse,
            say=lambda text: typer.echo(text, err=True),
        )


def _need() -> None:
    """Check optional dependencies before models load."""
    for module in ("fastapi", "uvicorn", "python_multipart", "jinja2", "nh3", "markdown_it", "evalica"):
        require(module, "web", "The web app")


@app.command("view", rich_help_panel=INSPECT)
def view(
    host: Host = "127.0.0.1",
    port: Port = 8421,
    token: TokenOption = None,
    allow_host: AllowHost = None,
    browse: Browse = False,
    workspace: Workspace = None,
) -> None:
    """Open the workspace in the browser: leaderboard, runs, samples, comparisons, votes."""
    from snellen.storage.store import Store

    _need()
    store = Store(workspace, create=False)
    with _door(host, port, token, allow_host, browse) as serve:
        serve(store, None)


@app.command("play", rich_help_panel=PEOPLE)
def play_(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="One or more models to chat with.")],
    model_option: ModelOptions = None,
    max_tokens: Annotated[int, typer.Option(help="The most tokens per answer.")] = 512,
    max_cost: MaxCost = None,
    host: Host = "127.0.0.1",
    port: Port = 8421,
    token: TokenOption = None,
    allow_host: AllowHost = None,
    browse: Browse = False,
    workspace: Workspace = None,
) -> None:
    """Chat about an image in the browser with one model, or with several side by side."""
    from snellen.chat.conversation import Playground
    from snellen.runs.matching import live_models
    from snellen.storage.store import Store
    from snellen.web.images import Uploads

    _need()
    store = Store(workspace)
    with _door(host, port, token, allow_host, browse) as serve:
        loaded = live_models(models, read_options("-M", model_option), max_cost)
        playground = Playground(loaded, image_path=Uploads(store.folder).path, max_tokens=max_tokens)
        load(loaded)
        serve(store, None, playground)


@app.command("arena", rich_help_panel=PEOPLE)
def arena_(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="With --runs: more runs.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m", "--model", autocompletion=complete_model, help="A model that generates text. Two or more."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "-d", "--data", autocompletion=complete_data, help="A data set to draw random images from."
        ),
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="Compare the stored answers of finished runs: --runs RUN RUN …"),
    ] = None,
    disagreements_first: Annotated[
        bool, typer.Option("--disagreements-first", help="With --runs: start where exactly one is right.")
    ] = False,
    model_option: ModelOptions = None,
    data_option: DataOptions = None,
    max_tokens: Annotated[int, typer.Option(help="The most tokens per answer.")] = 512,
    max_cost: MaxCost = None,
    host: Host = "127.0.0.1",
    port: Port = 8421,
    token: TokenOption = None,
    allow_host: AllowHost = None,
    browse: Browse = False,
    workspace: Workspace = None,
) -> None:
    """Vote blind in the browser between two anonymous models, live or from finished runs."""
    # Long for its options alone.
    from snellen.storage.store import Store
    from snellen.storage.votes import VoteStore

    _need()
    wanted = [*(runs or []), *(more or [])]
    if bool(model) == bool(runs) or (more and not runs):
        raise BadOption("An arena needs either models (--model A --model B) or runs (--runs RUN RUN).")
    if runs and (data or model_option or data_option or max_cost is not None):
        raise BadOption(
            "--runs shows stored answers, so --data, -M, -D and --max-cost cannot be used with it."
        )
    if disagreements_first and not runs:
        raise BadOption("--disagreements-first needs --runs.")
    store = Store(workspace, create=not runs)
    vote_store = VoteStore(store)
    with _door(host, port, token, allow_host, browse) as serve:
        if runs:
            from snellen.arena.recorded import Recorded
            from snellen.runs.run import Run

            finished = [Run(store, id) for id in dict.fromkeys(store.find(name) for name in wanted)]
            serve(store, Recorded(vote_store, finished, disagreements_first=disagreements_first))
            return
        from snellen.arena.live import Live
        from snellen.runs.matching import live_models, load_all
        from snellen.web.images import Uploads

        models = live_models(model or [], read_options("-M", model_option), max_cost)
        live = Live(
            vote_store,
            models,
            image_path=Uploads(store.folder).path,
            data=load_all(data, read_options("-D", data_option)) if data else None,
            max_tokens=max_tokens,
        )
        load(models)
        serve(store, live)


votes = Application(name="votes", help="Rank models by votes; export and import votes.", no_args_is_help=True)
app.add_typer(votes, rich_help_panel=PEOPLE)


@votes.command("ranking")
def ranking(
    style: Annotated[
        bool, typer.Option("--style", help="Control for length, lists, bold text and hedging.")
    ] = False,
    leaks: Annotated[
        bool, typer.Option("--leaks", help="Count battles in which a model revealed itself.")
    ] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Rank models by votes, with confidence intervals and checks of the votes' quality."""
    from snellen.arena.results import ArenaResults
    from snellen.leaderboards.board import Board
    from snellen.reports.votes import lines_of, ranking_table
    from snellen.storage.store import Store
    from snellen.storage.votes import VoteStore

    store = Store(workspace, create=False)
    results = ArenaResults.of(VoteStore(store), style=style, leaked=leaks, entries=Board(store).entries())
    if as_json:
        print_json(results.as_dict())
        return
    console = screen()
    if results.ranking is None:
        console.print("No votes yet. Start an arena: snellen arena --model A --model B")
        return
    console.print(ranking_table(results.ranking))
    for line in lines_of(results):
        console.print(line, soft_wrap=True)


@votes.command("export")
def export(
    format: Annotated[
        Literal["preferences", "fastchat", "dpo"],
        typer.Option(
            help="preferences: public human-preference data; fastchat: vote logs; dpo: pairs for TRL."
        ),
    ] = "preferences",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to this file. [dim]Standard output[/dim]"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write images to this folder, and their paths instead of hashes."),
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Export votes as JSON lines in a public layout."""
    import json

    from snellen.arena.exchange import export as rows
    from snellen.exchange.export import write_text
    from snellen.storage.store import Store
    from snellen.storage.votes import VoteStore
    from snellen.web.images import BattleImages

    store = Store(workspace, create=False)
    vote_store = VoteStore(store)
    album = BattleImages(store, images) if images is not None else None
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(vote_store, format, album)]
    text = "".join(f"{line}\n" for line in lines)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
    known = vote_store.counts()["votes"]
    left = f"; {known - len(lines)} others skipped" if known > len(lines) else ""
    where = f"written to {output}" if output is not None else "written"
    typer.echo(f"{len(lines)} votes {where}{left}", err=True)


@votes.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON lines.")],
    format: Annotated[
        Literal["preferences", "fastchat"], typer.Option(help="The file's layout.")
    ] = "preferences",
    workspace: Workspace = None,
) -> None:
    """Import votes from a file. Votes imported before are not duplicated."""
    from snellen.arena.exchange import read
    from snellen.storage.store import Store
    from snellen.storage.votes import VoteStore

    imported = read(VoteStore(Store(workspace)), file, format)
    others = f", {imported.others} lines without a countable vote" if imported.others else ""
    typer.echo(f"{imported.votes} new votes of {imported.lines} lines{others}", err=True)
