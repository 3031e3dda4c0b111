"""A scripted OpenAI-compatible server for tests: real HTTP on loopback, faults on demand.

>>> from snellen.testing import Server, fault
>>> with Server(lambda asked: "star", faults=[fault.status(429, retry_after=1)]) as server:  # doctest: +SKIP
...     snellen.run(model=f"openai:any?base_url={server.url}", data="folder:./photos")

``python -m snellen.testing --port 8077`` starts one that answers with the first name in the list.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from snellen.errors import SnellenError, require

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from aiohttp import web

__all__ = ["Fault", "ReceivedRequest", "Server", "completion", "fault", "first_name"]


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as the server received it."""

    number: int  #: from 0, in the order of arrival
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(repr=False)
    path: str = "/v1/chat/completions"
    query: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"

    @property
    def text(self) -> str:
        """The texts of the last message."""
        if not self.body["messages"]:  # an endpoint's request, which is not a chat
            return ""
        content = self.body["messages"][-1]["content"]
        if isinstance(content, str):
            return content
        return "".join(part.get("text", "") for part in content)

    @property
    def images(self) -> list[bytes]:
        """The images of all messages, decoded from their data URLs."""
        contents = [message["content"] for message in self.body["messages"]]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        return [base64.b64decode(url.partition(",")[2]) for url in urls]


Responder = Callable[[ReceivedRequest], "str | Mapping[str, Any] | Awaitable[str | Mapping[str, Any]]"]
#: A fault answers instead of the server, given the aiohttp request.
Fault = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


def completion(
    text: str | None, *, finish: str = "stop", model: str = "scripted", **message: Any
) -> dict[str, Any]:
    """Build a chat completion as servers return it; ``message`` adds to the message (``refusal=…``)."""
    return {
        "id": f"chatcmpl-{time.monotonic_ns()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105},
    }


def first_name(asked: ReceivedRequest) -> str:
    """Return the first name listed in a closed-set question, or ``star`` if there is none."""
    return asked.text.partition("{")[2].partition("}")[0].split(", ")[0] or "star"


