"""Limit requests and tokens per minute: as the user says, or as the server's 429s tell."""

from __future__ import annotations

import asyncio
import math

__all__ = ["AdaptiveRate", "PerMinute"]

#: What is kept of the measured rate after a 429, and of the limit if nothing was answered since the last.
KEPT, BLIND = 0.9, 0.5
#: Growth of the limit per second, and per answer; both double every so many seconds without a 429.
PER_SECOND, PER_ANSWER, CALM = 0.01, 0.005, 10.0


class AdaptiveRate:
    """A limit on requests per second, which a server's 429s tell; none before the first.

    A 429 sets it to 0.9 of the answers per second since the last one; then it grows, slowly at first.
    Increase and decrease keep it close below the server's own limit, so that few requests are refused.
    """

    def __init__(self) -> None:
        self.per_second = math.inf
        self._since: float | None = None
        self._good = 0

    def next(self, now: float) -> float:
        """Return when another request may follow one at this time."""
        self._since = now if self._since is None else self._since
        return now + 1 / self.per_second

    def succeeded(self, now: float) -> None:
        """Record a good answer."""
        self._good += 1
        if self._since is not None and math.isfinite(self.per_second):
            calm = 1 + (now - self._since) / CALM
            self.per_second += calm * min(PER_SECOND, PER_ANSWER * self.per_second)

    def throttled(self, now: float) -> None:
        """Record a 429."""
        seconds = now - (self._since if self._since is not None else now)
        if self._good and seconds > 0:
            self.per_second = min(KEPT * self.per_second, KEPT * self._good / seconds)
        elif math.isfinite(self.per_second):
            self.per_second *= BLIND
        self._since, self._good = now, 0


class PerMinute:
    """Spread events evenly over time, so that no minute contains more than ``rate``.

    This is the generic cell rate algorithm (ITU-T I.371) without bursts.

    Args:
        rate: None for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._each = 60 / rate if rate else 0.0
        self._free = -math.inf

    def turn(self, amount: float = 1.0) -> float:
        """Reserve a turn for this amount; return the seconds until then."""
        if not self._each:
            return 0.0
        now = asyncio.get_running_loop().time()
        turn = max(now, self._free)
        self._free = turn + amount * self._each
        return turn - now

    def correct(self, amount: float) -> None:
        """Correct a reservation that turned out larger (or, below 0, smaller)."""
        self._free += amount * self._each
