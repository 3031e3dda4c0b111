"""One request to a chat server: connection, key, errors, and a log to find out what happened."""

from __future__ import annotations

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
from snellen.errors import BadOption
from snellen.models.remote.connection import Connection, HttpAnswer
from snellen.models.remote.retry import RequestError
from snellen.models.remote.urls import ApiKey
from snellen.models.remote.wire import parse

if TYPE_CHECKING:
    from snellen.images import Image

__all__ = ["LOG_REQUESTS", "ChatTransport", "Payload", "RequestLog"]

#: The environment variable with the file to which requests are logged.
LOG_REQUESTS = "SNELLEN_LOG_REQUESTS"
#: The most characters of an answer in the log.
LOGGED = 20_000
#: The most bytes of a file of answers.
MAX_FILE = 2**30
#: Images as they stand in a body.
_IMAGE = re.compile(r"data:(image/[a-z+]+);base64,([A-Za-z0-9+/=]*)")


class Payload(NamedTuple):
    """A body with placeholders for images, and the images."""

    body: dict[str, Any]
    images: tuple[Image, ...]


class ChatTransport:
    """The connection to a server.

    Args:
        address: its base URL.
        key: sent as a bearer token, if there is one.
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
        """Connect, with at most so many connections, and a longest silence in seconds."""
        self._log = RequestLog.opened()
        self._connection = Connection(self.address, self.key, headers=self._headers)
        async with self._connection.opened(most, timeout):
            yield

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
        return (await self._send("GET", address, headers or {}, most=MAX_FILE)).text

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
        import aiohttp

        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", data, filename=name, content_type="application/jsonl")
        found = parse((await self._send("POST", "/files", {}, data=form)).text)
        if not isinstance(found, Mapping) or not isinstance(found.get("id"), str):
            raise RequestError("the answer to an upload has no id", again=False)
        return str(found["id"])

    async def _post(
        self, body: bytes, address: str = "/chat/completions", headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        more = {"Content-Type": "application/json", **(headers or {})}
        return await self._send("POST", address, more, data=body)

    async def _send(self, method: str, address: str, headers: Mapping[str, str], **more: Any) -> HttpAnswer:
        where = address if "://" in address else f"{self.address}{address}"
        params = {"api-version": self.api_version} if self.api_version else {}
        return await self._connection.exchange(method, where, headers=headers, params=params, **more)


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
