"""Answers drawn anew, and answers shown while they are written: both at one pace."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Scripted, as_response
from snellen.arena.live import MAX_DRAWS, WARM, Live
from snellen.arena.streaming import PacedAnswers, revealed
from snellen.errors import BadOption, Conflict
from snellen.storage.store import Store
from snellen.storage.vote_rows import SIDES, Battle
from snellen.storage.votes import VoteStore
from snellen.types import Outcome, Request, Response

lengths = st.integers(0, 1000)
times = st.floats(0, 1000)


class TestPace:
    @given(lengths, lengths, times, times, st.floats(0, 1e4))
    def test_what_may_be_shown(self, own, other, early, late, pace):
        early, late = sorted((early, late))
        assert revealed(own, other, None, pace) == min(own, other)
        assert min(own, other) <= revealed(own, other, early, pace) <= revealed(own, other, late, pace) <= own

    def test_a_quick_one_waits_for_a_slow_one(self):
        both = PacedAnswers(began=0.0)
        left, right = (both.answers[side] for side in SIDES)
        left.text, right.text = "a" * 100, "b" * 10
        assert both.shown("left", 1.0) == ("a" * 10, False)
        right.complete(Response("b" * 20))
        assert both.shown("right", 2.0) == ("b" * 20, True)
        assert both.shown("left", 2.0) == ("a" * 20, False)
        assert both.shown("left", 3.0) == ("a" * 30, False)  # ten characters a second, as before
        left.complete(Response("a" * 100))
        assert both.shown("left", 3.1) == ("a" * 100, True)

    def test_both_at_once_are_shown_at_once(self):
        both = PacedAnswers()
        for side in SIDES:
            both.answers[side].complete(Response(side))
        for side in SIDES:
            assert both.shown(side, both.began) == (side, True)


class Writing(Scripted):
    """Writes its answer word by word, each when it may."""

    remote = False

    def __init__(self, name: str, text: str) -> None:
        super().__init__(lambda request: text, name)
        self.text = text
        self.may = threading.Semaphore(0)

    def stream(self, request: Request) -> Generator[str, None, Response]:
        self.asked.append(request)
        for word in self.text.split(" "):
            assert self.may.acquire(timeout=30)
            yield f"{word} "
        return as_response(self.text)


def arena(store: Store, *models: Scripted, **more) -> Live:
    return Live(
        VoteStore(store), models, image_path=lambda _: store.folder / "one.png", rng=Random(0), **more
    )


@pytest.fixture
def store(workspace, red) -> Store:
    found = Store(workspace)
    red.save(found.folder / "one.png")
    return found


async def settled(live: Live, begun: Battle) -> Battle:
    for _ in range(3000):
        if (now := live.vote_store.battle(begun.id)).answered:
            return now
        await asyncio.sleep(0.01)
    raise AssertionError("no answer came")


class TestStream:
    def test_neither_side_is_ahead(self, store):
        quick, slow = Writing("quick", "one two three four five"), Writing("slow", "1 2 3 4 5")
        live = arena(store, quick, slow, stream=True)
        texts = dict.fromkeys(SIDES, "")

        async def talk() -> Battle:
            async with live.open():
                begun = live.begin("me", ["0" * 64], "?")
                live.attend(begun)
                sides = {getattr(begun, side): side for side in SIDES}

                async def read(side: str) -> None:
                    pieces = live.watch(begun, 0, side)
                    assert pieces is not None
                    async for piece in pieces:
                        texts[side] += piece.replace("\u200b", "")

                readers = [asyncio.create_task(read(side)) for side in SIDES]
                quick.may.release(5)
                slow.may.release(1)
                while not texts[sides["slow"]]:
                    await asyncio.sleep(0.01)
                assert (texts[sides["quick"]], texts[sides["slow"]]) == ("on", "1 ")
                assert live.vote_store.battle(begun.id).turns[0].left is None
                slow.may.release(4)
                await asyncio.gather(*readers)
                assert texts == {sides["quick"]: "one two three four five", sides["slow"]: "1 2 3 4 5"}
                # A stream ends when both answers are stored, so that the page can show them.
                assert live.vote_store.battle(begun.id).answered
                assert live.watch(begun, 0, "left") is None
                return live.vote_store.battle(begun.id)

        found = asyncio.run(talk())
        assert {found.turns[0].left.text, found.turns[0].right.text} == set(texts.values())

    def test_a_failure_ends_both(self, store):
        class Broken(Writing):
            def stream(self, request: Request) -> Generator[str, None, Response]:
                yield "Well"
                raise RuntimeError("out of words")

        fine = Writing("fine", "all is well")
        fine.may.release(3)
        live = arena(store, fine, Broken("broken", ""), stream=True)

        async def talk() -> Battle:
            async with live.open():
                begun = live.begin("me", ["0" * 64], "?")
                live.attend(begun)
                readers = [live.watch(begun, 0, side) for side in SIDES]
                for reader in readers:
                    assert reader is not None
                    assert [piece async for piece in reader]
                return live.vote_store.battle(begun.id)

        found = asyncio.run(talk())
        assert found.failed
        assert any("out of words" in getattr(found.turns[0], side).reason for side in SIDES)

    def test_what_is_known_is_not_asked_again(self, store):
        one, two = Writing("one", "a"), Writing("two", "b")
        first = arena(store, one, two)

        async def talk(live: Live) -> Battle:
            async with live.open():
                begun = live.begin("me", ["0" * 64], "?")
                live.attend(begun)
                return await settled(live, begun)

        asyncio.run(talk(first))
        asked = len(one.asked)
        assert asyncio.run(talk(arena(store, one, two, stream=True))).answered
        assert len(one.asked) == asked


class TestNewAnswers:
    def test_they_are_drawn_and_the_earlier_ones_do_not_count(self, store):
        def drawing(name: str) -> Scripted:
            return Scripted(lambda r: f"{name} {r.decoding.draw} at {r.decoding.temperature}", name)

        one, two = map(drawing, ("one", "two"))
        live = arena(store, one, two)

        async def talk() -> list[Battle]:
            async with live.open():
                begun = live.begin("me", ["0" * 64], "?")
                with pytest.raises(Conflict, match="still answering"):
                    live.regenerate(begun)
                battles = []
                for draw in range(MAX_DRAWS):
                    live.attend(begun)
                    battles.append(await settled(live, begun))
                    assert live.takes_new_answers(battles[-1]) == (draw < MAX_DRAWS - 1)
                    if draw < MAX_DRAWS - 1:
                        begun = live.regenerate(battles[-1])
                        with pytest.raises(Conflict, match="asked for already"):
                            live.regenerate(battles[-1])
                with pytest.raises(BadOption, match="at most 4 times"):
                    live.regenerate(battles[-1])
                return battles

        battles = asyncio.run(talk())
        for draw, battle in enumerate(battles):
            said = {battle.left: battle.turns[0].left, battle.right: battle.turns[0].right}
            assert {name: answer.text for name, answer in said.items()} == {
                name: f"{name} {draw} at {WARM if draw else 0.0}" for name in ("one", "two")
            }
            assert (battle.left, battle.right) == (battles[0].left, battles[0].right)
        assert len({battle.item for battle in battles}) == MAX_DRAWS
        assert live.vote_store.unvoted("me", "live") == [battles[-1].id]
        for battle in battles[:-1]:  # what was passed over tells nothing
            with pytest.raises(Conflict, match="passed this battle over"):
                live.vote_store.vote(battle.id, "me", "left")
            with pytest.raises(Conflict, match="after you vote"):
                live.vote_store.reveal(battle.id, "me")
            with pytest.raises(Conflict, match="passed this battle over"):
                live.ask(battle, "And now?")
        live.vote_store.vote(battles[-1].id, "me", "left")

    def test_not_after_a_vote_or_a_further_question(self, store):
        live = arena(store, Scripted(lambda r: "a", "one"), Scripted(lambda r: "b", "two"))

        async def talk() -> None:
            async with live.open():
                voted, talked = (live.begin("me", ["0" * 64], text) for text in "?!")
                for begun in (voted, talked):
                    live.attend(begun)
                    await settled(live, begun)
                live.vote_store.vote(voted.id, "me", "left")
                with pytest.raises(Conflict, match="already voted"):
                    live.regenerate(live.vote_store.battle(voted.id))
                live.ask(live.vote_store.battle(talked.id), "And now?")
                live.attend(live.vote_store.battle(talked.id))
                now = await settled(live, talked)
                with pytest.raises(BadOption, match="first question"):
                    live.regenerate(now)
                assert {side.outcome for side in (now.turns[1].left, now.turns[1].right)} == {Outcome.OK}

        asyncio.run(talk())
