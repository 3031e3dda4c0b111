"""The HTTP connection to a server: one session, through the machine's proxies, by its certificates."""

from __future__ import annotations

import ipaddress
import os
import platform
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from snellen._util.redaction import redact
from snellen._version import __version__
from snellen.errors import reason_of
from snellen.models.remote.retry import RequestError
from snellen.models.remote.urls import ApiKey
from snellen.models.remote.wire import MAX_ANSWER, at_most, refusal

__all__ = ["Connection", "HttpAnswer"]


class HttpAnswer(NamedTuple):
    """What a server answered with a status below 300."""

    text: bytes
    headers: Mapping[str, str]


class Connection:
    """Requests to one server. Proxies and certificates are those of the usual variables (``HTTPS_PROXY``,
    ``NO_PROXY``, ``SSL_CERT_FILE``) and of the system; ``.netrc`` is not read.

    Args:
        address: its base URL.
        key: sent as authorization, if it has a value.
        scheme: the word before it.
        headers: further ones, whose values are in the environment.
    """

    def __init__(
        self,
        address: str,
        key: ApiKey | None,
        scheme: str = "Bearer",
        headers: Mapping[str, ApiKey] | None = None,
    ) -> None:
        self.address, self._key, self._scheme = address, key, scheme
        self._headers = dict(headers or {})

    @asynccontextmanager
    async def opened(self, most: int, timeout: float | None = None) -> AsyncIterator[None]:
        """Connect, with at most so many connections.

        Args:
            timeout: the longest silence in seconds; callers limit an answer's whole time.
        """
        import aiohttp

        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=most, ssl=_certificates()),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"snellen/{__version__}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
            proxy=_proxy(self.address),
        ) as self._session:
            yield

    async def exchange(
        self,
        method: str,
        address: str,
        *,
        headers: Mapping[str, str] | None = None,
        most: int = MAX_ANSWER,
        **more: Any,
    ) -> HttpAnswer:
        """Send a request and read its answer.

        Args:
            headers: in addition to those of the keys.
            most: bytes of the answer; more are refused.
            more: ``data`` and ``params``, as aiohttp takes them.

        Raises:
            RequestError: there is no answer, or its status is 300 or more.
        """
        known = {**await self._authorization(), **(headers or {})}
        try:
            return await self._exchange(method, address, most, headers=known, **more)
        except RequestError as error:
            if error.status == 401 and self._key is not None and self._key.expired():
                raise RequestError(str(error), 401, again=True) from error
            raise

    async def _authorization(self) -> dict[str, str]:
        key = await self._key.current() if self._key is not None else ""
        own = {"Authorization": f"{self._scheme} {key}".strip()} if key else {}
        return own | {name: await value.current() for name, value in self._headers.items()}

    async def _exchange(self, method: str, address: str, most: int, **more: Any) -> HttpAnswer:
        import aiohttp

        reply: aiohttp.ClientResponse | None = None
        try:
            # Following redirects would send the key to other hosts.
            async with self._session.request(method, address, allow_redirects=False, **more) as reply:
                text = await at_most(reply.content.iter_any(), most)
        except aiohttp.ClientConnectorCertificateError as error:
            why = f"its certificate is not trusted here ({reason_of(_root(error))}); for authorities of your "
            why += "own set SSL_CERT_FILE to a file with their certificates"
            raise RequestError(why, again=False, stop=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if reply is None:
                why = f"the connection failed ({reason_of(_root(error))})"
                raise RequestError(why, unavailable=True) from error
            why = f"the connection broke during the answer ({reason_of(error)})"
            raise RequestError(why, billed=True) from error
        if 300 <= reply.status < 400:
            where = redact(reply.headers.get("Location", "elsewhere"))
            why = f"{reply.status} the server redirects to {where}; set that as base_url, or after endpoint:"
            raise RequestError(why, 404, again=False)
        if reply.status >= 400:
            plain = text.decode("utf-8", "replace") or reply.reason or ""
            raise refusal(reply.status, text, plain, reply.headers)
        return HttpAnswer(text, reply.headers)


def _certificates() -> ssl.SSLContext:
    """Return a context that trusts what this machine does. OpenSSL knows neither the keychain of macOS nor
    certificates that Windows has yet to fetch.
    """
    named = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    if named or platform.system() not in ("Darwin", "Windows"):
        return ssl.create_default_context()
    import truststore

    context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context


def _proxy(address: str) -> str | None:
    """Return the proxy for an address, if there is one; this machine itself needs none."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if _is_here(host) or proxy_bypass(host):
        return None
    known = getproxies()
    proxy = known.get(parts.scheme) or known.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _root(error: BaseException) -> BaseException:
    """Return the root cause of an error: transports call many things a timeout."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
