"""Retry rules: which errors to retry, how often, and for how long."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from snellen._util.redaction import redact
from snellen.errors import BadOption

__all__ = ["RequestError", "RetryPolicy", "Tries"]

#: Statuses worth a retry. All others from 400 to 499 mean that the request itself is rejected.
RETRIED = frozenset({408, 409, 425, 429})
#: Statuses of a server that is away, starting, or overloaded.
UNAVAILABLE = frozenset({502, 503, 504, 529})


class RequestError(Exception):
    """A failed attempt.

    Args:
        reason: in words, without secrets.
        status: the HTTP status, if there was one.
        billed: whether the server may charge for it: it received the request and did not refuse it.
        after: the server's Retry-After in seconds.
        again: whether to retry; by default depending on the status.
        unavailable: whether the server could not be reached; by default depending on the status.
        stop: whether all further requests would fail, whatever has been answered.
    """

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        after: float | None = None,
        again: bool | None = None,
        billed: bool = False,
        unavailable: bool = False,
        stop: bool = False,
    ) -> None:
        super().__init__(redact(reason))
        self.status, self.after, self.billed, self.stop = status, after, billed, stop
        retried = status is None or status in RETRIED or status >= 500
        self.again = retried if again is None else again
        self.unavailable = self.again and (unavailable or status in UNAVAILABLE)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How to deal with a server; none of it changes answers.

    Args:
        timeout: seconds for one attempt.
        total_timeout: seconds for a request with all its attempts, from the first one on; also for a server
            to come back.
        tries: the most attempts per request, not counting those while the server could not be reached.
        max_consecutive_failures: failed requests in a row, each after all attempts, that end the run.
        requests_per_minute, tokens_per_minute: rate limits.

    Raises:
        BadOption: a value that is not above 0.
    """

    timeout: float = 120.0
    total_timeout: float = 600.0
    tries: int = 8
    max_consecutive_failures: int = 20
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0 < value < math.inf:
                raise BadOption(f"{name}={value:g} is not allowed; allowed: above 0.")


@dataclass
class Tries:
    """The attempts of one request: how many count, the time of the first, and the waiting time of later
    ones, which does not count.
    """

    counted: int = 0
    began: float | None = None
    waited: float = 0.0

    def spent(self) -> float:
        """The seconds that count."""
        return 0.0 if self.began is None else asyncio.get_running_loop().time() - self.began - self.waited
