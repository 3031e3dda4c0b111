"""The HTTP connection to a server: one session, through the machine's proxies, by its certificates."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from snellen._util.redaction import redact
from snellen._version import __version__
from snellen.errors import ModelError, reason_of, require
from snellen.models.remote.network import certificates, proxy_of, without_password
from snellen.models.remote.retry import RequestError
from snellen.models.remote.urls import ApiKey
from snellen.models.remote.wire import MAX_ANSWER, at_most, refusal

if TYPE_CHECKING:
    from aiohttp import ClientResponse

__all__ = ["Connection", "HttpAnswer", "check_connection"]

#: The most bytes of one header.
MAX_FIELD = 2**16
REDIRECTS = (301, 302, 303, 307, 308)
#: OpenSSL's codes of a certificate that nobody known has signed.
UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)


def check_connection(address: str, purpose: str) -> None:
    """Refuse what would keep every request from its server.

    Args:
        purpose: what needs the packages, for the message.

    Raises:
        MissingExtra: a package is not installed.
        BadOption: a proxy that cannot be used.
    """
    for package in ("aiohttp", "pybase64"):
        require(package, "api", purpose)
    proxy_of(address)


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

        Raises:
            BadOption: a proxy, or certificates, that cannot be used.
        """
        import aiohttp

        self._proxy = proxy_of(self.address)
        async with aiohttp.ClientSession(
            # Reading certificates takes a moment.
            connector=aiohttp.TCPConnector(
                limit=most, ssl=certificates() if self.address.startswith("https:") else True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"snellen/{__version__}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
            max_line_size=MAX_FIELD,
            max_field_size=MAX_FIELD,
            proxy=self._proxy,
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
        values = {name: await _current(key) for name, key in self._headers.items()}
        bearer = await _current(self._key) if self._key is not None else ""
        own = {"Authorization": f"{self._scheme} {bearer}".strip()} if bearer else {}
        try:
            return await self._exchange(
                method, address, most, headers={**own, **values, **(headers or {})}, **more
            )
        except RequestError as error:
            if error.status != 401:
                raise
            replaced = [key.expired(values[name]) for name, key in self._headers.items()]
            replaced += [self._key.expired(bearer)] if self._key is not None else []
            if any(replaced):
                raise RequestError(str(error), 401, again=True) from error
            raise

    async def _exchange(self, method: str, address: str, most: int, **more: Any) -> HttpAnswer:
        import aiohttp

        reply: aiohttp.ClientResponse | None = None
        try:
            # Following redirects would send the key to other hosts.
            async with self._session.request(method, address, allow_redirects=False, **more) as reply:
                text = await _read(reply, most)
        except aiohttp.ClientConnectorCertificateError as error:
            raise RequestError(_distrust(error.certificate_error), again=False, stop=True) from error
        except aiohttp.ClientHttpProxyError as error:
            raise self._refused_by_proxy(error.status) from error
        except aiohttp.ClientProxyConnectionError as error:
            why = f"the proxy {without_password(self._proxy)} cannot be reached ({reason_of(_root(error))})"
            raise RequestError(why, unavailable=True) from error
        except aiohttp.ClientResponseError as error:  # something was answered, and may be billed
            why = f"the answer is not proper HTTP ({' '.join(error.message.split())[:300]})"
            raise RequestError(why, billed=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if reply is None:
                why = f"the connection failed ({reason_of(_root(error))})"
                raise RequestError(why, unavailable=True) from error
            why = f"the connection broke during the answer ({reason_of(error)})"
            raise RequestError(why, billed=True) from error
        if reply.status == 407 and self._proxy:
            raise self._refused_by_proxy(reply.status)
        if reply.status in REDIRECTS:
            where = redact(reply.headers.get("Location", "elsewhere"))
            why = f"{reply.status} the server redirects to {where}; set that as base_url, or after endpoint:"
            raise RequestError(why, 404, again=False)
        if reply.status >= 300:
            plain = text.decode("utf-8", "replace") or reply.reason or ""
            raise refusal(reply.status, text, plain, reply.headers)
        return HttpAnswer(text, reply.headers)

    def _refused_by_proxy(self, status: int) -> RequestError:
        why = f"the proxy {without_password(self._proxy)} refuses ({status})"
        if status == 407:
            why += "; put a name and a password into its address: http://NAME:PASSWORD@HOST:PORT"
        return RequestError(why, again=status != 407, stop=status == 407)


async def _current(key: ApiKey) -> str:
    """Return a key's value.

    Raises:
        RequestError: the command that prints it fails, which may pass.
    """
    try:
        return await key.current()
    except ModelError as error:
        raise RequestError(str(error), again=True) from error


async def _read(reply: ClientResponse, most: int) -> bytes:
    """Read an answer; of a refusal, whose status counts, as far as it can be read.

    Raises:
        RequestError: it is too large.
    """
    import aiohttp

    try:
        return await at_most(reply.content.iter_any(), most)
    except (RequestError, aiohttp.ClientError, OSError):
        if reply.status < 400:
            raise
        return b""


def _distrust(error: Exception) -> str:
    """Say why a certificate is not trusted, and what helps against an unknown authority."""
    text = f"its certificate is not trusted here ({reason_of(error)})"
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in UNKNOWN_AUTHORITY:
        text += "; for authorities of your own set SSL_CERT_FILE to a file with their certificates"
    return text


def _root(error: BaseException) -> BaseException:
    """Return the root cause of an error: transports call many things a timeout."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
