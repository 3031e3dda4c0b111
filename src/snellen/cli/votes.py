"""``votes``: rankings by votes, voters, and votes as files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from snellen._util.words import counted
from snellen.cli.app import PEOPLE, Application, AsJson, Workspace, app, print_json, screen
from snellen.errors import BadOption

Who = Annotated[str, typer.Argument(help="The beginning of a voter's id, or of an address's (@…).")]
Reason = Annotated[str, typer.Option(help="Why; kept with the decision.")]
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
    category: Annotated[
        str, typer.Option(help="Count votes on one kind of question, such as reading or counting.")
    ] = "",
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Rank models by votes, with confidence intervals and checks of the votes' quality."""
    from snellen.arena.results import ArenaResults
    from snellen.leaderboards.board import Board
    from snellen.reports.votes import categories_table, lines_of, ranking_table
    from snellen.storage.store import Store
    from snellen.storage.votes import VoteStore

    store = Store(workspace, create=False)
    results = ArenaResults.of(
        VoteStore(store), style=style, leaked=leaks, category=category, entries=Board(store).entries()
    )
    if as_json:
        print_json(results.as_dict())
        return
    console = screen()
    if results.ranking is None and results.questions:
        known = ", ".join(f"{name} ({votes})" for name, votes in results.questions.items())
        console.print(f"No votes on such questions. There are votes on: {known}.", soft_wrap=True)
        return
    if results.ranking is None:
        console.print("No votes yet. Start an arena: snellen arena --model A --model B")
        return
    console.print(ranking_table(results.ranking))
    if results.by_category:
        console.print(categories_table(results))
    for line in lines_of(results):
        console.print(line, soft_wrap=True)


@votes.command("voters")
def voters(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """List voters and the addresses that they vote from, with what is odd about their votes."""
    from snellen.arena.voters import summarize_addresses, summarize_voters
    from snellen.reports.votes import addresses_table, voters_table
    from snellen.storage.store import Store
    from snellen.storage.votes import VoteStore

    vote_store = VoteStore(Store(workspace, create=False))
    cast, excluded = vote_store.voters.cast(), vote_store.voters.excluded()
    people, places = summarize_voters(cast, excluded), summarize_addresses(cast, excluded)
    if as_json:
        print_json({"voters": [asdict(one) for one in people], "addresses": [asdict(one) for one in places]})
        return
    console = screen()
    if not people:
        console.print("No votes yet. Start an arena: snellen arena --model A --model B")
        return
    console.print(voters_table(people))
    if places:
        console.print(addresses_table(places))
    console.print("Leave one out of the ranking: snellen votes exclude ID", soft_wrap=True)


@votes.command("exclude")
def exclude(
    who: Who,
    reason: Reason = "",
    workspace: Workspace = None,
) -> None:
    """Leave a voter, or an address, out of the ranking. Their votes stay stored."""
    _decide(who, workspace, excluded=True, reason=reason)


@votes.command("include")
def include(
    who: Who,
    reason: Reason = "",
    workspace: Workspace = None,
) -> None:
    """Count the votes of an excluded voter, or address, again."""
    _decide(who, workspace, excluded=False, reason=reason)


def _decide(name: str, workspace: str | None, *, excluded: bool, reason: str) -> None:
    """Record a decision about whose votes count, and show how the ranking changes."""
    from snellen.arena.rating import rank
    from snellen.arena.vote_counts import VoteCounts
    from snellen.reports.votes import changes_of
    from snellen.storage.store import Store
    from snellen.storage.votes import VoteStore

    vote_store = VoteStore(Store(workspace, create=False))
    who = vote_store.voters.find(name)
    what = "an address" if who.startswith("@") else "a voter"
    if (who in vote_store.voters.excluded()) is excluded:
        raise BadOption(f"{who} is {'already excluded' if excluded else 'not excluded'}.")
    before = rank(VoteCounts.of(vote_store.verdicts()))
    vote_store.voters.decide(who, excluded=excluded, reason=reason)
    after = rank(VoteCounts.of(vote_store.verdicts()))
    console = screen()
    console.print(f"{who}, {what}, {'no longer counts' if excluded else 'counts again'}.", soft_wrap=True)
    for line in changes_of(before, after):
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
    left = f"; {counted(known - len(lines), 'other')} skipped" if known > len(lines) else ""
    where = f"written to {output}" if output is not None else "written"
    typer.echo(f"{counted(len(lines), 'vote')} {where}{left}", err=True)


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
    others = f", {counted(imported.others, 'line')} without a countable vote" if imported.others else ""
    typer.echo(
        f"{counted(imported.votes, 'new vote')} of {counted(imported.lines, 'line')}{others}", err=True
    )
