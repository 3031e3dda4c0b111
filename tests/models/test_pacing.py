"""A client that never buries a server: servers of several kinds, on a clock that jumps."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import tenacity.wait

from snellen.errors import Stopped
from snellen.models.base import MODELS, Budget, Limits
from snellen.models.remote.base import RemoteModel
from snellen.models.remote.concurrency import START, Concurrency
from snellen.models.remote.retry import RequestError, RetryPolicy
from snellen.types import Outcome, Request, Response, ask


class Jumping(selectors.DefaultSelector):
    """Waits in no time: its clock jumps to the next event."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everything waits for something that never happens")
        self.now += max(0.0, timeout)
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = Jumping()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


Answer = Callable[[], Awaitable[None]]


class Simulated(RemoteModel):
    """Asks a server that is a coroutine; counts what it receives."""

    def __init__(self, answer: Answer, **policy: Any) -> None:
        super().__init__("simulated:x", "http://localhost", RetryPolicy(**policy))
        self._answer = answer
        self.received = self.most = self._now = 0

    async def ask(self, request: Request) -> Response:
        await self.send(None)
        return Response("star")

    async def send_once(self, payload: Any) -> Mapping[str, Any]:
        self.received += 1
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await self._answer()
        finally:
            self._now -= 1
        return {}

    def identity(self) -> Mapping[str, Any]:
        return {}

    def encode(self, image: Any) -> Any:
        raise NotImplementedError  # its requests have no images

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[None]:
        yield


def run(model: Simulated, questions: int) -> tuple[list[Response], float]:
    """Ask so many questions; the replies, and the seconds until the last."""

    async def go() -> list[Response]:
        async with model.connected():
            return await model.respond([ask((), f"{i}?") for i in range(questions)])

    with asyncio.Runner(loop_factory=Loop) as runner:
        replies = runner.run(go())
        return replies, runner.get_loop().time()


@pytest.fixture(autouse=True)
def luck(monkeypatch):
    monkeypatch.setattr(tenacity.wait, "random", random.Random(7))


#: Seconds in which a server says no.
NO = 0.05


def serial(seconds: float) -> Answer:
    """One answer after another; it works on, though nobody waits any more."""
    free = 0.0

    async def answer() -> None:
        nonlocal free
        now = asyncio.get_running_loop().time()
        free = max(free, now) + seconds
        await asyncio.sleep(free - now)

    return answer


def batching(fixed: float, each: float) -> Answer:
    """All at once, each slower the more there are."""
    inside = 0

    async def answer() -> None:
        nonlocal inside
        inside += 1
        try:
            await asyncio.sleep(fixed + each * inside)
        finally:
            inside -= 1

    return answer


def uneven(answer: Callable[[float], Answer], seconds: float) -> Answer:
    """Answers of very different lengths, around a mean."""
    luck = random.Random(3)
    one = {length: answer(length) for length in [seconds * x for x in (0.1, 0.3, 0.6, 1, 1.5, 2.5)]}

    async def go() -> None:
        await luck.choice(list(one.values()))()

    return go


def pool(size: int, seconds: float, most: int = 10**9) -> Answer:
    """So many at once, the others wait; from ``most`` on they are sent away."""
    slots: asyncio.Semaphore | None = None
    inside = 0

    async def answer() -> None:
        nonlocal slots, inside
        slots = slots or asyncio.Semaphore(size)
        if inside >= most:
            await asyncio.sleep(NO)
            raise RequestError("429 too many", 429)
        inside += 1
        try:
            async with slots:
                await asyncio.sleep(seconds)
        finally:
            inside -= 1

    return answer


def bucket(per_second: float, burst: float, seconds: float) -> Answer:
    """So many a second, with a burst; others get a 429."""
    tokens, last = burst, 0.0

    async def answer() -> None:
        nonlocal tokens, last
        now = asyncio.get_running_loop().time()
        tokens, last = min(burst, tokens + (now - last) * per_second), now
        if tokens < 1:
            await asyncio.sleep(NO)
            raise RequestError("429 slow down", 429)
        tokens -= 1
        await asyncio.sleep(seconds)

    return answer


def away(answer: Answer, begin: float, end: float, *, refused: bool = True) -> Answer:
    """Not there for a while: connections are refused, or a proxy says 503; what was asked is lost."""

    async def go() -> None:
        loop = asyncio.get_running_loop()
        if begin <= loop.time() < end:
            raise RequestError("503", None if refused else 503, unavailable=refused)
        try:
            async with asyncio.timeout_at(begin if loop.time() < begin else None):
                await answer()
        except TimeoutError:
            raise RequestError("the connection broke", billed=True) from None

    return go


