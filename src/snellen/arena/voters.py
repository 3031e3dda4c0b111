"""What is odd about how somebody votes. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from snellen.storage.voters import CastBy

__all__ = ["AddressSummary", "VoterSummary", "summarize_addresses", "summarize_voters"]

#: From so many votes on, always the same side or model is odd: by chance, one voter in 128 would.
ALWAYS = 8
#: Characters a second that nobody reads: about 600 words a minute. Votes needed to say so.
READING, FAST = 60.0, 5
#: From so many voters on, one address is odd.
CROWD = 5


@dataclass(frozen=True, kw_only=True)
class VoterSummary:
    """One voter.

    Attributes:
        votes: standing ones.
        addresses: the hashes of where they came from.
        left: the share of decisive votes for the left side; None without any.
        favorite, favored: the model that they chose most, and how often of the times that they met it.
        seconds: the median time from the answers to the vote; None if unknown.
        odd: what is odd, in words.
        excluded: whether their votes, or those from all their addresses, do not count.
    """

    voter: str
    votes: int
    addresses: tuple[str, ...]
    first: str
    last: str
    left: float | None
    favorite: str
    favored: float
    seconds: float | None
    odd: tuple[str, ...]
    excluded: bool


@dataclass(frozen=True, kw_only=True)
class AddressSummary:
    """One address, by the hash that is stored: its votes, its voters, what is odd, whether it is excluded."""

    address: str
    votes: int
    voters: int
    odd: tuple[str, ...]
    excluded: bool


def summarize_voters(cast: Sequence[CastBy], excluded: Mapping[str, str]) -> list[VoterSummary]:
    """Describe each voter, those with something odd and most votes first.

    Args:
        cast: all standing votes, oldest first.
        excluded: voters and addresses whose votes do not count.
    """
    by_voter: dict[str, list[CastBy]] = defaultdict(list)
    for vote in cast:
        by_voter[vote.voter].append(vote)
    people = [_voter(voter, rows, excluded) for voter, rows in by_voter.items()]
    return sorted(people, key=lambda one: (not one.odd, -one.votes, one.voter))


def _voter(voter: str, rows: Sequence[CastBy], excluded: Mapping[str, str]) -> VoterSummary:
    sides = [row.choice for row in rows if row.choice in ("left", "right")]
    chosen = Counter(
        row.left if row.choice == "left" else row.right for row in rows if row.choice in ("left", "right")
    )
    met = Counter(name for row in rows for name in {row.left, row.right})
    favorite = max(chosen, key=lambda name: (chosen[name] / met[name], chosen[name], name), default="")
    favored = chosen[favorite] / met[favorite] if favorite else 0.0
    timed = [row for row in rows if math.isfinite(row.seconds) and row.seconds > 0]
    speeds = [row.characters / row.seconds for row in timed]
    odd = []
    if len(sides) >= ALWAYS and len(set(sides)) == 1:
        odd.append(f"always {sides[0]}")
    if favorite and chosen[favorite] >= ALWAYS and favored == 1:
        odd.append(f"always {favorite}")
    if len(speeds) >= FAST and median(speeds) > READING:
        odd.append("faster than reading")
    places = tuple(dict.fromkeys(row.address for row in rows if row.address))
    return VoterSummary(
        voter=voter,
        votes=len(rows),
        addresses=places,
        first=rows[0].created,
        last=rows[-1].created,
        left=sides.count("left") / len(sides) if sides else None,
        favorite=favorite,
        favored=favored,
        seconds=median(row.seconds for row in timed) if timed else None,
        odd=tuple(odd),
        excluded=voter in excluded or bool(places and all(place in excluded for place in places)),
    )


def summarize_addresses(cast: Sequence[CastBy], excluded: Mapping[str, str]) -> list[AddressSummary]:
    """Describe each address, those with most voters first. Arguments as for :func:`summarize_voters`."""
    by_address: dict[str, list[CastBy]] = defaultdict(list)
    for vote in cast:
        if vote.address:
            by_address[vote.address].append(vote)
    places = []
    for address, rows in by_address.items():
        people = len({row.voter for row in rows})
        odd = (f"{people} voters",) if people >= CROWD else ()
        places.append(
            AddressSummary(
                address=address, votes=len(rows), voters=people, odd=odd, excluded=address in excluded
            )
        )
    return sorted(places, key=lambda one: (-one.voters, -one.votes, one.address))
