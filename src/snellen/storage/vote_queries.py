"""Queries on battles and votes, and conversion of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from snellen._util.redaction import storable
from snellen.errors import Conflict
from snellen.storage.schema import (
    arena_answers,
    battles,
    exclusions,
    reveals,
    skips,
    vote_addresses,
    votes,
)
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
    "is_included",
    "is_revealed",
    "is_settled",
    "last_vote",
    "lock_battle",
    "refuse_skipped",
    "settled_before",
    "standing_votes",
    "turn_row",
]

UNDO = "undo"
#: The origins of battles created here.
DEALT = ("live", "runs")
#: Seconds after which a vote counts even if its names were not revealed. Before that, a change of the ranking
#: would reveal them.
SETTLED = 600.0


def standing_votes(*columns: Any) -> sa.Select[Any]:
    """Select the votes that stand (not superseded), with their battles."""
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
    """Select whether a vote counts: its voter has seen the names, or they were never hidden, or it is old
    enough.
    """
    shown = sa.exists().where(reveals.c.battle == votes.c.battle, reveals.c.voter == votes.c.voter)
    return sa.or_(shown, battles.c.source.not_in(DEALT), votes.c.created < settled_before())


def is_included() -> sa.ColumnElement[bool]:
    """Select whether neither a vote's voter nor the address that it came from is excluded."""
    later = exclusions.alias()
    superseded = sa.exists().where(later.c.who == exclusions.c.who, later.c.number > exclusions.c.number)
    out = sa.select(exclusions.c.who).where(exclusions.c.excluded, ~superseded)
    place = vote_addresses.alias()
    from_there = sa.exists().where(
        place.c.battle == votes.c.battle, place.c.voter == votes.c.voter, place.c.address.in_(out)
    )
    return sa.and_(votes.c.voter.not_in(out), ~from_there)


def settled_before() -> str:
    """Return the time before which a vote is old enough."""
    return (datetime.now(UTC) - timedelta(seconds=SETTLED)).isoformat(timespec="microseconds")


def has_leak() -> sa.Exists:
    """Select whether an answer in a vote's battle reveals its model."""
    return sa.exists().where(arena_answers.c.battle == votes.c.battle, arena_answers.c.leak != "")


def battle_of(
    row: Mapping[Any, Any], asked: list[Turn], last: Mapping[Any, Any] | None, shown: bool
) -> Battle:
    """Build a battle from its row, its turns, its last vote link, and whether its names were revealed."""
    vote = None
    if last is not None and last["choice"] != UNDO:
        vote = Vote(Choice(last["choice"]), tuple(last["reasons"]), last["turn"], last["created"])
    names = ("id", "voter", "source", "item", "left", "right", "propensity", "content", "repeats", "created")
    known = {name: row[name] for name in names}
    return Battle(**known, images=tuple(row["images"]), turns=tuple(asked), vote=vote, revealed=shown)


def answer_of(row: Mapping[Any, Any]) -> Answer:
    """Build an answer from its row."""
    return Answer(row["text"], Outcome(row["outcome"]), row["reason"], row["seconds"], row["leak"])


def lock_battle(connection: sa.Connection, battle: Battle) -> None:
    """Let one transaction at a time decide about a battle (SQLite has a single writer anyway)."""
    connection.execute(sa.select(battles.c.id).where(battles.c.id == battle.id).with_for_update())


def refuse_skipped(connection: sa.Connection, battle: Battle) -> None:
    """Refuse a battle that its voter passed over.

    Raises:
        Conflict: as stated.
    """
    if connection.execute(sa.select(skips.c.battle).where(skips.c.battle == battle.id)).first() is not None:
        raise Conflict("You passed this battle over, so it takes no vote or question. Start another: /arena")


def is_revealed(connection: sa.Connection, battle: Battle) -> bool:
    """Return whether the names of a battle were revealed to its voter."""
    of = (reveals.c.battle == battle.id, reveals.c.voter == battle.voter)
    return connection.execute(sa.select(reveals.c.battle).where(*of)).first() is not None


def last_vote(connection: sa.Connection, battle: str, voter: str) -> Mapping[Any, Any] | None:
    """Return a voter's last vote link on a battle; None if there is none."""
    query = sa.select(votes).where(votes.c.battle == battle, votes.c.voter == voter)
    return connection.execute(query.order_by(votes.c.number.desc()).limit(1)).mappings().one_or_none()


def battle_row(battle: Battle) -> dict[str, Any]:
    """Convert a battle to its row."""
    names = ("id", "voter", "source", "item", "left", "right", "propensity", "repeats", "created")
    row = {name: getattr(battle, name) for name in names}
    return {**row, "images": list(battle.images), "content": dict(battle.content)}


def turn_row(battle: Battle, turn: Turn) -> dict[str, Any]:
    """Convert a turn to its row."""
    return {
        "battle": battle.id,
        "number": turn.number,
        "question": storable(turn.question),
        "created": timestamp(),
    }


def answer_row(battle: str, turn: int, side: str, answer: Answer) -> dict[str, Any]:
    """Convert an answer to its row."""
    names = ("text", "reason", "seconds", "leak")
    said = {name: getattr(answer, name) for name in names}
    said |= {name: storable(said[name]) for name in ("text", "reason", "leak")}
    known = {"battle": battle, "turn": turn, "side": side, "outcome": str(answer.outcome)}
    return {**known, **said, "created": timestamp()}
