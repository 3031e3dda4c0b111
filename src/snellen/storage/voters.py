"""Who votes: cookies that the server issues and signs, hashes of addresses, and whose votes do not count."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from snellen.errors import UnknownName
from snellen.storage.schema import (
    arena_answers,
    exclusions,
    settings,
    vote_addresses,
    voters,
    votes,
)
from snellen.storage.store import timestamp
from snellen.storage.vote_queries import standing_votes

if TYPE_CHECKING:
    from snellen.storage.store import Store

__all__ = ["CastBy", "Voters"]


class CastBy(NamedTuple):
    """A vote with what shows how it was cast: by whom, from where, when, how long after the answers, and the
    characters that there were to read.
    """

    voter: str
    address: str
    choice: str
    left: str
    right: str
    created: str
    seconds: float
    characters: int


class Voters:
    """The voters of a workspace. A salt that never leaves the database makes their ids, and hashes addresses,
    so that neither can be told from what is published. (Who has the database can try all addresses.)
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @cached_property
    def _salt(self) -> bytes:
        new = self._store.database.insert(settings).values(name="salt", value=secrets.token_hex(32))

        def keep(connection: sa.Connection) -> str:
            connection.execute(new.on_conflict_do_nothing())
            query = sa.select(settings.c.value).where(settings.c.name == "salt")
            return str(connection.execute(query).scalar_one())

        return bytes.fromhex(self._store.do(keep))

    def _hash(self, text: str) -> str:
        return hmac.new(self._salt, text.encode(), hashlib.sha256).hexdigest()

    # ── cookies ─────────────────────────────────────────────────────────────────────────────────────

    def issue(self, address: str = "", secret: str | None = None) -> str:
        """Return the cookie of a new voter, whom nobody can invent: it is signed.

        Args:
            address: the hash of where they come from.
            secret: what their id is made from; by default random.
        """
        secret = secret or secrets.token_urlsafe(24)
        row = {"id": self.id_of(secret), "address": address, "created": timestamp()}
        new = self._store.database.insert(voters).on_conflict_do_nothing()
        self._store.do(lambda c: c.execute(new, [row]))
        return f"{secret}.{self._hash(f'cookie {secret}')[:32]}"

    def voter(self, cookie: str) -> str | None:
        """Return a voter's id, a salted hash; None for a cookie that was not issued here."""
        secret, _, signature = cookie.rpartition(".")
        right = hmac.compare_digest(signature.encode(), self._hash(f"cookie {secret}")[:32].encode())
        return self.id_of(secret) if secret and right else None

    def id_of(self, secret: str) -> str:
        """Return the id of the voter with a secret."""
        return self._hash(secret)[:24]

    def invitation(self, number: int) -> str:
        """Return the token of an invitation, the same whenever this workspace's arena is started."""
        return self._hash(f"invitation {number}")[:32]

    # ── addresses ───────────────────────────────────────────────────────────────────────────────────

    def address(self, host: str) -> str:
        """Return the salted hash of an address."""
        return f"@{self._hash(f'address {host}')[:12]}"

    def newcomers(self, address: str) -> int:
        """Count the voters who came from an address within a day."""
        since = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="microseconds")
        query = sa.select(sa.func.count()).where(voters.c.address == address, voters.c.created > since)
        return self._store.do(lambda c: int(c.execute(query).scalar_one()))

    def forget(self, days: float) -> int:
        """Forget the addresses of votes older than this, except those excluded; return how many."""
        before = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="microseconds")
        kept = [who for who in self.excluded() if who.startswith("@")]
        old = sa.delete(vote_addresses).where(
            vote_addresses.c.created < before, vote_addresses.c.address.not_in(kept)
        )
        blank = sa.update(voters).where(voters.c.created < before).values(address="")

        def work(connection: sa.Connection) -> int:
            connection.execute(blank)
            return int(connection.execute(old).rowcount)

        return self._store.do(work)

    # ── whose votes count ───────────────────────────────────────────────────────────────────────────

    def excluded(self) -> dict[str, str]:
        """Return the voters and addresses whose votes do not count, with the reason."""
        query = sa.select(exclusions).order_by(exclusions.c.number)
        last = {row["who"]: row for row in self._store.do(lambda c: list(c.execute(query).mappings()))}
        return {who: row["reason"] for who, row in last.items() if row["excluded"]}

    def find(self, name: str) -> str:
        """Return the voter, or the address, whose id begins so.

        Raises:
            UnknownName: none does, or several.
        """
        query = sa.union(sa.select(votes.c.voter), sa.select(vote_addresses.c.address))
        known = {*self._store.do(lambda c: list(c.execute(query).scalars())), *self.excluded()}
        matching: list[str] = [who for who in sorted(known) if who.startswith(name)]
        if len(matching) != 1:
            what = "No voter or address" if not matching else f"{len(matching)} voters or addresses"
            raise UnknownName(f"{what} that begin with {name!r}. List them with: snellen votes voters")
        return matching[0]

    def decide(self, who: str, *, excluded: bool, reason: str = "") -> None:
        """Record that the votes of a voter, or from an address, count or do not."""
        row = {"who": who, "excluded": excluded, "reason": reason, "created": timestamp()}
        self._store.do(lambda c: c.execute(sa.insert(exclusions), [row]))

    def cast(self) -> list[CastBy]:
        """Return all standing votes with what shows how they were cast, oldest first."""
        said = (
            sa.select(
                arena_answers.c.battle,
                sa.func.max(arena_answers.c.created).label("shown"),
                sa.func.sum(sa.func.length(arena_answers.c.text)).label("characters"),
            )
            .group_by(arena_answers.c.battle)
            .subquery()
        )
        places = vote_addresses
        columns: list[Any] = [votes.c[name] for name in ("voter", "choice", "left", "right", "created")]
        query = standing_votes(*columns, places.c.address, said.c.shown, said.c.characters)
        query = query.outerjoin(said, said.c.battle == votes.c.battle).outerjoin(
            places,
            (places.c.battle == votes.c.battle)
            & (places.c.voter == votes.c.voter)
            & (places.c.number == votes.c.number),
        )
        rows = self._store.do(lambda c: list(c.execute(query.order_by(votes.c.created)).mappings()))
        return [
            CastBy(
                row["voter"],
                row["address"] or "",
                row["choice"],
                row["left"],
                row["right"],
                row["created"],
                _seconds(row["shown"], row["created"]),
                int(row["characters"] or 0),
            )
            for row in rows
        ]


def _seconds(since: str | None, until: str) -> float:
    """Return the seconds between two times; NaN if the first is unknown."""
    if since is None:
        return float("nan")
    return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()
