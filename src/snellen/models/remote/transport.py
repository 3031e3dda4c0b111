"""One request to a chat server: connection, key, errors, and a log to find out what happened."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from snellen._util.redaction import redact
from snellen.errors import BadOption, reason_of
from snellen.models.remote.retry import RequestError
from snellen.models.remote.urls import ApiKey
from snellen.models.remote.wire import MAX_ANSWER, at_most, parse, refusal

if TYPE_CHECKING:
    from snellen.images import Image

__all__ = ["LOG_REQUESTS", "ChatTransport", "HttpAnswer", "Payload", "RequestLog"]

#: The environment variable with the file to which requests are logged.
LOG_REQUESTS = "SNELLEN_LOG_REQUESTS"
#: The most characters of an answer in the log.
LOGGED = 20_000
#: The most bytes of a file of answers.
MAX_FILE = 2**30
#: Images as they stand in a body.
_IMAGE = re.compile(r"data:(image/[a-z+]+);base64,([A-Za-z0-9+/=]*)")


class HttpAnswer(NamedTuple):
    """What a server answered with status 200."""

    text: bytes
    headers: Mapping[str, str]


class Payload(NamedTuple):
    """A body with placeholders for images, and the images."""

    body: dict[str, Any]
    images: tuple[Image, ...]


class ChatTransport:
    """The connection to a server.

    Args:
        address: its base URL.
        key: "none" is sent if there is none.
        headers: further ones, whose values are in the environment.
        api_version: a parameter of each address, as Azure's deployments need.
    """

    def __init__(
        self,
        address: str,
        key: ApiKey,
        headers: Mapping[str, ApiKey] | None = None,
        api_version: str | None = None,
    ) -> None:
        self.address, self.key, self.api_version = address, key, api_version
        self._headers = dict(headers or {})

    def check(self) -> None:
        """Refuse missing keys.

        Raises:
            ModelError: one is missing.
        """
        for key in (self.key, *self._headers.values()):
            key.check()

    @asynccontextmanager
    async def connect(self, timeout: float, most: int) -> AsyncIterator[None]:
        """Connect, with at most so many connections. Proxies and certificates are those of the usual
        variables (``HTTPS_PROXY``, ``NO_PROXY``, ``SSL_CERT_FILE``).
        """
        import openai

        # The type depends on the version of httpx behind the client.
        limits: Any = type(openai.DEFAULT_CONNECTION_LIMITS)
        # Following redirects would send the key to other hosts.
        client = openai.DefaultAioHttpClient(
            follow_redirects=False,
            timeout=timeout,
            limits=limits(max_connections=most, max_keepalive_connections=most),
        )
        self._log = RequestLog.opened()
        async with openai.AsyncOpenAI(
            api_key=self._token,
            base_url=self.address,
            max_retries=0,
            http_client=client,
            default_headers={name: key.value for name, key in self._headers.items()},
            default_query={"api-version": self.api_version} if self.api_version else None,
        ) as self._client:
            yield

    async def _token(self) -> str:
        return await asyncio.to_thread(lambda: self.key.value) or "none"

    async def post(self, body: bytes) -> HttpAnswer:
        """Send a chat completion's body, and return the answer.

        Raises:
            RequestError: there is none.
        """
        began = time.time()
        try:
            answer = await self._post(body)
        except RequestError as error:
            if self._log is not None:
                self._log.record(self.address, began, body, str(error), error.status)
            raise
        if self._log is not None:
            self._log.record(self.address, began, body, answer.text.decode("utf-8", "replace"), 200)
        return answer

    async def tokenize(self, body: Mapping[str, Any]) -> list[int]:
        """Return the tokens of a conversation, as vLLM's ``/tokenize`` tells.

        Raises:
            RequestError: the server has no such endpoint.
        """
        tokens = await self._told("tokenize", body, "tokens")
        if not isinstance(tokens, list):
            raise RequestError("the answer has no tokens", again=False)
        return tokens

    async def detokenize(self, body: Mapping[str, Any]) -> str:
        """Return the text of tokens, as vLLM's ``/detokenize`` tells.

        Raises:
            RequestError: the server has no such endpoint.
        """
        return str(await self._told("detokenize", body, "prompt"))

    async def _told(self, endpoint: str, body: Mapping[str, Any], name: str) -> Any:
        address = f"{self.address.removesuffix('/v1')}/{endpoint}"
        found = parse((await self._post(json.dumps(body).encode(), address)).text)
        return found.get(name) if isinstance(found, Mapping) else None

    async def fetch(self, address: str, headers: Mapping[str, str] | None = None) -> bytes:
        """Return what is at an address of the server.

        Raises:
            RequestError: nothing, or it cannot be had.
        """
        async with self._explained():
            return (await self._read(self._client.get, address, MAX_FILE, headers=headers or {})).text

    async def submit(self, address: str, body: bytes, headers: Mapping[str, str] | None = None) -> Any:
        """Send JSON to an address of the server, and return the answer's.

        Raises:
            RequestError: there is none.
        """
        return parse((await self._post(body, address, headers or {})).text)

    async def upload(self, name: str, data: bytes) -> str:
        """Upload a file of requests for a batch, and return its id.

        Raises:
            RequestError: it was refused, or did not get there.
        """
        async with self._explained():
            return (await self._client.files.create(file=(name, data), purpose="batch")).id

    async def _post(
        self, body: bytes, address: str = "/chat/completions", headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        more = {"Content-Type": "application/json", **(headers or {})}
        async with self._explained():
            return await self._read(self._client.post, address, MAX_ANSWER, headers=more, content=body)

    async def _read(
        self, method: Any, address: str, most: int, headers: Mapping[str, str], **more: Any
    ) -> HttpAnswer:
        import httpx2
        import openai

        reply: Any = await method(
            address,
            options={"headers": headers},
            # Unread, so that we can limit how much is read.
            cast_to=httpx2.Response,
            stream=True,
            stream_cls=openai.AsyncStream[Any],
            **more,
        )
        try:
            return HttpAnswer(await at_most(reply.aiter_bytes(), most), reply.headers)
        finally:
            await reply.aclose()

    @asynccontextmanager
    async def _explained(self) -> AsyncIterator[None]:
        """Turn the client's errors into ours."""
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            failed = _refusal(error)
            if failed.status == 401 and self.key.expired():
                raise RequestError(str(failed), 401, again=True) from error
            raise failed from error
        except openai.APIConnectionError as error:
            raise RequestError(
                f"the connection failed ({reason_of(_root(error))})", unavailable=True
            ) from error
        except RequestError:
            raise
        except openai.OpenAIError as error:
            raise RequestError(reason_of(error), again=False) from error
        except Exception as error:  # the transport's own errors in the middle of an answer
            raise RequestError(
                f"the connection broke during the answer ({reason_of(error)})", billed=True
            ) from error