class Server:
    """A server on loopback that runs in its own thread inside a ``with`` block.

    Args:
        answer: returns a text or a whole completion as JSON; may be a coroutine.
        faults: what happens to the first requests instead, in order; None means a proper answer. Or a
            function of the request's number.
        port: 0 for any free port.
        headers: of all proper answers.
        endpoints: others, by their paths, such as vLLM's ``/tokenize``; a path that ends in ``/`` is for all
            that begin so. Each returns the answer to a request: JSON, bytes, or a fault.
        tls: a context with the server's certificate, to speak HTTPS.

    Attributes:
        asked: every request received, including faulty ones.
        most: the largest number of concurrent requests.
    """

    def __init__(
        self,
        answer: Responder = first_name,
        faults: Iterable[Fault | None] | Callable[[int], Fault | None] = (),
        port: int = 0,
        headers: Mapping[str, str] | None = None,
        endpoints: Mapping[str, Callable[[ReceivedRequest], Any]] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._web: Any = require("aiohttp.web", "api", "snellen.testing")
        self._answer, self.port, self._headers = answer, port, dict(headers or {})
        self._endpoints = dict(endpoints or {})
        if callable(faults):
            self.fault = faults
        else:
            script = dict(enumerate(faults))
            self.fault = script.get
        self.asked: list[ReceivedRequest] = []
        self.most = self._under_way = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self._failed: OSError | None = None

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10) or self._failed is not None:
            raise SnellenError(f"The server did not start: {self._failed or 'it took too long'}.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._over = asyncio.Event()
        try:
            try:
                self._loop.run_until_complete(self._run())
            except OSError as error:  # the port is taken
                self._failed = error
                self._ready.set()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            self._loop.close()

    async def _run(self) -> None:
        app = self._web.Application(client_max_size=2**28)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = self._web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = self._web.TCPSite(runner, "127.0.0.1", self.port, backlog=2048, ssl_context=self._tls)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._over.wait()
        await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            raw = await request.read()
            body = json.loads(raw) if raw[:1] == b"{" else {"raw": raw, "messages": []}
            asked = ReceivedRequest(
                len(self.asked),
                body,
                dict(request.headers),
                request.path,
                dict(request.query),
                request.method,
            )
            if (endpoint := self._endpoint(request.path)) is not None:
                return await self._other(request, endpoint(asked))
            if not request.path.startswith("/v1"):
                return await fault.status(404, "Not Found")(request)
            self.asked.append(asked)
            if (wrong := self.fault(asked.number)) is not None:
                return await wrong(request)
            given = self._answer(asked)
            reply = await given if isinstance(given, Awaitable) else given
            answer: web.StreamResponse = self._web.json_response(
                completion(reply) if isinstance(reply, str) else reply, headers=self._headers
            )
            return answer
        finally:
            self._under_way -= 1

    def _endpoint(self, path: str) -> Callable[[ReceivedRequest], Any] | None:
        begins = (name for name in self._endpoints if name.endswith("/") and path.startswith(name))
        return self._endpoints.get(path) or self._endpoints.get(next(begins, ""))

    async def _other(self, request: web.Request, reply: Any) -> web.StreamResponse:
        if callable(reply):
            wrong: web.StreamResponse = await reply(request)
            return wrong
        if isinstance(reply, bytes):
            plain: web.StreamResponse = self._web.Response(body=reply)
            return plain
        json_: web.StreamResponse = self._web.json_response(reply)
        return json_


class fault:  # noqa: N801  # a namespace, read as words: fault.status(429)
    """Faults that real servers have."""

    @staticmethod
    def status(
        code: int, message: str = "", *, retry_after: float | str | None = None, error: str = ""
    ) -> Fault:
        """Return this status with a JSON error; ``error`` is its code."""

        async def go(_: web.Request) -> web.StreamResponse:
            from aiohttp import web

            headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
            detail = {"message": message or f"status {code}", "type": "scripted", "code": error or code}
            return web.json_response({"error": detail}, status=code, headers=headers)

        return go

    @staticmethod
    def body(content: bytes | str | Mapping[str, Any], *, kind: str = "application/json") -> Fault:
        """Return status 200 with this body: broken JSON, no choices, another content type …"""

        async def go(_: web.Request) -> web.StreamResponse:
            from aiohttp import web

            raw = json.dumps(content) if isinstance(content, Mapping) else content
            data = raw.encode() if isinstance(raw, str) else raw
            return web.Response(body=data, headers={"Content-Type": kind})

        return go

    @staticmethod
    def hang(seconds: float = 3600) -> Fault:
        """Wait this many seconds, then close the connection without an answer."""

        async def go(request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(seconds)
            return await fault.reset()(request)

        return go

    @staticmethod
    def reset(after: bytes | None = None) -> Fault:
        """Reset the connection, before the answer or after these bytes of it."""

        async def go(request: web.Request) -> web.StreamResponse:
            from aiohttp import web

            reply = web.StreamResponse(
                headers={"Content-Type": "application/json", "Content-Length": "99999"}
            )
            if after is not None:
                await reply.prepare(request)
                await reply.write(after)
                await asyncio.sleep(0.02)
            if request.transport is not None:
                request.transport.abort()
            return reply

        return go

    @staticmethod
    def drip(content: str, seconds: float = 0.05) -> Fault:
        """Return status 200 with a body that arrives byte by byte."""

        async def go(request: web.Request) -> web.StreamResponse:
            from aiohttp import web

            reply = web.StreamResponse(headers={"Content-Type": "application/json"})
            await reply.prepare(request)
            for byte in content.encode():
                await reply.write(bytes([byte]))
                await asyncio.sleep(seconds)
            return reply

        return go

    @staticmethod
    def flood(size: int) -> Fault:
        """Return a proper answer whose text has this many bytes."""
        return fault.body(completion("x" * size))

    @staticmethod
    def script(*faults: Fault | None) -> Callable[[int], Fault | None]:
        """Repeat these faults forever: a function of the request's number."""
        return lambda number: faults[number % len(faults)]


def _main() -> Iterator[str]:
    import argparse

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    port = parser.parse_args().port
    try:
        with Server(port=port) as server:
            yield server.url
            threading.Event().wait()
    except SnellenError as error:
        parser.exit(1, f"Error: {error}\n")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    for _line in _main():
        print(_line, flush=True)
