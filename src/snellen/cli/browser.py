"""``view``, ``arena`` and ``votes``: the web app and its results."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from snellen._util.redaction import guard
from snellen.cli.app import (
    INSPECT,
    PEOPLE,
    DataOptions,
    MaxCost,
    ModelOptions,
    Workspace,
    app,
    load,
    read_options,
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


NoToken = Annotated[
    bool,
    typer.Option(
        "--no-token",
        help="Admit everybody on this machine. By default, the address contains a random token.",
    ),
]


@contextmanager
def _door(
    host: str,
    port: int,
    token: str | None,
    names: list[str] | None,
    browse: bool,
    *,
    no_token: bool,
    **arena: Any,
) -> Iterator[Callable[..., None]]:
    """Create the server of a workspace. The address is bound, and errors reported, before models load.

    Args:
        arena: more arguments of the policy.
    """
    from snellen.web.security import Policy, is_loopback
    from snellen.web.serve import bound, serve
    from snellen.web.state import AppState

    if token and no_token:
        raise BadOption("--token and --no-token cannot be used together.")
    drawn = None
    if token:
        guard(token)
    elif not no_token and is_loopback(host):
        token = drawn = secrets.token_urlsafe(24)
    policy = Policy(host, token, tuple(names or ()), **arena)
    with bound(host, port) as sock:
        yield lambda store, arena, play=None, **more: serve(
            AppState(store, policy, arena, play=play, **more),
            sock,
            browse=browse,
            token=drawn,
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
    no_token: NoToken = False,
    allow_host: AllowHost = None,
    browse: Browse = False,
    workspace: Workspace = None,
) -> None:
    """Open the workspace in the browser: leaderboard, runs, samples, comparisons, votes."""
    from snellen.storage.store import Store

    _need()
    store = Store(workspace, create=False)
    with _door(host, port, token, allow_host, browse, no_token=no_token) as serve:
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
    no_token: NoToken = False,
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
    with _door(host, port, token, allow_host, browse, no_token=no_token) as serve:
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
        bool,
        typer.Option(
            "--disagreements-first",
            help="With --runs: start where exactly one is right, then where answers differ.",
        ),
    ] = False,
    settle_identical: Annotated[
        bool, typer.Option("--settle-identical", help="With --runs: equal answers are ties, unasked.")
    ] = False,
    invite: Annotated[
        int | None, typer.Option(metavar="N", help="Only N invited voters may vote; prints a link for each.")
    ] = None,
    voters_per_address: Annotated[
        int | None, typer.Option(help="The most new voters from one address within a day. [dim]30[/dim]")
    ] = None,
    keep_addresses: Annotated[
        int | None,
        typer.Option(metavar="DAYS", help="How long hashes of voters' addresses are kept. [dim]90[/dim]"),
    ] = None,
    voter_token: Annotated[
        str | None,
        typer.Option(
            envvar="SNELLEN_VOTER_TOKEN", help="What admits voters to the arena. [dim]A random one[/dim]"
        ),
    ] = None,
    with_results: Annotated[
        bool,
        typer.Option(
            "--with-results",
            help="Show runs and the leaderboard, too, to whoever has the host's token (not to voters).",
        ),
    ] = False,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Show answers while they are written, both at one pace."),
    ] = False,
    model_option: ModelOptions = None,
    data_option: DataOptions = None,
    max_tokens: Annotated[int, typer.Option(help="The most tokens per answer.")] = 512,
    max_cost: MaxCost = None,
    host: Host = "127.0.0.1",
    port: Port = 8421,
    token: TokenOption = None,
    no_token: NoToken = False,
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
    if stream and runs:
        raise BadOption("--stream is for models that answer now (--model), not for stored answers (--runs).")
    if (disagreements_first or settle_identical) and not runs:
        raise BadOption("--disagreements-first and --settle-identical need --runs.")
    if voter_token is not None and (no_token or invite):
        raise BadOption("--voter-token cannot be used with --no-token or --invite.")
    if voter_token is not None and len(voter_token) < 16:
        raise BadOption("--voter-token: too short to be secret; allowed: 16 characters or more.")
    if with_results and no_token:
        raise BadOption("--with-results needs the host's token, so --no-token cannot be used with it.")
    for name, number in (("invite", invite), ("voters-per-address", voters_per_address)):
        if number is not None and number < 1:
            raise BadOption(f"--{name} {number} is not allowed; allowed: 1 or more.")
    if keep_addresses is not None and keep_addresses < 0:
        raise BadOption(f"--keep-addresses {keep_addresses} is not allowed; allowed: 0 or more days.")
    if voter_token:
        guard(voter_token)
    store = Store(workspace, create=not runs)
    vote_store = VoteStore(store)
    limits: dict[str, int] = {}
    if voters_per_address is not None:
        limits["newcomers"] = voters_per_address
    if keep_addresses is not None:
        limits["keep_addresses"] = keep_addresses
    access = {
        "results": with_results,
        "invites": tuple(vote_store.voters.invitation(k) for k in range(invite or 0)),
        "voter_token": None if no_token or invite else voter_token or secrets.token_urlsafe(16),
    }
    with _door(host, port, token, allow_host, browse, no_token=no_token, **access) as serve:
        if runs:
            from snellen.arena.recorded import Recorded
            from snellen.runs.run import Run

            finished = [Run(store, id) for id in dict.fromkeys(store.find(name) for name in wanted)]
            recorded = Recorded(
                vote_store,
                finished,
                disagreements_first=disagreements_first,
                settle_identical=settle_identical,
            )
            serve(store, recorded, **limits)
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
            stream=stream,
        )
        load(models)
        serve(store, live, **limits)
