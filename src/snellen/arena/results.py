"""Everything that votes show, in one object: for pages, the terminal and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from snellen.arena.quality import Agreement, Quality, agreement, assess, preferred_wrong
from snellen.arena.rating import Ranking, rank
from snellen.arena.style import difference, styled
from snellen.arena.vote_counts import VoteCounts
from snellen.metrics.stats import Estimate
from snellen.storage.vote_rows import OUTCOMES
from snellen.storage.votes import VoteStore

if TYPE_CHECKING:
    from snellen.leaderboards.entries import Entry

__all__ = ["ArenaResults"]


@dataclass(frozen=True, kw_only=True)
class ArenaResults:
    """The ranking, and how far to trust it.

    Attributes:
        counts: total votes; of those, repeats and leaks (neither is ranked); and votes for "both bad" (a
            tie).
        wrong: how often the wrong answer was preferred when exactly one was right, and the number of such
            votes.
        agreements: with the benchmarks on which at least three models have a score.
        styled, leaked: whether style was controlled for, and whether battles with a leak were counted.
    """

    ranking: Ranking | None
    quality: Quality
    counts: Mapping[str, int]
    wrong: tuple[Estimate, int] | None
    agreements: tuple[tuple[str, Agreement], ...]
    styled: bool
    leaked: bool

    @classmethod
    def of(
        cls,
        vote_store: VoteStore,
        *,
        style: bool = False,
        leaked: bool = False,
        entries: Sequence[Entry] = (),
    ) -> ArenaResults:
        """Read all votes of a workspace and rank the models.

        Args:
            style: control for style.
            leaked: count battles in which a model revealed itself.
            entries: leaderboard entries, to compare with.
        """
        if style:
            style_ranking = styled(_rows(vote_store, leaked=leaked))
        else:
            style_ranking = rank(VoteCounts.of(vote_store.verdicts(leaked=leaked)))
        cast = vote_store.cast()
        return cls(
            ranking=style_ranking,
            quality=assess(cast),
            counts=vote_store.counts(),
            wrong=preferred_wrong(cast),
            agreements=tuple(_agreements(style_ranking, entries)) if style_ranking is not None else (),
            styled=style,
            leaked=leaked,
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        wrong = None
        if self.wrong is not None:
            wrong = {**self.wrong[0].as_dict(), "votes": self.wrong[1]}
        return {
            "counts": dict(self.counts),
            "ranking": None if self.ranking is None else self.ranking.as_dict(),
            "quality": self.quality.as_dict(),
            "preferred_wrong": wrong,
            "agreement": {name: asdict(value) for name, value in self.agreements},
            "style_controlled": self.styled,
            "leaks_counted": self.leaked,
        }


def _rows(vote_store: VoteStore, *, leaked: bool) -> list[tuple[str, str, str, str, Sequence[float]]]:
    """Yield each vote with the style differences between all that both sides said."""
    rows: list[tuple[str, str, str, str, Sequence[float]]] = []
    for battle in vote_store.voted():
        if battle.vote is None or battle.repeats or (battle.leak and not leaked):
            continue
        texts = [
            "\n".join(said.text for turn in battle.turns if (said := getattr(turn, side)) is not None)
            for side in ("left", "right")
        ]
        outcome = OUTCOMES[battle.vote.choice]
        rows.append((battle.voter, battle.left, battle.right, outcome, difference(*texts)))
    return rows


def _agreements(ranking: Ranking, entries: Sequence[Entry]) -> list[tuple[str, Agreement]]:
    """Compute Kendall's tau with each benchmark, those with most models first. Groups of models that never
    met are treated separately, since votes cannot compare them.
    """
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for entry in entries:
        if entry.value is None or entry.published or entry.status != "finished":
            continue
        # Players are models, or models with their protocols if that is ambiguous.
        for name, protocol in ((entry.model, entry.protocol), (f"{entry.model} {entry.protocol}", "")):
            key = (entry.data, protocol, entry.primary, entry.fingerprint)
            scores.setdefault(key, {})[name] = entry.value
    agreements = []
    for group in range(ranking.groups):
        places = [i for i, standing in enumerate(ranking.standings) if standing.group == group]
        models = [ranking.standings[i].model for i in places]
        ratings = [ranking.standings[i].rating for i in places]
        for (data, protocol, primary, _), known in scores.items():
            standing = agreement(models, ratings, ranking.replicates[:, places], known)
            if standing is not None:
                of = f"group {group + 1}" if ranking.groups > 1 else ""
                agreements.append((" · ".join(filter(None, (data, protocol, primary, of))), standing))
    return sorted(agreements, key=lambda pair: (-pair[1].models, pair[0]))
