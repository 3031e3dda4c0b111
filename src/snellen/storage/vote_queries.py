"""Queries on battles and votes, and their rows as objects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from snellen._util.redaction import storable
from snellen.storage.schema import arena_answers, battles, reveals, votes
from snellen.storage.store import timestamp
from snellen.storage.vote_rows import (
    Answer,
    Battle,
    Choice,
    Turn,
    Vote,
)
from snellen.types import Outcome

__all__ = [
    "DEALT",
    "SETTLED",
    "UNDO",
    "answer_of",
    "answer_row",
    "battle_of",
    "battle_row",
    "has_leak",
    "is_revealed",
    "is_settled",
    "last_vote",
    "lock_battle",
    "settled_before",
    "standing_votes",
    "turn_row",
]

UNDO = "undo"
#: Where battles come from that were dealt here.
DEALT = ("live", "runs")
#: Seconds after which a vote counts although its voter was not shown the names. Before that, a ranking that
#: changed would tell them.
SETTLED = 600.0


def standing_votes(*columns: Any) -> sa.Select[Any]:
    """Votes that nothing supersedes, with their battles."""
    later = votes.alias()
    superseded = sa.exists().where(
        later.c.battle == votes.c.battle,
        later.c.voter == votes.c.voter,
        later.c.supersedes == votes.c.number,
    )
    return (
        sa.select(*columns)
        .select_from(votes.join(battles, battles.c.id == votes.c.battle))
        .where(votes.c.choice != UNDO, ~superseded)
    )


def is_settled() -> sa.ColumnElement[bool]:
    """Whether a vote's names are known to its voter, or were never hidden, or it is old enough."""
    shown = sa.exists().where(reveals.c.battle == votes.c.battle, reveals.c.voter == votes.c.voter)
    return sa.or_(shown, battles.c.source.not_in(DEALT), votes.c.created < settled_before())


def settled_before() -> str:
    """The time before which a vote is old enough."""
    return (datetime.now(UTC) - timedelta(seconds=SETTLED)).isoformat(timespec="microseconds")


def has_leak() -> sa.Exists:
    """Whether an answer of a vote's battle tells which model wrote it."""
    return sa.exists().where(arena_answers.c.battle == votes.c.battle, arena_answers.c.leak != "")


def battle_of(
    row: Mapping[Any, Any], asked: list[Turn], last: Mapping[Any, Any] | None, shown: bool
) -> Battle:
    """A battle from its row, its turns, the last link of its votes, and whether the names were shown."""
    vote = None
    if last is not None and last["choice"] != UNDO:
        vote = Vote(Choice(last["choice"]), tuple(last["reasons"]), last["turn"], last["created"])
    names = ("id", "voter", "source", "item", "left", "right", "propensity", "content", "repeats", "created")
    known = {name: row[name] for name in names}
    return Battle(**known, images=tuple(row["images"]), turns=tuple(asked), vote=vote, revealed=shown)


def answer_of(row: Mapping[Any, Any]) -> Answer:
    """An answer from its row."""
    return Answer(row["text"], Outcome(row["outcome"]), row["reason"], row["seconds"], row["leak"])


def lock_battle(connection: sa.Connection, battle: Battle) -> None:
    """Let one transaction at a time decide about a battle (SQLite has one writer anyway)."""
    connection.execute(sa.select(battles.c.id).where(battles.c.id == battle.id).with_for_update())


def is_revealed(connection: sa.Connection, battle: Battle) -> bool:
    """Whether the names of a battle were shown to its voter."""
    of = (reveals.c.battle == battle.id, reveals.c.voter == battle.voter)
    return connection.execute(sa.select(reveals.c.battle).where(*of)).first() is not None


def last_vote(connection: sa.Connection, battle: str, voter: str) -> Mapping[Any, Any] | None:
    """The last link of the votes that somebody gave on a battle; None without one."""
    query = sa.select(votes).where(votes.c.battle == battle, votes.c.voter == voter)
    return connection.execute(query.order_by(votes.c.number.desc()).limit(1)).mappings().one_or_none()


def battle_row(battle: Battle) -> dict[str, Any]:
    """A battle as its row."""
    names = ("id", "voter", "source", "item", "left", "right", "propensity", "repeats", "created")
    row = {name: getattr(battle, name) for name in names}
    return {**row, "images": list(battle.images), "content": dict(battle.content)}


def turn_row(battle: Battle, turn: Turn) -> dict[str, Any]:
    """A turn as its row."""
    return {
        "battle": battle.id,
        "number": turn.number,
        "question": storable(turn.question),
        "created": timestamp(),
    }


def answer_row(battle: str, turn: int, side: str, answer: Answer) -> dict[str, Any]:
    """An answer as its row."""
    names = ("text", "reason", "seconds", "leak")
    said = {name: getattr(answer, name) for name in names}
    said |= {name: storable(said[name]) for name in ("text", "reason", "leak")}
    known = {"battle": battle, "turn": turn, "side": side, "outcome": str(answer.outcome)}
    return {**known, **said, "created": timestamp()}
