"""Battles between finished runs: their answers are stored, so no model is needed while people vote."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from snellen.arena.leaks import leak
from snellen.arena.pairing import draw
from snellen.errors import UsageError
from snellen.storage.vote_rows import SIDES, Answer, Battle, Choice, Turn
from snellen.storage.votes import VoteStore
from snellen.types import Outcome

if TYPE_CHECKING:
    from snellen.runs.run import Run

__all__ = ["OVERLAP", "REPEAT", "Recorded", "names_of"]

#: How often a voter sees one of their own battles again, sides swapped, and how often one that another voter
#: saw: the data for self-consistency and agreement.
REPEAT, OVERLAP = 0.05, 0.25


@dataclass(frozen=True)
class _Told:
    """One run's answer to a sample."""

    label: str | None
    said: str
    outcome: str
    images: tuple[str, ...]
    right: bool | None


def names_of(runs: Sequence[Run]) -> dict[str, str]:
    """Return the display names of runs as players, by id: model and protocol, so that a name does not depend
    on the other runs; with the end of the id if that is ambiguous.
    """
    names = {run.id: f"{run.model} {run.protocol}" for run in runs}
    twice = {name for name, times in Counter(names.values()).items() if times > 1}
    return {id: f"{name} {id[-6:]}" if name in twice else name for id, name in names.items()}


