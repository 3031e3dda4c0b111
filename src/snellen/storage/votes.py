"""Battles and votes in the workspace's database. Rows are added, never changed.

Long: a single class is the arena's view of a workspace; its queries have their own module.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import sqlalchemy as sa

from snellen.errors import BadOption, Conflict, UnknownName
from snellen.storage.schema import (
    arena_answers,
    battles,
    exclusions,
    reveals,
    skips,
    turns,
    vote_addresses,
    votes,
)
from snellen.storage.store import Store, timestamp
from snellen.storage.vote_queries import (
    DEALT,
    UNDO,
    answer_of,
    answer_row,
    battle_of,
    battle_row,
    has_leak,
    is_included,
    is_revealed,
    is_settled,
    last_vote,
    lock_battle,
    refuse_skipped,
    settled_before,
    standing_votes,
    turn_row,
)
from snellen.storage.vote_rows import (
    OUTCOMES,
    REASONS,
    SIDES,
    Answer,
    Battle,
    CastVote,
    Choice,
    Turn,
    Verdict,
    Vote,
)
from snellen.storage.voters import Voters

__all__ = ["VoteStore"]


class VoteStore:
    """The arena's part of a workspace."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.voters = Voters(store)

    # ── battles ─────────────────────────────────────────────────────────────────────────────────────

    def met(self) -> dict[frozenset[str], int]:
        """Count how often each pair met here (imported battles excluded)."""
        query = (
            sa.select(battles.c.left, battles.c.right, sa.func.count())
            .where(battles.c.source.in_(DEALT))
            .group_by(battles.c.left, battles.c.right)
        )
        counts: dict[frozenset[str], int] = {}
        for left, right, count in self.store.do(lambda c: c.execute(query).all()):
            pair = frozenset((left, right))
            counts[pair] = counts.get(pair, 0) + count
        return counts

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of these battles that exist."""
        query = sa.select(battles.c.id).where(battles.c.id.in_(ids))
        return set(self.store.do(lambda c: c.execute(query).scalars().all()))

    def unvoted(self, voter: str, source: str) -> list[str]:
        """Return a voter's battles that they neither voted on nor passed over, newest first."""
        cast = battles.c.id.in_(standing_votes(votes.c.battle).where(votes.c.voter == voter))
        passed = sa.exists().where(skips.c.battle == battles.c.id)
        query = sa.select(battles.c.id).where(
            battles.c.voter == voter, battles.c.source == source, ~cast, ~passed
        )
        return list(self.store.do(lambda c: c.execute(query.order_by(battles.c.created.desc())).scalars()))

    def seen(self, voter: str) -> set[str]:
        """Return the items that a voter has seen."""
        query = sa.select(battles.c.item).where(battles.c.voter == voter)
        return set(self.store.do(lambda c: c.execute(query).scalars().all()))

    def dealt(self, source: str) -> set[str]:
        """Return all items that anyone has seen."""
        query = sa.select(battles.c.item).where(battles.c.source == source).distinct()
        return set(self.store.do(lambda c: c.execute(query).scalars().all()))

    def keep(self, battle: Battle) -> Battle:
        """Store a new battle with its turns and answers so far, and return it with its id (a new one, if
        it has none).
        """
        made = replace(
            battle, id=battle.id or secrets.token_urlsafe(12), created=battle.created or timestamp()
        )
        self.keep_all([made])
        return made

    def keep_all(self, made: Sequence[Battle]) -> None:
        """Store battles with their turns and answers, all or none. Existing ones are kept."""
        insert = self.store.database.insert
        rows = [battle_row(battle) for battle in made]
        asked = [turn_row(battle, turn) for battle in made for turn in battle.turns]
        said = [
            answer_row(battle.id, turn.number, side, answer)
            for battle in made
            for turn in battle.turns
            for side in SIDES
            if (answer := getattr(turn, side)) is not None
        ]

        def write(connection: sa.Connection) -> None:
            for table, values in ((battles, rows), (turns, asked), (arena_answers, said)):
                if values:
                    connection.execute(insert(table).on_conflict_do_nothing(), values)

        self.store.do(write)

    def battle(self, id: str, voter: str | None = None) -> Battle:
        """Return the current state of a battle.

        Args:
            voter: its required owner.

        Raises:
            UnknownName: it does not exist, or belongs to someone else.
        """
        battle = next(iter(self.battles([id])), None)
        if battle is None or (voter is not None and battle.voter != voter):
            raise UnknownName(f"You have no battle {id!r}. Start one: /arena")
        return battle

    def battles(self, ids: Sequence[str]) -> list[Battle]:
        """Return the current state of battles, in the order of these ids; missing ones are skipped."""

        def read(connection: sa.Connection) -> list[Battle]:
            def rows(table: sa.Table, key: sa.Column[Any], *order: sa.Column[Any]) -> list[Any]:
                query = sa.select(table).where(key.in_(ids)).order_by(*order)
                return list(connection.execute(query).mappings())

            known = {row["id"]: row for row in rows(battles, battles.c.id)}
            said = {
                (r["battle"], r["turn"], r["side"]): answer_of(r)
                for r in rows(arena_answers, arena_answers.c.battle)
            }
            asked: dict[str, list[Turn]] = {}
            for row in rows(turns, turns.c.battle, turns.c.battle, turns.c.number):
                sides = (said.get((row["battle"], row["number"], side)) for side in SIDES)
                asked.setdefault(row["battle"], []).append(Turn(row["number"], row["question"], *sides))
            # In the order of the chain: the last link is current.
            last = {(r["battle"], r["voter"]): r for r in rows(votes, votes.c.battle, votes.c.number)}
            revealed = {(row["battle"], row["voter"]) for row in rows(reveals, reveals.c.battle)}
            return [
                battle_of(
                    row, asked.get(id, []), last.get((id, row["voter"])), (id, row["voter"]) in revealed
                )
                for id in ids
                if (row := known.get(id)) is not None
            ]

        return self.store.do(read)

    def ask(self, battle: Battle, question: str) -> int:
        """Store the next question of a battle and return its number.

        Raises:
            Conflict: another question is unanswered, or the battle was voted on or passed over.
        """
        if battle.vote is not None or (battle.turns and not battle.answered):
            raise Conflict(
                "This battle takes no question now. Wait for the answers, or start another battle."
            )
        number = len(battle.turns)
        row = turn_row(battle, Turn(number, question))
        new = self.store.database.insert(turns).on_conflict_do_nothing().returning(turns.c.number)

        def write(connection: sa.Connection) -> bool:
            refuse_skipped(connection, battle)
            return connection.execute(new, [row]).first() is not None

        if not self.store.do(write):
            raise Conflict("Another question was asked in the meantime. Reload the page.")
        return number

    def answer(self, battle: str, turn: int, side: str, answer: Answer) -> None:
        """Store one side's answer; an existing one is kept."""
        new = self.store.database.insert(arena_answers).on_conflict_do_nothing()
        row = answer_row(battle, turn, side, answer)
        self.store.do(lambda c: c.execute(new, [row]))

    # ── votes ───────────────────────────────────────────────────────────────────────────────────────

    def skip(self, id: str, voter: str) -> bool:
        """Pass a battle over: it is not dealt again, and takes no vote. Return whether it was not before.

        Raises:
            UnknownName: this voter has no such battle.
            Conflict: it was voted on.
        """
        battle = self.battle(id, voter)
        new = self.store.database.insert(skips).on_conflict_do_nothing().returning(skips.c.battle)

        def write(connection: sa.Connection) -> bool:
            lock_battle(connection, battle)
            last = last_vote(connection, id, voter)
            if last is not None and last["choice"] != UNDO:
                raise Conflict("You already voted on this battle. Reload the page.")
            return connection.execute(new, [{"battle": id, "created": timestamp()}]).first() is not None

        return self.store.do(write)

    def vote(
        self, id: str, voter: str, choice: str, reasons: Sequence[str] = (), *, address: str = ""
    ) -> Battle:
        """Vote.

        Args:
            address: the hash of the address that the vote comes from (:meth:`Voters.address`), if known.

        Raises:
            BadOption: an invalid choice or reason.
            UnknownName: this voter has no such battle.
            Conflict: it was voted on already, passed over, or cannot be voted on yet.
        """
        if choice not in list(Choice):
            raise BadOption(f"choice={choice!r} is not allowed; allowed: {', '.join(Choice)}.")
        allowed = [f"{side}:{reason}" for side in SIDES for reason in REASONS]
        for reason in reasons:
            if reason not in allowed:
                raise BadOption(f"reason={reason!r} is not allowed; allowed: {', '.join(allowed)}.")
        battle = self.battle(id, voter)
        if not battle.answered or battle.failed:
            raise Conflict("There is nothing to vote on yet: both models must answer first.")
        self._add(battle, choice, tuple(dict.fromkeys(reasons)), address)
        return self.battle(id, voter)

    def undo(self, id: str, voter: str) -> Battle:
        """Undo a vote, as long as the names were not revealed and it does not count yet.

        Raises:
            UnknownName: this voter has no such battle.
            Conflict: there is no vote, the names were revealed, or the ranking may tell them by now.
        """
        battle = self.battle(id, voter)
        if battle.revealed:
            raise Conflict("The names were revealed, so the vote is final.")
        self._add(battle, UNDO, (), "")
        return self.battle(id, voter)

    def _add(self, battle: Battle, choice: str, reasons: tuple[str, ...], address: str) -> None:
        """Add a link to the chain of votes, which alternates between votes and undos."""
        insert = self.store.database.insert(votes).on_conflict_do_nothing().returning(votes.c.number)

        def write(connection: sa.Connection) -> bool:
            lock_battle(connection, battle)
            refuse_skipped(connection, battle)
            last = last_vote(connection, battle.id, battle.voter)
            stands = last is not None and last["choice"] != UNDO
            if stands is not (choice == UNDO):
                return False
            if last is not None and choice == UNDO and last["created"] < settled_before():
                raise Conflict("The ranking counts this vote by now, so it is final.")
            number = 0 if last is None else last["number"] + 1
            row = {
                "battle": battle.id,
                "voter": battle.voter,
                "number": number,
                "supersedes": number - 1 if number else None,
                "choice": choice,
                "reasons": list(reasons),
                "turn": battle.turns[-1].number,
                **{name: getattr(battle, name) for name in ("left", "right", "propensity")},
                "created": timestamp(),
            }
            if connection.execute(insert, [row]).first() is None:
                return False
            if address:
                known = {name: row[name] for name in ("battle", "voter", "number", "created")}
                connection.execute(sa.insert(vote_addresses), [{**known, "address": address}])
            # Read after the row is written, so that no reveal can come in between: once names are known,
            # neither an undo nor a vote is allowed.
            if is_revealed(connection, battle):
                raise Conflict("The names were revealed, so the vote is final.")
            return True

        if not self.store.do(write):
            what = "There is no vote to undo." if choice == UNDO else "You already voted on this battle."
            raise Conflict(f"{what} Reload the page.")

    def reveal(self, id: str, voter: str) -> Battle:
        """Record that the names are revealed to the voter.

        Raises:
            UnknownName: this voter has no such battle.
            Conflict: there is no vote yet.
        """
        battle = self.battle(id, voter)
        row = {"battle": id, "voter": voter, "created": timestamp()}
        new = self.store.database.insert(reveals).on_conflict_do_nothing()

        def write(connection: sa.Connection) -> None:
            lock_battle(connection, battle)
            connection.execute(new, [row])
            last = last_vote(connection, id, voter)
            if (last is None or last["choice"] == UNDO) and not battle.failed:
                raise Conflict("Names are revealed after you vote.")

        self.store.do(write)
        return replace(battle, revealed=True)

    def import_votes(self, cast: Sequence[tuple[Battle, Vote]]) -> int:
        """Store battles with their votes from elsewhere; return the number of new votes."""
        self.keep_all([battle for battle, _ in cast])
        rows = [
            {
                "battle": battle.id,
                "voter": battle.voter,
                "number": 0,
                "supersedes": None,
                "choice": str(vote.choice),
                "reasons": list(vote.reasons),
                "turn": vote.turn,
                **{name: getattr(battle, name) for name in ("left", "right", "propensity")},
                "created": vote.created or timestamp(),
            }
            for battle, vote in cast
        ]
        if not rows:
            return 0
        new = self.store.database.insert(votes).on_conflict_do_nothing().returning(votes.c.battle)
        return len(self.store.do(lambda c: c.execute(new, rows).all()))

    # ── what was voted ──────────────────────────────────────────────────────────────────────────────

    def verdicts(self, *, leaked: bool = False) -> list[Verdict]:
        """Count current votes by voter, pair and outcome, for the ranking.

        Repeated battles are excluded, since a voter counts once; so are battles in which a model revealed
        itself, unless ``leaked``.
        """
        return [verdict for verdict, *_ in self._counted(leaked)]

    def verdicts_by_question(self, *, leaked: bool = False) -> list[tuple[Verdict, str]]:
        """Count the same by the battles' first question, too."""
        first = sa.select(turns.c.question).where(turns.c.battle == votes.c.battle, turns.c.number == 0)
        counted = self._counted(leaked, first.scalar_subquery().label("question"))
        return [(verdict, question or "") for verdict, question in counted]

    def _counted(self, leaked: bool, *more: Any) -> list[tuple[Any, ...]]:
        """Count votes that are ranked; by further columns, too, which follow each verdict."""
        keys = (votes.c.voter, votes.c.left, votes.c.right, votes.c.choice, *more)
        query = (
            standing_votes(sa.func.count(), *keys)
            .where(battles.c.repeats.is_(None), is_settled(), is_included())
            .group_by(*keys)
        )
        if not leaked:
            query = query.where(~has_leak())
        rows = self.store.do(lambda c: c.execute(query).all())
        return [
            (Verdict(voter, left, right, OUTCOMES[Choice(choice)], n), *rest)
            for n, voter, left, right, choice, *rest in rows
        ]

    def stamp(self) -> tuple[Any, ...]:
        """Return what changes whenever other votes count: the number of links, the time of the last one, the
        number of votes too recent to count, and the number of reveals and exclusions.
        """
        young = sa.case((votes.c.created >= settled_before(), 1), else_=0)
        query = sa.select(sa.func.count(), sa.func.max(votes.c.created), sa.func.sum(young))
        others = [sa.select(sa.func.count()).select_from(table) for table in (reveals, exclusions)]
        return self.store.do(
            lambda c: (*c.execute(query).one(), *(c.execute(count).scalar_one() for count in others))
        )

    def counts(self) -> dict[str, int]:
        """Count votes in total; of those, repeats, leaks and open ones (not ranked), and votes for both
        bad; and the excluded ones, which are in no other number, and the addresses that votes came from.
        """
        every = standing_votes(sa.func.count()).where(is_included())
        places = (
            sa.select(sa.func.count(vote_addresses.c.address.distinct()))
            .select_from(vote_addresses.join(votes, votes.c.battle == vote_addresses.c.battle))
            .where(is_included())
        )
        queries = {
            "votes": every,
            "repeats": every.where(battles.c.repeats.is_not(None)),
            "leaks": every.where(battles.c.repeats.is_(None), has_leak()),
            "both_bad": every.where(votes.c.choice == Choice.BOTH_BAD),
            "open": every.where(~is_settled()),
            "excluded": standing_votes(sa.func.count()).where(~is_included()),
            "addresses": places,
        }
        return self.store.do(lambda c: {k: int(c.execute(q).scalar_one()) for k, q in queries.items()})

    def cast(self) -> list[CastVote]:
        """Yield current votes one by one."""
        columns = (battles.c.item, battles.c.repeats, battles.c.content)
        query = standing_votes(
            votes.c.battle, votes.c.voter, votes.c.left, votes.c.right, votes.c.choice, *columns
        )
        cast_votes = []
        for row in self.store.do(
            lambda c: c.execute(query.where(is_settled(), is_included())).mappings().all()
        ):
            right = row["content"].get("right") or (None, None)
            cast_votes.append(
                CastVote(
                    row["battle"],
                    row["voter"],
                    row["item"],
                    row["left"],
                    row["right"],
                    row["choice"],
                    row["repeats"],
                    (right[0], right[1]),
                )
            )
        return cast_votes

    def voted(self) -> Iterator[Battle]:
        """Yield all battles with a vote that counts, oldest first, with one page in memory at a time."""
        query = (
            standing_votes(votes.c.battle)
            .where(is_settled(), is_included())
            .order_by(votes.c.created, votes.c.battle)
        )
        ids = list(self.store.do(lambda c: c.execute(query).scalars().all()))
        for start in range(0, len(ids), 500):
            yield from self.battles(ids[start : start + 500])

    def again(self, voter: str, rng: Random) -> Battle | None:
        """Repeat an earlier battle of a voter with sides swapped; None if none is old enough."""
        known = self.earlier(voter)
        if not known:
            return None
        old = self.battle(rng.choice(known))
        swapped = replace(
            old,
            id="",
            created="",
            left=old.right,
            right=old.left,
            repeats=old.id,
            turns=tuple(replace(turn, left=turn.right, right=turn.left) for turn in old.turns),
            content={**old.content, "right": list(reversed(old.content.get("right") or (None, None)))},
            vote=None,
            revealed=False,
        )
        return self.keep(swapped)

    def earlier(self, voter: str, skip: int = 5) -> list[str]:
        """Return battles of the voter that may be repeated: not the most recent ones, and none twice."""
        query = (
            standing_votes(votes.c.battle)
            .where(votes.c.voter == voter, battles.c.repeats.is_(None))
            .order_by(votes.c.created.desc())
            .offset(skip)
        )
        again = sa.select(battles.c.repeats).where(battles.c.voter == voter, battles.c.repeats.is_not(None))

        def read(connection: sa.Connection) -> list[str]:
            done = set(connection.execute(again).scalars())
            return [id for id in connection.execute(query).scalars() if id not in done]

        return self.store.do(read)