#: The server, the number of questions, the seconds that a perfect client needs, and the policy.
SERVERS: dict[str, tuple[Callable[[], Answer], int, float, dict[str, Any]]] = {
    "one at a time": (lambda: serial(1.0), 280, 280, {}),
    "one at a time, little patience": (lambda: serial(0.4), 60, 24, {"timeout": 3}),
    "one at a time, very little patience": (lambda: serial(2.0), 40, 80, {"timeout": 4.5}),
    "slower than its timeout allows two": (lambda: serial(2.0), 40, 80, {"timeout": 3}),
    "ten at once": (lambda: pool(10, 1.0), 400, 40, {}),
    "a hundred at once": (lambda: pool(100, 2.0), 4000, 80, {}),
    "the more the better": (lambda: batching(0.5, 0.02), 4000, 4000 / (128 / (0.5 + 0.02 * 128)), {}),
    "as many as one likes, uneven": (lambda: uneven(lambda s: pool(999, s), 2.0), 4000, 4000 / 128 * 2.0, {}),
    "long answers": (lambda: pool(64, 60.0), 1000, 16 * 60, {"timeout": 200}),
    "five at once, others sent away": (lambda: pool(5, 1.0, 5), 300, 60, {}),
    "ten a second": (lambda: bucket(10, 10, 0.3), 1000, 100, {}),
    "one a second": (lambda: bucket(1, 20, 0.5), 300, 280, {}),
    "restarting": (lambda: away(serial(0.5), 30, 210), 280, 140 + 180, {}),
    "restarting behind a proxy": (lambda: away(pool(16, 1.0), 10, 190, refused=False), 600, 40 + 180, {}),
}


@pytest.mark.parametrize("name", SERVERS)
def test_every_question_is_answered_with_few_requests_in_good_time(name):
    server, questions, ideal, policy = SERVERS[name]
    model = Simulated(server(), **policy)
    replies, seconds = run(model, questions)
    assert {reply.outcome for reply in replies} == {Outcome.OK}, [r.reason for r in replies if r.reason][:3]
    assert model.received <= 1.2 * questions, (model.received, seconds)
    assert seconds <= 1.3 * ideal, (model.received, seconds)


def test_a_server_that_only_queues_holds_few():
    model = Simulated(serial(1.0))
    run(model, 1000)
    assert model.most <= 8


def test_one_request_that_hangs_holds_nobody_up():
    """Others are answered meanwhile."""
    asked = 0

    async def answer() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(3600 if asked == 5 else 1.0)

    model = Simulated(answer)
    replies, seconds = run(model, 400)
    assert {reply.outcome for reply in replies} == {Outcome.OK}
    assert seconds < 130  # the timeout, and one try more


def test_the_limit_of_the_user_is_kept():
    model = Simulated(pool(1000, 1.0))
    model.limits = Limits(max_concurrency=3)
    run(model, 100)
    assert model.most == 3


def test_an_address_where_nothing_answers_is_given_up_soon():
    async def nobody() -> None:
        raise RequestError("refused", unavailable=True)

    model = Simulated(nobody)
    with pytest.raises(Stopped, match="cannot be reached"):
        run(model, 50)
    assert model.received <= 8 + 4


def test_a_server_that_never_comes_back_is_given_up_after_the_deadline():
    model = Simulated(away(serial(0.1), 1.0, 10**9), total_timeout=300)

    async def go() -> float:
        async with model.connected():
            with pytest.raises(Stopped, match="cannot be reached"):
                await model.respond([ask((), f"{i}?") for i in range(50)])
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert 300 < runner.run(go()) < 400


def test_who_waits_is_told(monkeypatch):
    model = Simulated(away(serial(0.1), 1.0, 61.0))
    said = []

    async def go() -> None:
        async with model.connected():
            asked = asyncio.create_task(model.respond([ask((), f"{i}?") for i in range(50)]))
            while not asked.done():
                await asyncio.sleep(5)
                said.append(model.status())
            assert {reply.outcome for reply in await asked} == {Outcome.OK}

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(go())
    assert any("server away for 3" in line for line in said)


def test_it_does_not_grow_while_it_is_not_in_use():
    async def go() -> float:
        pace = Concurrency(1000)
        for _ in range(100):
            async with pace.slot():
                await asyncio.sleep(1)
            pace.succeeded(1.0)
        return pace.limit

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(go()) == START


def test_it_never_falls_below_one():
    async def go() -> float:
        pace = Concurrency(10)
        for hurt in [pace.throttled, pace.timed_out] * 50:
            await asyncio.sleep(1)
            hurt(asyncio.get_running_loop().time())
            await asyncio.sleep(1)
        return pace.limit

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(go()) == 1


def test_models_that_share_a_budget_wait_for_each_other():
    """One waits as the other's request could use up the rest; when that is settled, it goes on."""
    budget = Budget(1.0)
    limits = Limits(budget=budget)
    models = [MODELS.make("openai:any?base_url=http://127.0.0.1:9/v1&price_in=1&price_out=1") for _ in "ab"]
    first, second = (model for model in models if isinstance(model, RemoteModel))
    first.limits = second.limits = limits

    async def both() -> float:
        reserved = await first.reserve(600_000, 0, False)
        waiting = asyncio.create_task(second.reserve(600_000, 0, False))
        while not budget.waiting.get(id(second)):
            await asyncio.sleep(0)
        assert not waiting.done()
        first.settle(reserved, 0.1)
        return await asyncio.wait_for(waiting, 10)

    assert asyncio.run(both()) == pytest.approx(0.6)
    assert budget.spent == pytest.approx(0.1)