class RequestLog:
    """A file of JSON lines, one per attempt: time, address, seconds, status, request and answer. Images are
    replaced by their sizes, and secrets redacted; headers are not logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    @classmethod
    def opened(cls) -> RequestLog | None:
        """Return the log that the environment asks for.

        Raises:
            BadOption: the file cannot be written.
        """
        if not (name := os.environ.get(LOG_REQUESTS)):
            return None
        log = cls(Path(name))
        try:
            log._write("")
        except OSError as error:
            raise BadOption(f"--log-requests {name}: cannot be written ({error.strerror}).") from error
        return log

    def record(self, address: str, began: float, body: bytes, said: str, status: int | None) -> None:
        """Add a line."""
        sent = _IMAGE.sub(lambda m: f"<{m[1]}, {len(m[2]) * 3 // 4:,} bytes>", body.decode())
        row = {
            "time": round(began, 3),
            "seconds": round(time.time() - began, 3),
            "address": address,
            "status": status,
            "request": _parsed(redact(sent)),
            "answer": redact(said)[:LOGGED],
        }
        self._write(json.dumps(row, ensure_ascii=False) + "\n")

    def _write(self, line: str) -> None:
        descriptor = os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        with self._lock, os.fdopen(descriptor, "ab") as file:
            file.write(line.encode())


def _parsed(text: str) -> Any:
    """Return a text as JSON, if it is still that without its secrets."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _root(error: BaseException) -> BaseException:
    """Return the root cause of an error: transports call many things a timeout."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _refusal(error: Any) -> RequestError:
    """Explain a status other than 200."""
    reply = error.response
    if error.status_code in (301, 302, 303, 307, 308):
        where = redact(str(reply.headers.get("location", "elsewhere")))
        said = f"{error.status_code} the server redirects to {where}; set that as base_url"
        return RequestError(said, 404, again=False)
    return refusal(error.status_code, reply.content, reply.text or error.message, reply.headers)
