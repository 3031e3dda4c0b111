"""Rankings by votes on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from snellen._util.words import counted
from snellen.arena.rating import Ranking, Standing
from snellen.arena.results import ArenaResults
from snellen.arena.voters import AddressSummary, VoterSummary
from snellen.metrics.format import number, percent
from snellen.reports.tables import escape

__all__ = ["addresses_table", "categories_table", "changes_of", "lines_of", "ranking_table", "voters_table"]


def ranking_table(ranking: Ranking) -> Table:
    """List models, best first."""
    table = Table(header_style="bold", title="Ranking by votes", title_justify="left")
    for name in (
        "rank",
        "model",
        "rating (95%)",
        "won %",
        "won / lost / tied",
        "votes to separate from next",
    ):
        table.add_column(name, justify="left" if name == "model" else "right")
    for standing in ranking.standings:
        place = _place(standing)
        place += f" [dim]{chr(ord('A') + standing.group % 26)}[/dim]" if ranking.groups > 1 else ""
        rating = f"{standing.rating:.0f} [dim]{standing.low:.0f}–{standing.high:.0f}[/dim]"
        record = f"{standing.wins} / {standing.losses} / {standing.ties}"
        table.add_row(
            place, escape(standing.model), rating, percent(standing.win_rate), record, number(standing.needed)
        )
    over = "voters" if ranking.clustered else "votes, so they hold for these voters only"
    table.caption = (
        f"{counted(ranking.votes, 'vote')} by {_people(ranking.voters)}. Bradley–Terry with ties: 400 "
        "points are odds "
        f"of ten to one. Intervals resample {over}. Both bad counts as a tie."
    )
    table.caption_justify = "left"
    return table


def categories_table(results: ArenaResults) -> Table:
    """List the models' ranks by kind of question."""
    assert results.ranking is not None
    table = Table(header_style="bold", title="Ranks by kind of question", title_justify="left")
    table.add_column("model")
    kinds = results.by_category
    for name in (
        "all",
        *(f"{name}\n[dim]{counted(results.questions[name], 'vote')}[/dim]" for name in kinds),
    ):
        table.add_column(name, justify="right")
    for standing in results.ranking.standings:
        places = [
            next((_place(one) for one in known.standings if one.model == standing.model), "–")
            for known in kinds.values()
        ]
        table.add_row(escape(standing.model), _place(standing), *places)
    return table


def _people(count: int) -> str:
    return counted(count, "voter")


def _place(standing: Standing) -> str:
    low, high = standing.rank, standing.worst
    return str(low) if low == high else f"{low}–{high}"


def lines_of(results: ArenaResults) -> Iterator[str]:
    """Yield notes on how far to trust the votes."""
    ranking, quality, counts = results.ranking, results.quality, results.counts
    if ranking is not None and ranking.groups > 1:
        yield (
            f"[yellow]{ranking.groups} groups (A, B …) never met[/]: ratings and ranks hold only within a "
            "group."
        )
    if ranking is not None and ranking.flips:
        votes = counted(ranking.flips, "vote")
        more = "Fewer would not do." if ranking.flips_exact else "Fewer might do."
        yield f"If {votes} had gone the other way, {escape(ranking.challenger)} would be first. {more}"
    for name, value, low, high in ranking.style if ranking is not None else ():
        yield f"Style: {name} {value:+.2f} ({low:+.2f} to {high:+.2f}) in log-odds of winning."
    if results.category:
        yield "Of all votes, whatever the question:"
    if counts["excluded"]:
        yield f"{counted(counts['excluded'], 'more vote')} left out by the host (snellen votes voters)."
    if counts["open"]:
        yield (
            f"Not counted yet: {counted(counts['open'], 'vote')} whose models are not revealed yet "
            "(10 minutes)."
        )
    what = "counted" if results.leaked else "left out"
    yield (
        f"{counted(counts['votes'], 'vote')}; repeats of another: {counts['repeats']}, a model "
        "revealed itself: "
        f"{counts['leaks']} ({what}), both bad: {counts['both_bad']}."
    )
    if quality.consistency is not None:
        yield f"Of {quality.repeated} repeated votes, {percent(quality.consistency.value)}% were the same."
    if quality.alpha is not None:
        yield f"Krippendorff's alpha over {quality.shared} shared items: {quality.alpha:.2f}."
    if quality.left is not None:
        yield f"Left side preferred in {percent(quality.left.value)}% of {quality.decisive} decisive votes."
    if results.wrong is not None:
        yield f"Wrong answer preferred in {percent(results.wrong[0].value)}% of {results.wrong[1]} votes."
    for name, agreement in results.agreements:
        interval = f"{agreement.low:.2f} to {agreement.high:.2f}"
        yield f"Kendall's tau with {escape(name)}: {agreement.tau:.2f} ({interval})."


def voters_table(people: Sequence[VoterSummary]) -> Table:
    """List voters with what is odd about their votes."""
    table = Table(header_style="bold", title="Voters", title_justify="left")
    for name in ("voter", "votes", "left %", "chosen most", "seconds per vote", "addresses", "odd", ""):
        table.add_column(name, justify="right" if name in ("votes", "left %", "seconds per vote") else "left")
    for one in people:
        favorite = f"{escape(one.favorite)} {percent(one.favored)}%" if one.favorite else "–"
        table.add_row(
            one.voter[:12],
            str(one.votes),
            "–" if one.left is None else percent(one.left),
            favorite,
            "–" if one.seconds is None else f"{one.seconds:.1f}",
            ", ".join(one.addresses),
            f"[yellow]{escape(', '.join(one.odd))}[/]" if one.odd else "",
            "excluded" if one.excluded else "",
        )
    return table


def addresses_table(places: Sequence[AddressSummary]) -> Table:
    """List the addresses that votes came from."""
    table = Table(header_style="bold", title="Addresses (salted hashes)", title_justify="left")
    for name in ("address", "voters", "votes", "odd", ""):
        table.add_column(name, justify="right" if name in ("voters", "votes") else "left")
    for one in places:
        odd = f"[yellow]{', '.join(one.odd)}[/]" if one.odd else ""
        table.add_row(one.address, str(one.voters), str(one.votes), odd, "excluded" if one.excluded else "")
    return table


def changes_of(before: Ranking | None, after: Ranking | None) -> Iterator[str]:
    """Yield how a ranking changed, model by model."""
    if before is None or after is None:
        yield (
            "No votes count now."
            if after is None
            else f"{counted(after.votes, 'vote counts', 'votes count')} now."
        )
        return
    yield f"{counted(after.votes, 'vote counts', 'votes count')} now, {before.votes} before."
    old = {standing.model: (place, standing) for place, standing in enumerate(before.standings, 1)}
    for place, standing in enumerate(after.standings, 1):
        now = f"{place}. {escape(standing.model)} {standing.rating:.0f}"
        if (known := old.get(standing.model)) is None:
            yield f"{now} (new)"
        else:
            moved = "" if known[0] == place else f", was {known[0]}."
            yield f"{now} ({standing.rating - known[1].rating:+.0f}{moved})"
    for gone in old.keys() - {standing.model for standing in after.standings}:
        yield f"{escape(gone)} has no votes left."
