"""What the arena stores: battles, turns, answers and votes, as plain values."""

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
#: What a voter may say was wrong with an answer.
REASONS = ("hallucinated", "missed", "miscounted", "refused", "badly written")


class Choice(StrEnum):
    """What a voter says of two answers."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"


#: How each counts in a ranking.
OUTCOMES = {Choice.LEFT: "left", Choice.RIGHT: "right", Choice.TIE: "tie", Choice.BOTH_BAD: "tie"}


@dataclass(frozen=True)
class Answer:
    """What one side said. ``leak`` holds the words that give away who it is."""

    text: str
    outcome: Outcome = Outcome.OK
    reason: str = ""
    seconds: float = 0.0
    leak: str = ""


@dataclass(frozen=True)
class Turn:
    """A question and both answers, as far as they came."""

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
    """A vote as it stands. ``reasons`` are of the form ``side:reason``."""

    choice: Choice
    reasons: tuple[str, ...] = ()
    turn: int = 0
    created: str = ""


@dataclass(frozen=True, kw_only=True)
class Battle:
    """Two anonymous models side by side.

    Attributes:
        item: the same for all battles that show the same.
        propensity: how likely this pair was when it was drawn.
        repeats: the earlier battle of the same voter that it shows again.
        content: ``sample``, ``truth``, ``right`` (whether each side is right), as far as known.
        vote: as it stands.
        revealed: whether the voter was shown the names.
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
        """Whether every question has both its answers."""
        return bool(self.turns) and all(turn.answered for turn in self.turns)

    @property
    def failed(self) -> bool:
        """Whether an answer is missing for good, so that there is nothing to compare."""
        sides = [side for turn in self.turns for side in (turn.left, turn.right)]
        return any(side is not None and side.outcome is Outcome.ERROR for side in sides)

    @property
    def leak(self) -> str:
        """The words that gave a model away; empty where none did."""
        sides = [side for turn in self.turns for side in (turn.left, turn.right)]
        return next((side.leak for side in sides if side is not None and side.leak), "")


class Verdict(NamedTuple):
    """So many equal votes of one voter. ``outcome`` is left, right or tie (both bad is a tie)."""

    voter: str
    left: str
    right: str
    outcome: str
    times: int = 1


class CastVote(NamedTuple):
    """A vote as it stands, with what it was about.

    Attributes:
        item: what it was about: the same for all who were shown the same.
        choice: left, right, tie or both_bad.
        repeats: the battle that it was shown again, or None.
        right: whether left and right answers were right, where that is known.
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
        """The model that was preferred, or what the vote was instead."""
        return {"left": self.left, "right": self.right_}.get(self.choice, self.choice)
