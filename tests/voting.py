"""What the tests of votes share."""

from __future__ import annotations

from snellen.storage.vote_rows import Answer, Battle, Turn
from snellen.storage.votes import VoteStore


def battle(vote_store: VoteStore, voter: str = "me", left: str = "A", right: str = "B", **more) -> Battle:
    said = more.pop("said", ("a cat", "a dog"))
    turn = Turn(0, "What is it?", *(Answer(text) for text in said))
    made = Battle(
        id="",
        voter=voter,
        source="live",
        item=more.pop("item", "item"),
        left=left,
        right=right,
        propensity=0.5,
        turns=(turn,),
        **more,
    )
    return vote_store.keep(made)


def vote(vote_store: VoteStore, one: Battle, choice: str) -> None:
    """Vote and see the names, so that the vote counts at once."""
    vote_store.vote(one.id, one.voter, choice)
    vote_store.reveal(one.id, one.voter)