class Recorded:
    """An arena over runs.

    Args:
        vote_store: where battles are stored.
        runs: two or more finished runs that share samples.
        disagreements_first: start with samples that exactly one of the two got right, then those with
            different answers.
        settle_identical: count equal answers as ties without asking.
        repeat, overlap: see :data:`REPEAT` and :data:`OVERLAP`.

    Raises:
        UsageError: fewer than two runs, an unfinished one, or two that share no samples.
    """

    source = "runs"

    def __init__(
        self,
        vote_store: VoteStore,
        runs: Sequence[Run],
        *,
        disagreements_first: bool = False,
        settle_identical: bool = False,
        repeat: float = REPEAT,
        overlap: float = OVERLAP,
        rng: Random | None = None,
    ) -> None:
        if len({run.id for run in runs}) < 2:
            raise UsageError("An arena needs at least two runs; see: snellen ls runs")
        for run in runs:
            if run.status != "finished":
                raise UsageError(f"{run.id} is not finished ({run.status}); first: {run.resuming}")
        self.vote_store, self.repeat, self.overlap = vote_store, repeat, overlap
        self.first, self.settle = disagreements_first, settle_identical
        self.rng = rng or Random()
        self._runs = {name: run for run in runs for name in [names_of(runs)[run.id]]}
        self.players = tuple(sorted(self._runs))
        self._told = {name: _table(run) for name, run in self._runs.items()}
        #: The samples that each pair can show, by item id.
        self._shared: dict[frozenset[str], dict[str, str]] = {}
        for i, a in enumerate(self.players):
            for b in self.players[i + 1 :]:
                pair = frozenset((a, b))
                if shared := self._samples(a, b):
                    self._shared[pair] = {self._item(pair, sample): sample for sample in shared}
        if not self._shared:
            raise UsageError(
                "These runs share no samples on which both have answered, so there is nothing to compare."
            )

    def _samples(self, a: str, b: str) -> list[str]:
        """Return the samples on which two runs can be compared."""
        first, theirs = self._told[a], self._told[b]
        return [id for id, row in first.items() if id in theirs and theirs[id].images == row.images]

    def deal(self, voter: str) -> Battle | None:
        """Return a battle for a voter, including answers: the one they left without a vote, or a new one;
        None if they have seen everything.
        """
        for id in self.vote_store.unvoted(voter, self.source)[:1]:
            waiting = self.vote_store.battle(id)
            if {waiting.left, waiting.right} <= set(self.players):
                return waiting
        if self.rng.random() < self.repeat and (again := self.vote_store.again(voter, self.rng)) is not None:
            return again
        while (battle := self._new(voter)) is not None:
            answers = [getattr(battle.turns[0], side) for side in SIDES]
            if not (self.settle and answers[0].text == answers[1].text):
                break
            self.vote_store.vote(battle.id, voter, Choice.TIE)
            self.vote_store.reveal(battle.id, voter)
        return battle

    def _new(self, voter: str) -> Battle | None:
        """Draw and store a battle that a voter has not seen; None if they have seen all."""
        seen, dealt = self.vote_store.seen(voter), self.vote_store.dealt(self.source)
        left_over = {
            pair: [item for item in shared if item not in seen] for pair, shared in self._shared.items()
        }
        for differ in (self._one_right, self._unlike) if self.first else ():
            apart = {
                pair: [item for item in items if differ(pair, self._shared[pair][item])]
                for pair, items in left_over.items()
            }
            if any(apart.values()):
                left_over = apart
                break
        done = {frozenset((a, b)) for a in self.players for b in self.players if a < b}
        done -= {pair for pair, items in left_over.items() if items}
        drawn = draw(self.players, self.vote_store.met(), self.rng, done)
        if drawn is None:
            return None
        items = left_over[frozenset((drawn.left, drawn.right))]
        others = [item for item in items if item in dealt]
        if others and self.rng.random() < self.overlap:
            items = others
        battle = self._battle(voter, drawn.left, drawn.right, drawn.propensity, self.rng.choice(items))
        return self.vote_store.keep(battle)

    def _one_right(self, pair: frozenset[str], sample: str) -> bool:
        """Return whether exactly one of two runs is right about a sample."""
        a, b = (self._told[name][sample].right for name in pair)
        return a != b

    def _unlike(self, pair: frozenset[str], sample: str) -> bool:
        """Return whether two runs answered a sample differently."""
        a, b = (self._told[name][sample].said for name in pair)
        return a != b

    def _item(self, pair: frozenset[str], sample: str) -> str:
        runs = sorted(self._runs[name].id for name in pair)
        return hashlib.sha256("\0".join([*runs, sample]).encode()).hexdigest()[:24]

    def _battle(self, voter: str, left: str, right: str, propensity: float, item: str) -> Battle:
        pair = frozenset((left, right))
        sample = self._shared[pair][item]
        answers = [self._told[name][sample] for name in (left, right)]
        content = {
            "sample": sample,
            "truth": answers[0].label,
            "right": [answer.right for answer in answers],
            "runs": [self._runs[name].id for name in (left, right)],
        }
        question = self._question(left, sample)
        turn = Turn(0, question, *(self._answer(name, sample) for name in (left, right)))
        images = answers[0].images
        return Battle(
            id="",
            voter=voter,
            source=self.source,
            item=item,
            left=left,
            right=right,
            propensity=propensity,
            images=images,
            content=content,
            turns=(turn,),
        )

    def _question(self, name: str, sample: str) -> str:
        run = self._runs[name]
        row = run.sample(sample)
        asked = row["content"].get("question")
        choices = row["content"].get("choices") or ()
        if asked:
            return "\n".join([asked, *(f"- {choice}" for choice in choices)])
        labels = run.manifest.data.labels
        if run.classifies and len(labels) <= 30:
            return f"What is in the image? One of: {', '.join(labels)}"
        return "What is in the image?" if run.classifies else "Describe the image."

    def _answer(self, name: str, sample: str) -> Answer:
        """Return a run's answer: the model's own words if it was asked once for a text, otherwise its
        decision.
        """
        row = self._told[name][sample]
        replies = self._runs[name].replies(sample)
        text = replies[0].text if len(replies) == 1 and replies[0].text else row.said
        outcome = Outcome(row.outcome)
        return Answer(text, outcome, leak=leak(text, {run.model for run in self._runs.values()}))


def _table(run: Run) -> Mapping[str, _Told]:
    """Return a run's answer to each sample that has one."""
    rows = {}
    for row in run.outcomes.to_dict("records"):
        if row["outcome"] == Outcome.ERROR:
            continue
        images = tuple(row["images"])
        rows[str(row["id"])] = _Told(
            row["label"], row["prediction"], row["outcome"], images, run.verdict(row)
        )
    return rows
