"""Battles and votes in both databases, battles from runs and from live models, votes in and out."""

from __future__ import annotations

import asyncio
import json
from random import Random
from threading import Barrier, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import FAILED, Scripted
from snellen.api import run
from snellen.arena.exchange import export, read
from snellen.arena.live import MAX_TURNS, Live
from snellen.arena.pairing import propensities
from snellen.arena.recorded import Recorded, names_of
from snellen.arena.results import ArenaResults
from snellen.errors import BadOption, Conflict, DataError, StoreError, UnknownName, Unsupported, UsageError
from snellen.storage.schema import votes
from snellen.storage.store import Store
from snellen.storage.vote_rows import Answer, Battle, Choice, Turn
from snellen.storage.votes import VoteStore
from snellen.types import Kind


@pytest.fixture
def vote_store(anywhere):
    store = Store(anywhere)
    yield VoteStore(store)
    store.close()


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


@pytest.fixture
def runs(workspace):
    """Three models that are right about other samples."""

    def teller(k):
        def script(request):
            number = int(request.images[0].sha256[:6], 16)
            return request.sample.label if number % 3 != k else "star" if number % 2 else "no idea at all"

        return script

    kwargs: dict[str, Any] = {"data": "chart:shapes?n=12", "protocol": "closed-set?rounds=1"}
    return [run(model=Scripted(teller(k), f"model-{k}"), **kwargs) for k in range(3)]


class TestRecorded:
    def test_battles_are_of_stored_answers(self, runs):
        vote_store = VoteStore(runs[0].store)
        arena = Recorded(vote_store, runs, repeat=0, overlap=0, rng=Random(0))
        assert arena.players == tuple(f"model-{k} closed-set?rounds=1" for k in range(3))
        seen = set()
        by_name = {f"{one.model} {one.protocol}": one for one in runs}
        while (one := arena.deal("me")) is not None:
            assert one.answered
            assert one.item not in seen
            seen.add(one.item)
            sample = one.content["sample"]
            for side, right in zip(("left", "right"), one.content["right"], strict=True):
                player = by_name[getattr(one, side)]
                row = player.finding(player.sample(sample)["position"])
                assert getattr(one.turns[0], side).text == player.replies(sample)[0].text
                assert right == (row["prediction"] == row["label"])
                assert one.content["truth"] == row["label"]
            vote(vote_store, one, "left")
        assert len(seen) == 3 * 12
        # Counts are balanced: each pair was drawn until nothing was left of it.
        assert set(vote_store.met().values()) == {12}

    def test_its_propensity_is_that_of_the_pair_when_it_was_drawn(self, runs):
        vote_store = VoteStore(runs[0].store)
        arena = Recorded(vote_store, runs, repeat=0, rng=Random(3))
        for _ in range(9):
            before = propensities(arena.players, vote_store.met())
            one = arena.deal("me")
            assert one is not None
            vote(vote_store, one, "tie")
            assert one.propensity == pytest.approx(before[frozenset((one.left, one.right))])

    def test_disagreements_first(self, runs):
        arena = Recorded(
            VoteStore(runs[0].store), runs, disagreements_first=True, repeat=0, overlap=0, rng=Random(0)
        )
        order = []
        while (one := arena.deal("me")) is not None:
            left, right = one.content["right"]
            order.append(left != right)
            vote(arena.vote_store, one, "tie")
        assert any(order)
        assert order == sorted(order, reverse=True)  # whichever pair they are of

    def test_a_battle_without_a_vote_is_dealt_again(self, runs):
        vote_store = VoteStore(runs[0].store)
        arena = Recorded(vote_store, runs, repeat=0, rng=Random(0))
        one = arena.deal("me")
        assert arena.deal("me").id == one.id
        assert arena.deal("you").id != one.id
        vote_store.vote(one.id, "me", "left")
        assert arena.deal("me").id != one.id

    def test_others_are_shown_the_same_now_and_then(self, runs):
        vote_store = VoteStore(runs[0].store)
        arena = Recorded(vote_store, runs, repeat=0, overlap=1.0, rng=Random(0))

        def five(voter):
            for _ in range(5):
                one = arena.deal(voter)
                assert one is not None
                vote(vote_store, one, "tie")
                yield one.item

        first, second = set(five("one")), list(five("two"))
        assert len(first & set(second)) >= 3

    def test_names_tell_runs_apart(self, runs, workspace):
        assert set(names_of(runs).values()) == {f"model-{k} closed-set?rounds=1" for k in range(3)}
        assert names_of(runs[:1]) == {runs[0].id: "model-0 closed-set?rounds=1"}  # whoever else is there
        other = run(
            model=Scripted(lambda r: "star", "model-0"),
            data="chart:shapes?n=12",
            protocol="closed-set?rounds=2",
        )
        names = names_of([runs[0], other])
        assert sorted(names.values()) == ["model-0 closed-set?rounds=1", "model-0 closed-set?rounds=2"]

    def test_what_cannot_be_compared(self, runs, workspace):
        vote_store = VoteStore(runs[0].store)
        with pytest.raises(UsageError, match="at least two"):
            Recorded(vote_store, [runs[0], runs[0]])
        other = run(
            model=Scripted(lambda r: "star", "x"),
            data="chart:shapes?n=12&seed=5",
            protocol="closed-set?rounds=1",
        )
        with pytest.raises(UsageError, match="share no samples"):
            Recorded(vote_store, [runs[0], other])

    def test_wrong_answers_and_agreement_are_told(self, runs):
        vote_store = VoteStore(runs[0].store)
        arena = Recorded(vote_store, runs, repeat=0, rng=Random(0))
        wrong = told = 0
        while (one := arena.deal("me")) is not None:
            vote(vote_store, one, "left")
            left, right = one.content["right"]
            told += left != right
            wrong += right and not left
        results = ArenaResults.of(vote_store)
        assert results.wrong[1] == told > 0
        assert results.wrong[0].value == pytest.approx(wrong / told)
        assert results.quality.left.value == 1.0


