"""The loop over samples: blocks in flight, order, memory, what is made ready meanwhile."""

from __future__ import annotations

import asyncio
import threading

import pytest

from helpers import FAILED, sample, text_of
from snellen.engine.loop import CachedResponse, drive, examine_block
from snellen.errors import ImageError, SnellenError
from snellen.protocols.binary import Binary
from snellen.protocols.closed_set import ClosedSet
from snellen.types import Outcome, Response

LABELS = ("cat", "dog", "bird", "fish")


def answering(script, request_batches=None):
    async def respond(requests):
        if request_batches is not None:
            request_batches.append(len(requests))
        await asyncio.sleep(0)
        return [
            CachedResponse(r if isinstance(r, Response) else Response(r), f"k{i}", True)
            for i, r in enumerate(map(script, requests))
        ]

    return respond


def samples(n):
    return [(i, sample(LABELS, LABELS[i % 4], id=f"s{i}")) for i in range(n)]


async def collect(*args, **more):
    return [item for block in [b async for b in drive(*args, **more)] for item in block]


class TestDriver:
    def test_lockstep_waves(self):
        """Samples whose examination ended drop out; the others' requests go on together."""
        request_batches: list[int] = []

        def script(request):
            return "yes" if "the cat in" in text_of(request) else "no"

        found = asyncio.run(
            examine_block(samples(3), Binary(order="fixed"), answering(script, request_batches))
        )
        assert request_batches == [3]
        assert [f.prediction.label for f in found] == ["cat"] * 3
        request_batches.clear()
        asyncio.run(
            examine_block(samples(3), Binary(order="fixed"), answering(lambda r: "no", request_batches))
        )
        assert request_batches == [3, 3, 3, 3]

    @pytest.mark.parametrize(("workers", "block"), [(1, 1), (1, 4), (3, 2), (5, 1), (2, 100)])
    def test_every_sample_once_whatever_the_workers(self, workers, block):
        found = asyncio.run(
            collect(
                samples(17), ClosedSet(rounds=2), answering(lambda r: "cat"), workers=workers, block=block
            )
        )
        assert sorted(item.position for item in found) == list(range(17))
        assert all(item.sample.id == item.prediction.sample_id for item in found)

    def test_an_error_ends_a_samples_examination_and_no_others(self):
        def script(request):
            return FAILED if "s1" in request.images[0].name else "no"

        block = samples(3)
        for position, one in block:
            one.images[0].name = one.id
        found = asyncio.run(examine_block(block, Binary(), answering(script)))
        assert [f.prediction.outcome for f in found] == [Outcome.OK, Outcome.ERROR, Outcome.OK]
        assert found[1].prediction.reason == FAILED.reason
        assert len(found[1].answers) == 1
        assert len(found[0].answers) == 4

    def test_memory_does_not_grow_with_the_data_set(self):
        alive = threading.local()
        alive.now = alive.most = 0
        lock = threading.Lock()
        counts = {"now": 0, "most": 0}

        class Tracked:
            def __init__(self):
                with lock:
                    counts["now"] += 1
                    counts["most"] = max(counts["most"], counts["now"])

            def __del__(self):
                with lock:
                    counts["now"] -= 1

        def endless():
            for i in range(400):
                one = sample(LABELS, id=f"s{i}", meta={"tracked": Tracked()})
                yield i, one

        async def go():
            async for _ in drive(
                endless(), ClosedSet(rounds=1), answering(lambda r: "cat"), workers=2, block=5
            ):
                pass

        asyncio.run(go())
        assert counts["most"] <= (2 + 1 + 2 + 2) * 5  # in work, made ready, and results not yet taken

    def test_the_next_block_is_made_ready_meanwhile(self):
        events: list[str] = []

        def prepare(block):
            events.append(f"ready {block[0][0]}")
            return block

        async def respond(requests):
            events.append("asked")
            await asyncio.sleep(0.05)
            events.append("answered")
            return [CachedResponse(Response("cat"), "k", True) for _ in requests]

        asyncio.run(collect(samples(4), ClosedSet(rounds=1), respond, block=2, prepare=prepare))
        assert events.index("ready 2") < events.index("answered")

    def test_several_blocks_are_made_ready_at_once_and_taken_in_order(self):
        together = threading.Barrier(3, timeout=30)
        taken: list[int] = []

        def prepare(block):
            if block[0][0] < 3:
                together.wait()  # breaks unless the first three are made ready at the same time
            return block

        async def respond(requests):
            taken.extend(int(request.sample.id[1:]) for request in requests)
            return [CachedResponse(Response("cat"), "k", True) for _ in requests]

        named = ((i, sample(LABELS, id=f"s{i}")) for i in range(9))
        asyncio.run(collect(named, ClosedSet(rounds=1), respond, block=1, prepare=prepare, ahead=3))
        assert taken == list(range(9))

    @pytest.mark.parametrize("ahead", [1, 4])
    def test_the_data_set_runs_in_one_thread(self, ahead):
        threads = set()

        def source():
            for i in range(20):
                threads.add(threading.get_ident())
                yield i, sample(LABELS, id=f"s{i}")

        found = asyncio.run(
            collect(
                source(), ClosedSet(rounds=1), answering(lambda r: "cat"), block=2, workers=3, ahead=ahead
            )
        )
        assert sorted(item.position for item in found) == list(range(20))
        assert len(threads) == 1

    @pytest.mark.parametrize("where", ["samples", "prepare", "respond"])
    @pytest.mark.parametrize("workers", [1, 3])
    def test_what_raises_is_raised(self, where, workers):
        def broken_samples():
            yield from samples(3)
            if where == "samples":
                raise ImageError("broken")

        def prepare(block):
            if where == "prepare":
                raise ImageError("broken")
            return block

        def script(request):
            if where == "respond":
                raise ImageError("broken")
            return "cat"

        with pytest.raises(ImageError, match="broken"):
            asyncio.run(
                collect(
                    broken_samples(),
                    ClosedSet(rounds=1),
                    answering(script),
                    workers=workers,
                    block=1,
                    prepare=prepare,
                )
            )

    def test_two_faults_at_once_are_told_of_once(self, caplog):
        """The next block cannot be made ready, and the one before it cannot be answered: one error is raised,
        and nobody complains that the other was not looked at."""
        import gc

        def prepare(block):
            if block[0][0]:
                raise ImageError("broken")
            return block

        async def respond(requests):
            await asyncio.sleep(0.1)
            raise SnellenError("no answer")

        with pytest.raises(SnellenError, match="no answer"):
            asyncio.run(collect(samples(3), ClosedSet(rounds=1), respond, block=1, prepare=prepare))
        gc.collect()
        assert caplog.text == ""

    @pytest.mark.parametrize(
        ("examine", "message"),
        [
            (lambda sample: {}["x"], "failed on sample 's0' .KeyError"),
            (lambda sample: None, "ended sample 's0' without a Prediction"),
        ],
    )
    def test_a_protocol_that_fails(self, examine, message):
        class Odd(ClosedSet):
            def examine(self, sample):
                found = examine(sample)
                yield from ()
                return found

        with pytest.raises(SnellenError, match=f"The protocol 'closed-set' {message}"):
            asyncio.run(examine_block(samples(1), Odd(), answering(lambda r: "x")))

    def test_a_cancellation_from_within_does_not_hang(self):
        async def respond(requests):
            raise asyncio.CancelledError

        async def go():
            with pytest.raises(asyncio.CancelledError):
                await collect(samples(3), ClosedSet(rounds=1), respond, block=1)

        asyncio.run(asyncio.wait_for(go(), 20))
