"""Access control of the web app: addresses, origins, tokens, sizes, rates, and response headers."""

from __future__ import annotations

import ipaddress
import math
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.requests import cookie_parser

from snellen.errors import BadOption
from snellen.web.access import ROLE, Role, Sessions, same, within_arena

__all__ = [
    "HEADERS",
    "Policy",
    "Rates",
    "SecurityMiddleware",
    "cookie_of",
    "cookies",
    "is_loopback",
    "login_cookie",
]

Scope = MutableMapping[str, Any]
AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Headers of every response: nothing is loaded from elsewhere, no inline script runs, no framing.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
#: Paths that need no token: the login page and its style sheet.
_OPEN = ("/login", "/static/", "/health")
_SAFE = frozenset({"GET", "HEAD"})
_HIDDEN = (
    "While people vote here, only the arena is shown: anything else could tell which model gave an answer. "
    "Its host can look at the workspace elsewhere (snellen view), or start the arena with: --with-results"
)


def is_loopback(host: str) -> bool:
    """Return whether an address is a loopback address.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Policy:
    """The access policy.

    Args:
        host: the bound address.
        token: the host's access token; required for an address that other machines can reach. None: everyone
            is the host.
        voter_token: what admits to the arena alone.
        invites: the same, each for one voter.
        results: whether the host may see runs and their samples. Not while people vote on them.
        hosts: additional hostnames (behind a reverse proxy).
        max_body: the most bytes per request.

    Raises:
        BadOption: a missing token for a reachable address, or one too short to be secret.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    hosts: tuple[str, ...] = ()
    max_body: int = 17 * 2**20
    voter_token: str | None = None
    invites: tuple[str, ...] = ()
    results: bool = True
    sessions: Sessions = field(default_factory=Sessions, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise BadOption(
                f"--host {self.host}: other machines can reach this address, so a token is required: set "
                "$SNELLEN_TOKEN (or --token) to 16 characters or more, such as what `openssl rand -hex 16` "
                "prints."
            )
        if self.token is not None and len(self.token) < 16:
            raise BadOption("--token: too short to be secret; allowed: 16 characters or more.")

    @property
    def names(self) -> frozenset[str]:
        """The hostnames that it answers to."""
        own = {"localhost", "127.0.0.1", "[::1]", *self.hosts}
        if self._everywhere:
            own.add(socket.gethostname())
        else:
            own.add(f"[{self.host}]" if ":" in self.host else self.host)
        return frozenset(name.lower() for name in own)

    @property
    def _everywhere(self) -> bool:
        """Whether all addresses of this machine are bound. Requests to bare addresses are then allowed,
        since only names can be rebound to another address.
        """
        return self.host in ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound

    def role_of(self, given: str) -> Role | None:
        """Return whose token this is; None if it is nobody's."""
        if same(given, self.token):
            return Role.HOST
        if same(given, self.voter_token) or any(same(given, invite) for invite in self.invites):
            return Role.VOTER
        return None

    def role(self, headers: Mapping[str, str], cookie: str) -> Role | None:
        """Return who sent a request, by its token, ``Authorization: Bearer …``, or the cookie of its login;
        None if that is unknown.
        """
        if self.token is None:
            return Role.HOST
        if (role := self.role_of(bearer_of(headers))) is not None:
            return role
        return self.sessions.role(cookies(headers).get(cookie, ""))

    def shows(self, role: Role, path: str) -> bool:
        """Return whether somebody may open a path."""
        return path.startswith(_OPEN) or within_arena(path) or (self.results and role is Role.HOST)

    def refusal(self, method: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Return why a request is refused regardless of login: status and reason; None if it is not.

        The ``Host`` must be one of ours (against DNS rebinding), and requests that change anything must
        come from our own pages.
        """
        host = headers.get("host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name not in self.names and not (self._everywhere and _is_address(name)):
            return 421, (
                f"This server does not answer to the name {name[:100]!r}. To allow it, start it with: "
                f"--allow-host {name[:100]}"
            )
        site = headers.get("sec-fetch-site")
        if method in _SAFE:
            navigates = headers.get("sec-fetch-mode") in (None, "navigate")
            foreign = site in ("cross-site", "same-site") and not navigates
            return (403, "Other sites may only link to this page.") if foreign else None
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host:
            return 403, "The request comes from another site."
        if site not in (None, "same-origin", "none"):
            return 403, "The request comes from another site."
        return None


def cookies(headers: Mapping[str, str]) -> dict[str, str]:
    """Parse cookies by name, tolerating those of other apps on this machine."""
    return cookie_parser(headers.get("cookie", ""))


def bearer_of(headers: Mapping[str, str]) -> str:
    """Return the token of ``Authorization: Bearer …``; empty if there is none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def cookie_of(scope: Scope) -> str:
    """Return the name of the login's cookie. Browsers share cookies between the ports of a host, so it has
    the port in it.
    """
    return f"snellen_session_{(scope.get('server') or ('', 0))[1]}"


def login_cookie(scope: Scope, value: str) -> str:
    """Return the header that logs a browser in. ``lax``: links from elsewhere, such as a mail's, find it."""
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return f"{cookie_of(scope)}={value}; HttpOnly; Path=/; SameSite=lax{secure}"


class SecurityMiddleware:
    """ASGI middleware that applies a policy before anything else sees a request."""

    def __init__(self, app: App, policy: Policy, rates: Rates | None = None) -> None:
        self.app, self.policy, self.rates = app, policy, rates or Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on with response headers added and the body size limited."""
        # Long: one algorithm whose steps share nearly all of its state.
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not supported")
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}

        login = ""

        async def send_with_headers(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                if login:
                    message["headers"] = [*message["headers"], (b"set-cookie", login.encode())]
                known = {name.lower() for name, _ in message["headers"]}
                more = {"cache-control": "no-store", **HEADERS}
                message["headers"] = list(message["headers"]) + [
                    (name.encode(), value.encode())
                    for name, value in more.items()
                    if name.encode() not in known
                ]
            await send(message)

        refused = self.policy.refusal(scope["method"], headers)
        length = headers.get("content-length", "0")
        if refused is None and (not length.isdecimal() or int(length) > self.policy.max_body):
            refused = 413, self._too_large
        if refused is not None:
            await _plain(send_with_headers, *refused)
            return
        path, query = scope["path"], scope.get("query_string", b"").decode("latin-1")
        parameters = dict(parse_qsl(query))
        reads = scope["method"] in _SAFE
        if seconds := self._guessed(scope, headers, parameters):
            wait = {"retry-after": str(math.ceil(seconds))}
            await _plain(send_with_headers, 429, "Too many wrong tokens. Try again in a minute.", wait)
            return
        role = self.policy.role(headers, cookie_of(scope))
        invited = self.policy.role_of(parameters.get("invite", "")) if reads else None
        if reads and (linked := self.policy.role_of(parameters.get("token", ""))) is not None:
            # The token leaves the address bar at once, for a cookie.
            rest = urlencode({name: value for name, value in parameters.items() if name != "token"})
            more = {"location": quote(path) + (f"?{rest}" if rest else "")}
            await _plain(
                send_with_headers,
                303,
                "Logged in.",
                more | {"set-cookie": login_cookie(scope, self.policy.sessions.begin(linked))},
            )
            return
        if role is None and invited is not None:
            role, login = invited, login_cookie(scope, self.policy.sessions.begin(invited))
        if role is None and not path.startswith(_OPEN):
            if reads and "text/html" in headers.get("accept", ""):
                target = quote(f"{path}?{query}" if query else path)
                await _plain(send_with_headers, 303, "Log in first.", {"location": f"/login?next={target}"})
            else:
                await _plain(send_with_headers, 401, "A token is required.", {"www-authenticate": "Bearer"})
            return
        if role is not None and not self.policy.shows(role, path):
            if path == "/":
                await _plain(send_with_headers, 303, "To the arena.", {"location": "/arena"})
            else:
                await _plain(send_with_headers, 403, _HIDDEN)
            return
        ROLE.set(role or Role.VOTER)
        taken, begun = 0, False

        async def counted() -> AsgiMessage:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.policy.max_body:  # an endless body of unknown length
                raise _TooLarge
            return message

        async def watched(message: AsgiMessage) -> None:
            nonlocal begun
            if (
                taken <= self.policy.max_body or begun
            ):  # the app's error about a truncated body is not the cause
                begun = True
                await send_with_headers(message)

        try:
            await self.app(scope, counted, watched)
        except _TooLarge:
            pass
        except Exception:
            if not begun:  # otherwise it is logged, and the error page is on its way
                raise
        if not begun:
            await _plain(send_with_headers, 413, self._too_large)

    def _guessed(self, scope: Scope, headers: Mapping[str, str], parameters: Mapping[str, str]) -> float:
        """Count a wrong token in an address or a header like a wrong login. Returns the seconds for which the
        client's tokens, right ones too, are refused; 0 if they are not.
        """
        given = (parameters.get("token"), parameters.get("invite"), bearer_of(headers))
        tokens = [token for token in given if token]
        inside = self.policy.sessions.role(cookies(headers).get(cookie_of(scope), "")) is not None
        if self.policy.token is None or not tokens or inside:
            return 0.0
        client = (scope.get("client") or ("",))[0]
        if all(self.policy.role_of(token) is not None for token in tokens):
            return self.rates.left("login", client)
        return self.rates.wait("login", client)

    @property
    def _too_large(self) -> str:
        return f"The limit is {self.policy.max_body / 2**20:.0f} MiB. Go back and choose a smaller image."


class _TooLarge(Exception):
    """A body that exceeds the limit."""


async def _plain(send: Send, status: int, text: str, more: Mapping[str, str] | None = None) -> None:
    headers = {"content-type": "text/plain; charset=utf-8", **(more or {})}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": text.encode() + b"\n"})


@dataclass
class Rates:
    """Rate limits per voter (or address) and action: a token bucket each, refilled over time.

    Attributes:
        limits: by action, the burst size and the rate per minute; other actions are unlimited.
    """

    limits: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: {
            "ask": (20.0, 20.0),
            "upload": (20.0, 20.0),
            "vote": (60.0, 60.0),
            "newcomer": (10.0, 0.5),
            "login": (10.0, 10.0),
            "all": (300.0, 300.0),
        }
    )
    #: The most buckets in memory; the oldest are dropped first.
    most: int = 10_000
    clock: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[tuple[str, str], tuple[float, float]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def left(self, kind: str, who: str) -> float:
        """Return the seconds to wait, without counting anything."""
        if kind not in self.limits:
            return 0.0
        with self._lock:
            return self._seconds(kind, self._level(kind, who))

    def wait(self, kind: str, who: str) -> float:
        """Return the seconds to wait before repeating an action; 0 if it is allowed now, which counts."""
        if kind not in self.limits:
            return 0.0
        with self._lock:
            left = self._level(kind, who)
            self._buckets[kind, who] = (left - 1 if left >= 1 else left, self.clock())
            self._buckets.move_to_end((kind, who))
            if len(self._buckets) > self.most:
                self._buckets.popitem(last=False)
        return self._seconds(kind, left)

    def _level(self, kind: str, who: str) -> float:
        """Return how full a bucket is now."""
        full, per_minute = self.limits[kind]
        now = self.clock()
        left, then = self._buckets.get((kind, who), (full, now))
        return min(full, left + (now - then) * per_minute / 60)

    def _seconds(self, kind: str, left: float) -> float:
        """Return the seconds until a bucket allows an action."""
        return max(0.0, 1 - left) * 60 / self.limits[kind][1]
