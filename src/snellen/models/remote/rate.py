"""Limit concurrent requests and requests per minute."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from snellen.errors import Stopped

__all__ = ["Concurrency", "PerMinute"]

#: The gain in throughput that a doubling must bring to be followed by another.
WORTH = 1.1
#: Rounds without growth before growth is retried.
ROUNDS = 10


class Concurrency:
    """A self-adjusting limit on concurrent requests.

    It starts at ``first`` and doubles after each round (as many good answers as the limit, while the
    limit is in use), as long as throughput increases, so that a server that only queues requests is not
    overloaded. On a 429, it drops to 0.8 of its value, once for all requests in flight, and then grows by
    a tenth per round. Slow start and multiplicative decrease follow TCP (RFC 5681).

    Args:
        most: the upper bound.
        first: the initial limit.
        clock: returns seconds.
    """

    def __init__(self, most: int, first: int = 16, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.limit = most, float(min(first, most))
        self.under_way = 0
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._resume = 0.0  # nothing starts before
        self._stopped = False
        self._gentle = False  # the server has sent a 429
        self._cut = -math.inf  # when it last did
        self._rate = 0.0  # throughput before the last growth
        self._held = 0
        self._new_round()

    def _new_round(self) -> None:
        self._good, self._full, self._began = 0, False, self._clock()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until another request may start.

        Raises:
            Stopped: no more may start, see :meth:`stop`.
        """
        await self._enter()
        try:
            yield
        finally:
            self.under_way -= 1
            self._wake()

    async def _enter(self) -> None:
        if self._stopped:
            raise Stopped("The run was stopped.")
        if self._waiting or not self._free():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            self._wake()
            try:
                await turn  # whoever wakes it has already taken its slot
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    self.under_way -= 1
                self._wake()
                raise
        else:
            self._take()

    def _free(self) -> bool:
        return self.under_way < int(self.limit) and self._clock() >= self._resume

    def _take(self) -> None:
        self.under_way += 1
        self._full = self._full or self.under_way >= int(self.limit)

    def _wake(self) -> None:
        while self._waiting and self._free():
            turn = self._waiting.popleft()
            if not turn.done():
                self._take()
                turn.set_result(None)

    def succeeded(self) -> None:
        """Record a good answer."""
        self._good += 1
        if self._good < int(self.limit) or not self._full:
            return
        rate = self._good / max(self._clock() - self._began, 1e-9)
        self._held += 1
        if self._gentle:
            self._grow(1.1 * self.limit + 1, rate)
        elif rate > WORTH * self._rate or self._held > ROUNDS:
            self._grow(2 * self.limit, rate)
        self._new_round()

    def _grow(self, limit: float, rate: float) -> None:
        self.limit, self._rate, self._held = min(float(self.most), limit), rate, 0
        self._wake()

    def throttled(self, began: float) -> None:
        """Record a 429, with the start time of its request (by the clock)."""
        if began > self._cut:
            self.limit = max(1.0, 0.8 * self.limit)
            self._gentle, self._cut = True, self._clock()
        self._new_round()

    def pause(self, seconds: float) -> None:
        """Start no request for this many seconds."""
        self._resume = max(self._resume, self._clock() + seconds)
        asyncio.get_running_loop().call_later(seconds + 0.001, self._wake)

    def stop(self) -> None:
        """Start no more requests."""
        self._stopped = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(Stopped("The run was stopped."))


class PerMinute:
    """Spread events evenly over time, so that no minute contains more than ``rate``.

    This is the generic cell rate algorithm (ITU-T I.371) without bursts.

    Args:
        rate: None for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._each = 60 / rate if rate else 0.0
        self._free = 0.0

    def turn(self, amount: float = 1.0) -> float:
        """Reserve a turn for this amount; return the seconds until then."""
        if not self._each:
            return 0.0
        now = time.monotonic()
        turn = max(now, self._free)
        self._free = turn + amount * self._each
        return turn - now

    def correct(self, amount: float) -> None:
        """Correct a reservation that turned out larger (or, below 0, smaller)."""
        self._free += amount * self._each