class TestLive:
    def arena(self, store, *models, **more) -> Live:
        return Live(
            VoteStore(store),
            models,
            image_path=lambda sha256: store.folder / "one.png",
            rng=Random(0),
            **more,
        )

    @pytest.fixture
    def store(self, workspace, red):
        store = Store(workspace)
        red.save(store.folder / "one.png")
        return store

    async def settled(self, arena, one):
        for _ in range(300):
            now = arena.vote_store.battle(one.id)
            if now.answered:
                return now
            await asyncio.sleep(0.01)
        raise AssertionError("no answer came")

    def test_a_conversation(self, store):
        one, two = (Scripted(lambda r, n=n: f"{n} says {len(r.messages)}", n) for n in ("one", "two"))  # type: ignore[misc]
        arena = self.arena(store, one, two)

        async def talk():
            async with arena.open():
                begun = arena.begin("me", ["0" * 64], " What is it?\r\n")
                assert not begun.answered
                arena.attend(begun)
                arena.attend(begun)  # twice asks once
                first = await self.settled(arena, begun)
                arena.ask(first, "And now?")
                arena.attend(arena.vote_store.battle(begun.id))
                return await self.settled(arena, begun)

        found = asyncio.run(talk())
        assert [turn.question for turn in found.turns] == ["What is it?", "And now?"]
        by_name = {found.left: "left", found.right: "right"}
        for name in ("one", "two"):
            said = [getattr(turn, by_name[name]).text for turn in found.turns]
            assert said == [f"{name} says 1", f"{name} says 3"]
        for model in (one, two):
            assert len(model.asked) == 2
            roles = [message.role for message in model.asked[1].messages]
            assert roles == ["user", "assistant", "user"]
            # Each is told its own answers, and the image once.
            assert model.asked[1].messages[1].text == f"{model.name} says 1"
            assert [len(m.images) for m in model.asked[1].messages] == [1, 0, 0]

    def test_neither_answer_is_there_before_the_other(self, store):
        release = asyncio.Event()

        class Slow(Scripted):
            async def respond(self, requests):
                await release.wait()
                return await super().respond(requests)

        arena = self.arena(store, Scripted(lambda r: "quick", "quick"), Slow(lambda r: "slow", "slow"))

        async def talk():
            async with arena.open():
                begun = arena.begin("me", ["0" * 64], "?")
                arena.attend(begun)
                await asyncio.sleep(0.2)
                now = arena.vote_store.battle(begun.id)
                assert now.turns[0].left is None
                assert now.turns[0].right is None
                release.set()
                return await self.settled(arena, begun)

        assert asyncio.run(talk()).answered

    def test_a_model_that_fails_or_is_late_ends_the_battle_and_no_other(self, store):
        class Late(Scripted):
            async def respond(self, requests):
                await asyncio.sleep(2)
                return []

        for bad in (Scripted(lambda r: FAILED, "bad"), Late(lambda r: "", "bad")):
            arena = self.arena(store, Scripted(lambda r: "fine", "good"), bad, seconds=0.3)

            async def talk(arena=arena):
                async with arena.open():
                    begun = arena.begin("me", ["0" * 64], "?")
                    arena.attend(begun)
                    return await self.settled(arena, begun)

            found = asyncio.run(talk())
            assert found.failed
            with pytest.raises(Conflict):
                arena.vote_store.vote(found.id, "me", "left")
            assert arena.vote_store.reveal(found.id, "me").revealed

    def test_identity_leaks_are_marked_at_once(self, store):
        arena = self.arena(store, Scripted(lambda r: "I am GPT-4.", "x"), Scripted(lambda r: "a cat", "y"))

        async def talk():
            async with arena.open():
                begun = arena.begin("me", ["0" * 64], "?")
                arena.attend(begun)
                return await self.settled(arena, begun)

        found = asyncio.run(talk())
        assert found.leak == "GPT-4"
        vote(arena.vote_store, found, "left")
        assert arena.vote_store.verdicts() == []
        assert len(arena.vote_store.verdicts(leaked=True)) == 1

    def test_what_was_left_unanswered_is_taken_up_again(self, store):
        one, two = (Scripted(lambda r, n=n: n, n) for n in ("one", "two"))  # type: ignore[misc]
        begun = self.arena(store, one, two).begin("me", ["0" * 64], "?")  # and the server ends
        arena = self.arena(store, one, two)

        async def talk():
            async with arena.open():
                arena.attend(arena.vote_store.battle(begun.id))
                return await self.settled(arena, begun)

        assert asyncio.run(talk()).answered

    def test_what_is_refused(self, store):
        one, two = (Scripted(lambda r: "x", n) for n in ("one", "two"))
        with pytest.raises(UsageError, match="at least two models"):
            self.arena(store, one, one)

        class Scores(Scripted):
            kinds = frozenset({Kind.SCORE})

        with pytest.raises(Unsupported, match="--runs"):
            self.arena(store, one, Scores(lambda r: "x", "clip"))
        arena = self.arena(store, one, two)
        for question in ("", "  \n", "x" * 5000):
            with pytest.raises(BadOption, match="question"):
                arena.begin("me", ["0" * 64], question)
        with pytest.raises(UsageError, match="--data"):
            arena.random_image()
        full = Battle(
            id="b",
            voter="me",
            source="live",
            item="i",
            left="one",
            right="two",
            propensity=1.0,
            turns=tuple(Turn(k, "?") for k in range(MAX_TURNS)),
        )
        with pytest.raises(BadOption, match="Vote now"):
            arena.ask(full, "more?")
        waiting = arena.begin("me", ["0" * 64], "?")
        with pytest.raises(Conflict, match="no question now"):
            arena.ask(waiting, "more?")


