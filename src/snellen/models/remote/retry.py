"""Retry rules: which errors to retry, how often, and for how long."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from snellen._util.redaction import redact
from snellen.errors import BadOption

__all__ = ["RequestError", "RetryPolicy", "Tries"]

#: Statuses worth a retry. All others from 400 to 499 mean that the request itself is rejected.
RETRIED = frozenset({408, 409, 425, 429})


class RequestError(Exception):
    """A failed attempt.

    Args:
        reason: in words, without secrets.
        status: the HTTP status, if there was one.
        billed: whether the server may charge for it: it received the request and did not refuse it.
        after: the server's Retry-After in seconds.
        again: whether to retry; by default depending on the status.
    """

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        after: float | None = None,
        again: bool | None = None,
        billed: bool = False,
    ) -> None:
        super().__init__(redact(reason))
        self.status, self.after, self.billed = status, after, billed
        retried = status is None or status in RETRIED or status >= 500
        self.again = retried if again is None else again


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How to deal with a server; none of it changes answers.

    Args:
        timeout: seconds for one attempt.
        total_timeout: seconds for a request with all its attempts, from the first one on.
        tries: the most attempts per request.
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
    """The attempts of one request: the time of the first, and the waiting time of later ones, which does
    not count.
    """

    began: float | None = None
    waited: float = 0.0

    def spent(self) -> float:
        """The seconds that count."""
        return 0.0 if self.began is None else time.monotonic() - self.began - self.waited
