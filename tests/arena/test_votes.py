"""Votes: stored once, read back, and by whom."""

from __future__ import annotations

import json
from random import Random
from threading import Barrier, Thread

import pytest
import sqlalchemy as sa

from snellen.arena.results import ArenaResults
from snellen.errors import BadOption, Conflict, StoreError, UnknownName
from snellen.storage.schema import votes
from snellen.storage.store import Store
from snellen.storage.vote_rows import Answer, Battle, Choice, Turn
from snellen.storage.votes import VoteStore
from voting import battle, vote


def rows(vote_store: VoteStore) -> list[tuple]:
    query = sa.select(votes.c.number, votes.c.choice, votes.c.supersedes).order_by(votes.c.number)
    return [tuple(row) for row in vote_store.store.do(lambda c: c.execute(query).all())]


class TestVotes:
    def test_a_battle_comes_back_as_it_was_written(self, vote_store):
        one = battle(vote_store, content={"sample": "s", "right": [True, None]}, images=("ab",))
        again = VoteStore(vote_store.store).battle(one.id)
        assert (again.left, again.right, again.images, again.propensity) == ("A", "B", ("ab",), 0.5)
        assert again.content == {"sample": "s", "right": [True, None]}
        assert (again.turns[0].left.text, again.turns[0].right.text) == ("a cat", "a dog")
        assert again.answered
        assert again.vote is None

    def test_a_second_vote_is_refused_and_undoing_supersedes(self, vote_store):
        one = battle(vote_store)
        voted = vote_store.vote(one.id, "me", "left", ["right:missed", "right:missed", "left:refused"])
        assert voted.vote.choice == Choice.LEFT
        assert voted.vote.reasons == ("right:missed", "left:refused")
        with pytest.raises(Conflict, match="already"):
            vote_store.vote(one.id, "me", "right")
        assert vote_store.undo(one.id, "me").vote is None
        with pytest.raises(Conflict, match="no vote"):
            vote_store.undo(one.id, "me")
        assert vote_store.vote(one.id, "me", "tie").vote.choice == Choice.TIE
        assert rows(vote_store) == [(0, "left", None), (1, "undo", 0), (2, "tie", 1)]
        assert vote_store.verdicts() == []  # a ranking must not reveal what is hidden
        assert vote_store.counts()["open"] == 1
        before = vote_store.stamp()
        assert vote_store.stamp() == before
        vote_store.reveal(one.id, "me")
        assert vote_store.verdicts() == [("me", "A", "B", "tie", 1)]
        assert vote_store.stamp() != before

    def test_a_vote_counts_once_it_is_old(self, vote_store, monkeypatch):
        """And whoever shows a ranking notices."""
        one = battle(vote_store)
        vote_store.vote(one.id, "me", "left")
        before = vote_store.stamp()
        assert vote_store.verdicts() == []
        monkeypatch.setattr("snellen.storage.vote_queries.SETTLED", -1)
        assert vote_store.stamp() != before
        assert vote_store.verdicts() == [("me", "A", "B", "left", 1)]

    def test_no_undo_after_the_names_and_no_names_before_the_vote(self, vote_store):
        one = battle(vote_store)
        with pytest.raises(Conflict, match="after you vote"):
            vote_store.reveal(one.id, "me")
        vote_store.vote(one.id, "me", "both_bad")
        assert vote_store.reveal(one.id, "me").revealed
        assert vote_store.battle(one.id).revealed
        with pytest.raises(Conflict, match="names were revealed"):
            vote_store.undo(one.id, "me")

    def test_other_peoples_battles_are_not_there(self, vote_store):
        one = battle(vote_store)
        for act in (vote_store.undo, vote_store.reveal, lambda *a: vote_store.vote(*a, "left")):
            with pytest.raises(UnknownName, match="no battle"):
                act(one.id, "somebody")
        with pytest.raises(UnknownName):
            vote_store.battle("nothing")

    @pytest.mark.parametrize("said", ["", "A", "undo", "left'; DROP TABLE votes;--"])
    def test_only_the_choices(self, vote_store, said):
        with pytest.raises(BadOption, match="left, right, tie, both_bad"):
            vote_store.vote(battle(vote_store).id, "me", said)

    def test_only_the_reasons(self, vote_store):
        with pytest.raises(BadOption, match="left:hallucinated"):
            vote_store.vote(battle(vote_store).id, "me", "left", ["left:boring"])

    def test_nothing_to_vote_on_yet(self, vote_store):
        waiting = vote_store.keep(
            Battle(
                id="",
                voter="me",
                source="live",
                item="i",
                left="A",
                right="B",
                propensity=1.0,
                turns=(Turn(0, "?"),),
            )
        )
        failed = battle(vote_store)
        vote_store.store.do(lambda c: c.execute(sa.text("UPDATE arena_answers SET outcome = 'error'")))
        for one in (waiting, failed):
            with pytest.raises(Conflict, match="nothing to vote on"):
                vote_store.vote(one.id, "me", "left")

    def test_the_database_itself_keeps_votes(self, vote_store):
        one = battle(vote_store)
        vote_store.vote(one.id, "me", "left")
        for statement in ("UPDATE votes SET choice = 'right'", "DELETE FROM votes"):
            with pytest.raises(StoreError, match="append-only"):
                vote_store.store.do(lambda c, s=statement: c.execute(sa.text(s)))
        broken = {"battle": one.id, "voter": "me", "reasons": [], "turn": 0, "left": "A", "right": "B"}
        broken |= {"propensity": 1.0, "created": ""}
        for number, supersedes, choice in [
            (1, 0, "left"),
            (1, None, "undo"),
            (3, 2, "undo"),
            (2, 1, "left"),
        ]:
            values = {**broken, "number": number, "supersedes": supersedes, "choice": choice}
            with pytest.raises(StoreError):
                vote_store.store.do(lambda c, v=values: c.execute(sa.insert(votes), [v]))
        replace = "INSERT OR REPLACE INTO votes SELECT * FROM votes"
        empty = "TRUNCATE votes"
        if vote_store.store.database.name.startswith("postgresql"):
            with pytest.raises(StoreError, match="append-only"):
                vote_store.store.do(lambda c: c.execute(sa.text(empty)))
        else:
            changed = replace.replace(
                "*",
                "battle, voter, number, supersedes, 'right', reasons, turn, "
                + '"left", "right", propensity, created',
            )
            vote_store.store.do(lambda c: c.execute(sa.text(changed)))
        assert rows(vote_store) == [(0, "left", None)]

    def test_names_that_are_known_allow_no_other_vote(self, vote_store, monkeypatch):
        """Also where they are shown between the look at a battle and the line that is written."""
        one = battle(vote_store)
        vote_store.vote(one.id, "me", "left")
        seen = vote_store.battle(one.id, "me")
        vote_store.reveal(one.id, "me")
        monkeypatch.setattr(vote_store, "battle", lambda *_: seen)
        with pytest.raises(Conflict, match="names were revealed"):
            vote_store.undo(one.id, "me")
        assert rows(vote_store) == [(0, "left", None)]

    def test_of_many_at_once_one_vote_stands(self, vote_store):
        one = battle(vote_store)
        gate, ended = Barrier(8), []

        def vote(choice):
            gate.wait()
            try:
                vote_store.vote(one.id, "me", choice)
                ended.append("voted")
            except Conflict:
                ended.append("conflict")

        threads = [Thread(target=vote, args=(["left", "right"][k % 2],)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ended) == ["conflict"] * 7 + ["voted"]
        assert len(rows(vote_store)) == 1

    def test_ids_of_voters_are_salted(self, vote_store, tmp_path):
        mine = vote_store.voters.id_of("secret")
        assert mine == VoteStore(vote_store.store).voters.id_of("secret")
        assert mine != vote_store.voters.id_of("another")
        elsewhere = VoteStore(Store(tmp_path / "other"))
        assert elsewhere.voters.id_of("secret") != mine
        assert "secret" not in mine

    def test_what_is_ranked(self, vote_store):
        vote(vote_store, battle(vote_store), "left")
        vote(vote_store, battle(vote_store, "you", "B", "A"), "both_bad")
        leaked = battle(vote_store, "you", item="other")
        vote_store.answer(leaked.id, 0, "left", Answer("again"))  # what is there stays
        vote(vote_store, leaked, "right")
        vote_store.store.do(
            lambda c: c.execute(
                sa.text("UPDATE arena_answers SET leak = 'GPT' WHERE battle = :b"), {"b": leaked.id}
            )
        )
        assert sorted(vote_store.verdicts()) == [("me", "A", "B", "left", 1), ("you", "B", "A", "tie", 1)]
        assert len(vote_store.verdicts(leaked=True)) == 3
        assert vote_store.counts() == {
            "votes": 3,
            "repeats": 0,
            "leaks": 1,
            "both_bad": 1,
            "open": 0,
            "excluded": 0,
            "addresses": 0,
        }
        results = ArenaResults.of(vote_store)
        assert results.ranking.votes == 2
        assert ArenaResults.of(vote_store, leaked=True).ranking.votes == 3
        assert ArenaResults.of(vote_store, style=True).ranking.votes == 2
        json.dumps(results.as_dict())

    def test_repeats_swap_sides_and_do_not_count(self, vote_store):
        for k in range(8):
            vote(vote_store, battle(vote_store, item=f"i{k}", content={"right": [True, False]}), "left")
        seen = set()
        while (again := vote_store.again("me", Random(1))) is not None:
            old = vote_store.battle(again.repeats)
            assert (again.left, again.right) == (old.right, old.left)
            assert again.turns[0].left.text == old.turns[0].right.text
            assert again.content["right"] == [False, True]
            assert again.repeats not in seen  # each but once
            seen.add(again.repeats)
            vote(vote_store, again, "right" if len(seen) < 3 else "left")
        assert len(seen) == 3  # not the last five
        assert vote_store.again("stranger", Random(1)) is None
        assert vote_store.counts()["repeats"] == 3
        assert sum(v.times for v in vote_store.verdicts()) == 8
        quality = ArenaResults.of(vote_store).quality
        assert (quality.repeated, quality.consistency.value) == (3, pytest.approx(2 / 3))
