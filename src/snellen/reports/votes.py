"""Rankings by votes on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from snellen.arena.rating import Ranking
from snellen.arena.results import ArenaResults
from snellen.metrics.format import number, percent
from snellen.reports.tables import escape

__all__ = ["lines_of", "ranking_table"]


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
        place = str(standing.rank) if standing.rank == standing.worst else f"{standing.rank}–{standing.worst}"
        place += f" [dim]{chr(ord('A') + standing.group % 26)}[/dim]" if ranking.groups > 1 else ""
        rating = f"{standing.rating:.0f} [dim]{standing.low:.0f}–{standing.high:.0f}[/dim]"
        record = f"{standing.wins} / {standing.losses} / {standing.ties}"
        table.add_row(
            place, escape(standing.model), rating, percent(standing.win_rate), record, number(standing.needed)
        )
    over = "voters" if ranking.clustered else "votes, so they hold for these voters only"
    table.caption = (
        f"{ranking.votes} votes by {ranking.voters} voters. Bradley–Terry with ties: 400 points are odds of "
        f"ten to one. Intervals resample {over}. Both bad counts as a tie."
    )
    table.caption_justify = "left"
    return table


def lines_of(results: ArenaResults) -> Iterator[str]:
    """Yield notes on how far to trust the votes."""
    ranking, quality, counts = results.ranking, results.quality, results.counts
    if ranking is not None and ranking.groups > 1:
        yield (
            f"[yellow]{ranking.groups} groups (A, B …) never met[/]: ratings and ranks hold only within a "
            "group."
        )
    if counts["open"]:
        yield f"{counts['open']} votes do not count yet: the models' names are not revealed yet (10 minutes)."
    if ranking is not None and ranking.flips:
        votes = "1 vote" if ranking.flips == 1 else f"{ranking.flips} votes"
        more = "Fewer would not do." if ranking.flips_exact else "Fewer might do."
        yield f"If {votes} had gone the other way, {escape(ranking.challenger)} would be first. {more}"
    for name, value, low, high in ranking.style if ranking is not None else ():
        yield f"Style: {name} {value:+.2f} ({low:+.2f} to {high:+.2f}) in log-odds of winning."
    what = "counted" if results.leaked else "left out"
    yield (
        f"{counts['votes']} votes: {counts['repeats']} repeat another, in {counts['leaks']} a model "
        f"revealed itself ({what}), {counts['both_bad']} are for both bad."
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
