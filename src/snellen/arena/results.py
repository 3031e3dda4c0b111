"""Everything that votes show, in one object: for pages, the terminal and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from snellen.arena.categories import CATEGORIES, categories_of, check_category
from snellen.arena.quality import Agreement, Quality, agreement, assess, preferred_wrong
from snellen.arena.rating import Ranking, rank
from snellen.arena.style import difference, styled
from snellen.arena.vote_counts import VoteCounts
from snellen.metrics.stats import Estimate
from snellen.storage.vote_rows import OUTCOMES, Verdict
from snellen.storage.votes import VoteStore

if TYPE_CHECKING:
    from snellen.leaderboards.entries import Entry

__all__ = ["ENOUGH", "ArenaResults"]

#: The fewest votes on a kind of question for a separate ranking next to that of all.
ENOUGH = 20


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
        category: the kind of questions that the ranking is of (:mod:`snellen.arena.categories`); empty for
            all.
        questions: the number of ranked votes on each kind of question. One may be of several kinds.
        by_category: without a category, the rankings of all kinds with at least ``ENOUGH`` votes, if there
            are two or more such kinds.
    """

    ranking: Ranking | None
    quality: Quality
    counts: Mapping[str, int]
    wrong: tuple[Estimate, int] | None
    agreements: tuple[tuple[str, Agreement], ...]
    styled: bool
    leaked: bool
    category: str
    questions: Mapping[str, int]
    by_category: Mapping[str, Ranking]

    @classmethod
    def of(
        cls,
        vote_store: VoteStore,
        *,
        style: bool = False,
        leaked: bool = False,
        category: str = "",
        entries: Sequence[Entry] = (),
    ) -> ArenaResults:
        """Read all votes of a workspace and rank the models.

        Args:
            style: control for style.
            leaked: count battles in which a model revealed itself.
            category: count battles of this kind of question only.
            entries: leaderboard entries, to compare with.

        Raises:
            BadOption: there is no such category.
        """
        check_category(category)
        kinds = _by_category(vote_store.verdicts_by_question(leaked=leaked))
        if style:
            style_ranking = styled(_rows(vote_store, leaked=leaked, category=category))
        else:
            counted = kinds.get(category, []) if category else vote_store.verdicts(leaked=leaked)
            style_ranking = rank(VoteCounts.of(counted))
        questions = {name: sum(verdict.times for verdict in verdicts) for name, verdicts in kinds.items()}
        shown = [] if category or style else [name for name, votes in questions.items() if votes >= ENOUGH]
        # A single kind would be ranked twice.
        rankings = {name: rank(VoteCounts.of(kinds[name])) for name in shown if len(shown) > 1}
        cast = vote_store.cast()
        return cls(
            ranking=style_ranking,
            quality=assess(cast),
            counts=vote_store.counts(),
            wrong=preferred_wrong(cast),
            agreements=tuple(_agreements(style_ranking, entries)) if style_ranking is not None else (),
            styled=style,
            leaked=leaked,
            category=category,
            questions=questions,
            by_category={name: known for name, known in rankings.items() if known is not None},
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
            "category": self.category or None,
            "questions": dict(self.questions),
            "categories": {name: known.as_dict() for name, known in self.by_category.items()},
        }


def _by_category(verdicts: Iterable[tuple[Verdict, str]]) -> dict[str, list[Verdict]]:
    """Group votes by the kinds of their questions, in the kinds' order."""
    of: dict[str, frozenset[str]] = {}
    groups: dict[str, list[Verdict]] = {name: [] for name in CATEGORIES}
    for verdict, question in verdicts:
        if question not in of:
            of[question] = categories_of(question)
        for name in of[question]:
            groups[name].append(verdict)
    return {name: members for name, members in groups.items() if members}


def _rows(
    vote_store: VoteStore, *, leaked: bool, category: str
) -> list[tuple[str, str, str, str, Sequence[float]]]:
    """Yield each vote with the style differences between all that both sides said."""
    rows: list[tuple[str, str, str, str, Sequence[float]]] = []
    for battle in vote_store.voted():
        if battle.vote is None or battle.repeats or (battle.leak and not leaked):
            continue
        if category and category not in categories_of(battle.turns[0].question if battle.turns else ""):
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
