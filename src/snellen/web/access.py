"""Who may see what: the host everything, voters the arena, each after logging in once."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from contextvars import ContextVar
from enum import StrEnum

__all__ = ["ROLE", "Role", "Sessions", "same", "within_arena"]


class Role(StrEnum):
    """Who a request is from."""

    HOST = "host"
    VOTER = "voter"


#: Who the request under way is from.
ROLE: ContextVar[Role] = ContextVar("role", default=Role.HOST)
#: What voters may open: nothing of it tells which model gave an answer.
_ARENA = ("/arena", "/ranking", "/logout")


def within_arena(path: str) -> bool:
    """Return whether a path belongs to the arena.

    >>> within_arena("/arena/battles/x"), within_arena("/ranking.json"), within_arena("/arenas")
    (True, True, False)
    """
    return any(path == start or path.startswith((f"{start}/", f"{start}.")) for start in _ARENA)


def same(given: str, secret: str | None) -> bool:
    """Compare with a secret in constant time; False if there is none."""
    return secret is not None and hmac.compare_digest(given.encode(), secret.encode())


class Sessions:
    """Logins of browsers: a random cookie each, of which only the hash stays in memory.

    Args:
        most: the number of logins kept; those not used for longest end first.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._roles: OrderedDict[str, Role] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, role: Role) -> str:
        """Log a browser in; return its cookie."""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._roles[_hash(cookie)] = role
            if len(self._roles) > self._most:
                self._roles.popitem(last=False)
        return cookie

    def role(self, cookie: str) -> Role | None:
        """Return who a cookie belongs to; None if it is unknown, or logged out."""
        with self._lock:
            if (role := self._roles.get(_hash(cookie))) is not None:
                self._roles.move_to_end(_hash(cookie))
        return role

    def end(self, cookie: str) -> None:
        """Log a browser out."""
        with self._lock:
            self._roles.pop(_hash(cookie), None)


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
