"""Tries at a server: what may fail, when another one helps, and how long all of them may take."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from snellen._util.redaction import redact
from snellen.errors import BadOption

__all__ = ["RequestError", "RetryPolicy", "Tries"]

#: Statuses that another try may mend. All others of 400 to 499 say that the request itself is refused.
RETRIED = frozenset({408, 409, 425, 429})


class RequestError(Exception):
    """A try that brought no answer.

    Args:
        reason: in words, without secrets.
        status: of HTTP, where there was one.
        billed: whether the server may ask to be paid for it: it was given the request, and did not refuse.
        after: seconds for which the server asked for patience.
        again: whether another try may help; by default as the status says.
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
    """How a server is dealt with; changes no answer.

    Args:
        timeout: seconds for one try.
        total_timeout: seconds for a request with all its tries, from the first one on.
        tries: how many a request has at most.
        max_consecutive_failures: failures in a row, each after all its tries, that end the run.
        requests_per_minute, tokens_per_minute: what is not exceeded.

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
    """The tries of one request: when the first began, and how long later ones waited for their turn, which
    does not count.
    """

    began: float | None = None
    waited: float = 0.0

    def spent(self) -> float:
        """Seconds that count."""
        return 0.0 if self.began is None else time.monotonic() - self.began - self.waited
