"""Battles over recorded runs and with live models."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from helpers import FAILED, Scripted
from snellen.api import run
from snellen.arena.live import MAX_TURNS, Live
from snellen.arena.pairing import propensities
from snellen.arena.recorded import Recorded, names_of
from snellen.arena.results import ArenaResults
from snellen.errors import BadOption, Conflict, Unsupported, UsageError
from snellen.storage.store import Store
from snellen.storage.vote_rows import Battle, Turn
from snellen.storage.votes import VoteStore
from snellen.types import Kind
from voting import vote


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
