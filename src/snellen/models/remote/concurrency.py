"""The number of requests that a server answers best, found from its answers."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from snellen.errors import Stopped
from snellen.models.remote.rate import AdaptiveRate

__all__ = ["Concurrency"]

#: Requests at the start. More could each wait for the others, on a server that answers one at a time.
START = 4
#: By which the limit grows while each growth pays; and once the server has been overloaded.
FAST, GENTLE = 2.0, 1.25
#: A growth by a share is kept if throughput grows by this part of it, in the first or second round.
GAIN, TRIALS = 0.1, 2
#: Rounds until the next growth is tried after one that did not pay; doubled each time, up to so many.
PATIENCE, MOST_PATIENCE = 10, 160
#: The part of the timeout that answers may take.
LATE = 0.7
#: A 429 at so many cuts without a good round in between means that requests per second count.
STRIKES = 3
#: Answers whose times are remembered.
RECENT = 256
#: The most seconds for which a server is left alone after a timeout.
REST = 30.0
#: What is left of the limit after a timeout, and after a 429.
CUT, THROTTLE = 0.5, 0.8


class _Trial(NamedTuple):
    """A growth that has yet to pay: what was before."""

    limit: float
    rate: float
    rounds: int


class Concurrency:
    """A self-adjusting limit on concurrent requests.

    A round is as many good answers as the limit, while it is in use. After each, the limit is doubled, as
    long as the answers per second grow with it; if they do not, it goes back, and the next growth is tried
    much later. So a server that only queues requests is not buried. It also grows no further than answers
    would stay well within the timeout, if the time that they take is due to those ahead of them (the time
    of the fastest answer tells). Timeouts halve the limit; a 429 takes a fifth, and if they go on, requests
    are spread to the rate at which answers came (:class:`~snellen.models.remote.rate.AdaptiveRate`). A server
    that cannot be reached is tried with one request at a time, at growing intervals.

    Slow start and multiplicative decrease follow TCP (RFC 5681), the inference of a queue from the fastest
    answer TCP Vegas (Brakmo et al. 1994).

    Args:
        most: the upper bound.
        first: the initial limit.
        timeout: of one request, in seconds.
    """

    def __init__(self, most: int, first: int = START, timeout: float = math.inf) -> None:
        self.most, self.limit = most, float(min(first, most))
        self.under_way = 0
        self._first, self._timeout = self.limit, timeout
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._per_second = AdaptiveRate()
        self._resume = -math.inf  # nothing starts before
        self._alarm: asyncio.TimerHandle | None = None
        self._stopped = False
        self._factor = FAST
        self._cut = self._answered = -math.inf  # when the limit was last cut, and the last good answer came
        self._trial: _Trial | None = None
        self._hold, self._patience = 0, PATIENCE
        self._fastest = math.inf
        self._moments: deque[float] = deque(maxlen=RECENT)  # of the last answers
        self._down: float | None = None  # since when
        self.probes = 0  # attempts since it could not be reached
        self._strikes = 0
        self._new_round()

    def _new_round(self) -> None:
        self._began: float | None = None
        self._good, self._seconds, self._full = 0, 0.0, False

    # ── entering ────────────────────────────────────────────────────────────────────────────────────

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
        return self.under_way < int(self.limit) and _now() >= self._resume

    def _take(self) -> None:
        self.under_way += 1
        self._full = self._full or self.under_way >= int(self.limit)
        self._began = _now() if self._began is None else self._began
        self._resume = max(self._resume, self._per_second.next(_now()))

    def _wake(self) -> None:
        while self._waiting and self._free():
            turn = self._waiting.popleft()
            if not turn.done():
                self._take()
                turn.set_result(None)
        if self._waiting and self._resume > _now():
            if self._alarm is not None:
                self._alarm.cancel()
            # A moment later, since clocks are coarse.
            self._alarm = asyncio.get_running_loop().call_at(self._resume + 0.001, self._wake)

    # ── what the server does ────────────────────────────────────────────────────────────────────────

    def succeeded(self, seconds: float) -> None:
        """Record a good answer, and the seconds that it took."""
        now = _now()
        self._answered = now
        self._moments.append(now)
        self._per_second.succeeded(now)
        self._fastest = min(self._fastest, max(seconds, 1e-6))  # clocks may be coarse
        if self._down is not None:
            self._down, self.probes, self.limit = None, 0, self._first
            self._new_round()
            self._wake()
            return
        self._good += 1
        self._seconds += seconds
        if self._good < int(self.limit) or not self._full:
            return
        began = self._began if self._began is not None else now
        self._adjust(self._good / max(now - began, 1e-9), self._seconds / self._good)
        self._new_round()
        self._began = now
        self._wake()

    def _adjust(self, rate: float, latency: float) -> None:
        """Set the limit after a round with these answers per second, and seconds per answer."""
        self._strikes = 0
        if latency > LATE * self._timeout and self.limit > 1:
            self._shrink(LATE)
            return
        if self._trial is not None:
            before, slower, rounds = self._trial
            if rate < slower * (1 + GAIN * (self.limit / before - 1)):
                self._trial = _Trial(before, slower, rounds + 1)
                if rounds + 1 >= TRIALS:
                    self.limit = before
                    self._give_it_time()
                return
            self._trial, self._patience = None, PATIENCE
        if self._hold > 0:
            self._hold -= 1
            return
        limit = self._larger(latency)
        if limit > self.limit:
            self._trial = _Trial(self.limit, rate, 0)
            self.limit = limit

    def _larger(self, latency: float) -> float:
        """Return the next limit: as far as answers would come in time."""
        limit = self.limit
        wanted = max(limit * self._factor, limit + 1)
        queued = min(max((latency / self._fastest - 1) / (limit - 1), 0.0), 1.0) if limit > 1 else 1.0
        if queued > 0 and latency > 0:
            wanted = min(wanted, limit * (1 + (LATE * self._timeout / latency - 1) / queued))
        return min(float(self.most), wanted) if wanted >= limit + 1 else limit

    def _give_it_time(self) -> None:
        self._trial, self._hold = None, self._patience
        self._patience = min(2 * self._patience, MOST_PATIENCE)

    def _shrink(self, to: float) -> None:
        self.limit = max(1.0, to * self.limit)
        self._factor, self._cut = GENTLE, _now()
        self._give_it_time()

    def timed_out(self, began: float) -> None:
        """Record a request without an answer in time, with its start; the server may still work on it."""
        if began > self._cut:
            if sum(moment > began for moment in self._moments) < self.limit:
                self.pause(min(LATE * self._timeout, REST))  # it works on what nobody waits for any more
            self._shrink(CUT)
        self._new_round()

    def throttled(self, began: float) -> None:
        """Record a 429, with the start time of its request; those that were under way then tell no more."""
        if began > self._cut:
            self._shrink(THROTTLE)
            self._strikes += 1
            if self._strikes >= STRIKES or self.limit < 2:
                self._per_second.throttled(_now())
        self._new_round()

    def unavailable(self, began: float, first_wait: float, longest_wait: float) -> None:
        """Record that the server could not be reached, or is overloaded; with the start of the request."""
        if self._answered > began:  # others were answered meanwhile
            if began > self._cut:
                self._shrink(THROTTLE)
        elif began > self._cut or self._down is None:
            self._down = _now() if self._down is None else self._down
            self._cut = _now()
            self.limit, self._factor, self._trial, self._hold = 1.0, FAST, None, 0
            self.pause(min(longest_wait, first_wait * 2**self.probes))
            self.probes += 1
        self._new_round()

    @property
    def down_for(self) -> float:
        """The seconds for which the server has not been reached; 0 if it is there."""
        return 0.0 if self._down is None else _now() - self._down

    def pause(self, seconds: float) -> None:
        """Start no request for this many seconds."""
        self._resume = max(self._resume, _now() + seconds)
        self._wake()

    def stop(self) -> None:
        """Start no more requests."""
        self._stopped = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(Stopped("The run was stopped."))


def _now() -> float:
    return asyncio.get_running_loop().time()