class TestExchange:
    @pytest.fixture
    def voted(self, vote_store):
        for k, choice in enumerate(Choice):
            one = battle(
                vote_store, f"v{k}", said=(f"left {k}", f"right {k}"), images=("ab" * 32,), item=f"i{k}"
            )
            vote_store.vote(one.id, f"v{k}", choice, ["left:missed"] if k == 0 else [])
            vote_store.reveal(one.id, f"v{k}")
        return vote_store

    def test_public_preference_data(self, voted):
        found = list(export(voted, "preferences"))
        assert [row["winner"] for row in found] == ["model_a", "model_b", "tie", "tie (bothbad)"]
        row = found[0]
        assert (row["model_a"], row["model_b"], row["turn"], row["anony"]) == ("A", "B", 1, True)
        assert row["conversation_a"] == [
            {"role": "user", "content": "What is it?"},
            {"role": "assistant", "content": "left 0"},
        ]
        assert row["reasons"] == ["left:missed"]
        assert row["judge"] == "v0"

    def test_images_are_hashes_and_lead_nowhere(self, vote_store, tmp_path):
        from snellen.web.images import BattleImages

        row = {"question_id": "q", "model_a": "x", "model_b": "y", "winner": "tie", "tstamp": 1.7e9,
               "conversation_a": [], "conversation_b": [],
               "images": ["../outside/secret", 3, "ab" * 32]}  # fmt: skip
        (tmp_path / "v.jsonl").write_text(json.dumps(row))
        assert read(vote_store, tmp_path / "v.jsonl", "preferences").votes == 1
        (one,) = vote_store.voted()
        assert one.images == ("ab" * 32,)
        secret = vote_store.store.preview_path("../outside/secret")
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_bytes(b"mine")
        assert BattleImages(vote_store.store, tmp_path / "out")(one, "../outside/secret") == ""
        assert not (tmp_path / "out").exists()

    def test_pairs_for_dpo(self, voted):
        found = list(export(voted, "dpo"))
        assert len(found) == 2  # ties teach nothing
        assert found[0]["prompt"] == [{"role": "user", "content": "What is it?"}]
        assert found[0]["chosen"] == [{"role": "assistant", "content": "left 0"}]
        assert found[0]["rejected"] == [{"role": "assistant", "content": "right 0"}]
        assert found[1]["chosen"] == [{"role": "assistant", "content": "right 1"}]

    @pytest.mark.parametrize("layout", ["preferences", "fastchat"])
    def test_what_leaves_comes_back(self, voted, layout, tmp_path):
        file = tmp_path / "votes.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in export(voted, layout)))
        other = VoteStore(Store(tmp_path / "other"))
        assert read(other, file, layout) == (4, 4, 0)
        assert read(other, file, layout) == (4, 0, 0)  # nothing is doubled
        mine = [(b.left, b.right, b.vote.choice, b.turns[0].left.text) for b in voted.voted()]
        theirs = [(b.left, b.right, b.vote.choice, b.turns[0].left.text) for b in other.voted()]
        assert theirs == mine
        assert not {b.voter for b in other.voted()} & {"v0", "v1", "v2", "v3"}
        assert ArenaResults.of(other).ranking.votes == 4
        # The other layout of the same votes, and one's own export, bring nothing new.
        again = tmp_path / "again.jsonl"
        twin = {"preferences": "fastchat", "fastchat": "preferences"}[layout]
        again.write_text("".join(json.dumps(row) + "\n" for row in export(voted, twin)))
        assert read(other, again, twin) == (4, 0, 0)
        assert read(voted, file, layout) == (4, 0, 0)
        assert len(voted.cast()) == 4

    def test_several_judges_of_one_question_are_of_one_item(self, vote_store, tmp_path):
        row = {"question_id": "q", "model_a": "x", "model_b": "y", "conversation_a": [], "conversation_b": []}
        lines = [{**row, "judge": judge, "winner": w} for judge, w in [("p", "model_a"), ("q", "model_b")]]
        lines += [{**row, "question_id": f"q{k}", "judge": "p", "winner": "tie"} for k in range(5)]
        file = tmp_path / "p.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        assert read(vote_store, file, "preferences") == (7, 7, 0)
        assert sorted(b.vote.choice for b in vote_store.voted()) == ["left", "right", *["tie"] * 5]
        plain, held = ArenaResults.of(vote_store), ArenaResults.of(vote_store, style=True)
        assert plain.quality.shared == 1
        assert [s.wins for s in plain.ranking.standings] == [s.wins for s in held.ranking.standings] == [1, 1]

    @pytest.mark.parametrize(
        "more",
        [
            {"right": True}, {"right": [True]}, {"right": {"a": 1}}, {"right": ["yes", "no"]},
            {"propensity": -3}, {"propensity": 7}, {"tstamp": 1e300}, {"tstamp": "soon"},
        ],
    )  # fmt: skip
    def test_what_would_break_a_ranking_is_refused(self, vote_store, tmp_path, more):
        row = {"question_id": "q", "model_a": "x", "model_b": "y", "conversation_a": [], "conversation_b": []}
        file = tmp_path / "p.jsonl"
        file.write_text(json.dumps({**row, "winner": "tie", **more}))
        with pytest.raises(DataError, match="line 1"):
            read(vote_store, file, "preferences")
        assert ArenaResults.of(vote_store).ranking is None

    def test_texts_that_databases_do_not_take(self, vote_store, tmp_path):
        said = [{"role": "user", "content": "a\0b"}, {"role": "assistant", "content": "c\ud83d"}]
        row = {"question_id": "q\ud83d", "model_a": "x\0", "model_b": "y", "winner": "tie", "tstamp": 1.7e12}
        file = tmp_path / "p.jsonl"
        file.write_text(json.dumps({**row, "conversation_a": said, "conversation_b": said}))
        assert read(vote_store, file, "preferences") == (1, 1, 0)
        (one,) = vote_store.voted()
        assert one.vote.created.startswith("2023")
        assert "\0" not in one.turns[0].question

    def test_images_leave_as_files(self, runs, tmp_path):
        from snellen.web.images import BattleImages

        vote_store = VoteStore(runs[0].store)
        dealt = Recorded(vote_store, runs, repeat=0, rng=Random(0)).deal("me")
        assert dealt is not None
        vote(vote_store, dealt, "left")
        album = BattleImages(runs[0].store, tmp_path / "images")
        (row,) = export(vote_store, "dpo", album)
        (path,) = row["images"]
        from PIL import Image

        with Image.open(path) as picture:
            assert picture.size == (96, 96)

    def test_other_layouts_of_others(self, vote_store, tmp_path):
        lines = [
            # arena-human-preference-55k
            {"id": 30192, "model_a": "gpt-4", "model_b": "vicuna", "prompt": '["Hi?", "And?"]',
             "response_a": '["Hello.", "More."]', "response_b": '["Hm.", null]',
             "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
            # conversations as JSON in a text, contents in parts
            {"question_id": "q", "model_a": "x", "model_b": "y", "winner": "tie (bothbad)", "tstamp": 1.7e9,
             "conversation_a": json.dumps([{"role": "user", "content": [{"type": "text", "text": "See?"}]},
                                           {"role": "assistant", "content": "Yes."}]),
             "conversation_b": json.dumps([{"role": "user", "content": "See?"},
                                           {"role": "assistant", "content": "No."}])},
        ]  # fmt: skip
        file = tmp_path / "p.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        assert read(vote_store, file, "preferences") == (2, 2, 0)
        first, second = (
            vote_store.voted()
            if next(vote_store.voted()).left == "gpt-4"
            else reversed(list(vote_store.voted()))
        )
        assert [turn.question for turn in first.turns] == ["Hi?", "And?"]
        assert [turn.left.text for turn in first.turns] == ["Hello.", "More."]
        assert second.turns[0].question == "See?"
        assert second.vote.choice == Choice.BOTH_BAD

    def test_fastchats_log_holds_more_than_votes(self, vote_store, tmp_path):
        state = {"messages": [["USER", ["What?", ["image"]]], ["ASSISTANT", "A cat."]], "offset": 0}
        lines = [
            {"tstamp": 1.0, "type": "chat", "model": "x", "state": {}},
            {"tstamp": 2.0, "type": "leftvote", "models": ["", ""], "ip": "10.0.0.1",
             "states": [{**state, "model_name": name, "conv_id": name} for name in "xy"]},
        ]  # fmt: skip
        file = tmp_path / "log.json"
        file.write_text("\n".join(map(json.dumps, lines)))
        assert read(vote_store, file, "fastchat") == (2, 1, 1)
        (one,) = vote_store.voted()
        assert (one.left, one.right, one.turns[0].question) == ("x", "y", "What?")
        assert "10.0.0.1" not in str(one)

    @pytest.mark.parametrize(
        "line", ["{", "[]", '{"winner": "me"}', '{"model_a": "x", "model_b": "y", "winner": "z"}']
    )
    def test_another_layout(self, vote_store, tmp_path, line):
        file = tmp_path / "x.jsonl"
        file.write_text(line + "\n")
        with pytest.raises(DataError, match="line 1: not in the layout"):
            read(vote_store, file, "preferences")
        with pytest.raises(DataError, match="cannot be read"):
            read(vote_store, tmp_path / "none.jsonl", "preferences")
