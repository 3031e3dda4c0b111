"""The arena's data as plain values: battles, turns, answers and votes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from snellen.types import Outcome

__all__ = [
    "OUTCOMES",
    "REASONS",
    "SIDES",
    "Answer",
    "Battle",
    "CastVote",
    "Choice",
    "Turn",
    "Verdict",
    "Vote",
]

SIDES = ("left", "right")
#: The reasons a voter can give against an answer.
REASONS = ("hallucinated", "missed", "miscounted", "refused", "badly written")


class Choice(StrEnum):
    """A voter's choice between two answers."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"


#: How each choice counts in a ranking.
OUTCOMES = {Choice.LEFT: "left", Choice.RIGHT: "right", Choice.TIE: "tie", Choice.BOTH_BAD: "tie"}


@dataclass(frozen=True)
class Answer:
    """One side's answer. ``leak`` holds the words that reveal its author."""

    text: str
    outcome: Outcome = Outcome.OK
    reason: str = ""
    seconds: float = 0.0
    leak: str = ""


@dataclass(frozen=True)
class Turn:
    """A question and both answers, as far as they have arrived."""

    number: int
    question: str
    left: Answer | None = None
    right: Answer | None = None

    @property
    def answered(self) -> bool:
        """Whether both sides have answered."""
        return self.left is not None and self.right is not None


@dataclass(frozen=True)
class Vote:
    """A current vote. ``reasons`` have the form ``side:reason``."""

    choice: Choice
    reasons: tuple[str, ...] = ()
    turn: int = 0
    created: str = ""


@dataclass(frozen=True, kw_only=True)
class Battle:
    """Two anonymous models side by side.

    Attributes:
        item: the same for all battles with the same content.
        propensity: the probability of this pair when it was drawn.
        repeats: the earlier battle of the same voter that it repeats.
        content: ``sample``, ``truth``, ``right`` (whether each side is right), as far as known; ``draw``.
        vote: the current one.
        revealed: whether the names were revealed to the voter.
    """

    id: str
    voter: str
    source: str
    item: str
    left: str
    right: str
    propensity: float
    images: tuple[str, ...] = ()
    content: Mapping[str, Any] = field(default_factory=dict)
    repeats: str | None = None
    created: str = ""
    turns: tuple[Turn, ...] = ()
    vote: Vote | None = None
    revealed: bool = False

    @property
    def answered(self) -> bool:
        """Whether every question has both answers."""
        return bool(self.turns) and all(turn.answered for turn in self.turns)

    @property
    def failed(self) -> bool:
        """Whether an answer failed for good, so that there is nothing to compare."""
        sides = [side for turn in self.turns for side in (turn.left, turn.right)]
        return any(side is not None and side.outcome is Outcome.ERROR for side in sides)

    @property
    def draw(self) -> int:
        """How often its question was answered anew."""
        return int(self.content.get("draw", 0))

    @property
    def leak(self) -> str:
        """The words that reveal a model; empty if there are none."""
        sides = [side for turn in self.turns for side in (turn.left, turn.right)]
        return next((side.leak for side in sides if side is not None and side.leak), "")


class Verdict(NamedTuple):
    """A number of equal votes by one voter. ``outcome`` is left, right or tie (both bad is a tie)."""

    voter: str
    left: str
    right: str
    outcome: str
    times: int = 1


class CastVote(NamedTuple):
    """A current vote with its subject.

    Attributes:
        item: the same for everyone who saw the same content.
        choice: left, right, tie or both_bad.
        repeats: the battle that it repeats, or None.
        right: whether the left and right answers are right, if known.
    """

    battle: str
    voter: str
    item: str
    left: str
    right_: str
    choice: str
    repeats: str | None = None
    right: tuple[bool | None, bool | None] = (None, None)

    @property
    def winner(self) -> str:
        """The preferred model, or the choice if neither was preferred."""
        return {"left": self.left, "right": self.right_}.get(self.choice, self.choice)
