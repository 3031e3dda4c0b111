"""The response cache, a wrapper around models: a request answered once is not sent again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

from snellen._util.redaction import storable
from snellen.engine.loop import CachedResponse
from snellen.errors import ModelError, SnellenError, Stopped
from snellen.models.base import Model, failure
from snellen.storage.rows import CacheEntry
from snellen.types import Decoding, Kind, Outcome, Request, Response, Score

__all__ = ["CACHE_VERSION", "CachedModel", "ResponseCache", "describe", "key_of"]

Item = TypeVar("Item")

#: Seconds for which remote answers wait to be committed together. Answers lost to a kill in between were
#: not reported anywhere, and are requested again.
LINGER = 0.01
#: Increment when requests are rendered or answered differently, so that
#: older cached answers are not reused.
CACHE_VERSION = 3


def describe(request: Request) -> dict[str, Any]:
    """Describe a request as JSON, with images as hashes, for the store."""
    return {
        "kind": request.kind,
        "messages": [
            {
                "role": message.role,
                "content": [
                    part if isinstance(part, str) else {"image": part.sha256} for part in message.content
                ],
            }
            for message in request.messages
        ],
        "decoding": dict(_options(request.decoding)),
        "continuations": list(request.continuations),
    }


@lru_cache(maxsize=64)
def _options(decoding: Decoding) -> dict[str, Any]:
    """Convert decoding options to a dict. Few are in use, and asdict copies deeply, so results are cached."""
    return asdict(decoding)


def key_of(identity: Mapping[str, Any], request: Mapping[str, Any], cache_salt: str = "") -> str:
    """Return the SHA-256 hash of everything that can change the answer."""
    text = json.dumps([CACHE_VERSION, identity, request, cache_salt], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class ResponseCache(Protocol):
    """Storage of cached answers. A :class:`~snellen.storage.store.Store` is one."""

    def get(self, keys: Sequence[str]) -> dict[str, Response]:
        """Return the cached answers with these keys."""

    def put(self, rows: Sequence[CacheEntry]) -> dict[str, Response]:
        """Commit answers; existing ones are kept and returned."""


class CachedModel:
    """A model with a cache.

    Each of the model's batches is committed as it arrives. Errors are not cached. A request already in
    flight is awaited instead of sent again.

    Args:
        cache_salt: makes the keys unique, so that no other run's answers are reused.
    """

    def __init__(self, model: Model, store: ResponseCache, cache_salt: str = "") -> None:
        self._model, self._cache_salt = model, cache_salt
        self._identity = model.identity()
        linger = LINGER if model.remote else 0.0
        self._get: _WriteBatcher[str] = _WriteBatcher(store.get, linger)
        self._put: _WriteBatcher[CacheEntry] = _WriteBatcher(store.put, linger)
        #: Keys being looked up or requested, with their future results.
        self._pending: dict[str, asyncio.Future[tuple[Response, bool]]] = {}
        self._stopping = False
        #: Whether the model was called last time, so that preparing its next inputs is worthwhile.
        self.asking = True

    async def respond(self, requests: Sequence[Request]) -> list[CachedResponse]:
        """Answer from the cache if possible, otherwise from the model.

        Raises:
            SnellenError: the model gave up, or the store cannot be written. Requests in flight are
                completed and cached before it is raised, also on cancellation.
        """
        rendered = [describe(request) for request in requests]
        keys = [self._key(request, row) for request, row in zip(requests, rendered, strict=True)]
        # No await between lookup and insert: two concurrent callers would both call the model.
        loop = asyncio.get_running_loop()
        wanted = {key: self._pending.get(key) for key in keys}
        owned = {key: loop.create_future() for key, future in wanted.items() if future is None}
        self._pending |= owned
        if owned:
            asked = {
                key: (r, row) for key, r, row in zip(keys, requests, rendered, strict=True) if key in owned
            }
            await self._through(self._settle(owned, asked))
        answers: dict[str, tuple[Response, bool]] = {}
        for key, future in wanted.items():
            answers[key] = await asyncio.shield(future if future is not None else owned[key])
        return [CachedResponse(answers[key][0], key, answers[key][1]) for key in keys]

    async def knows(self, request: Request) -> bool:
        """Return whether a request would be answered from the cache."""
        key = self._key(request, describe(request))
        return key in await self._get([key])

    def _key(self, request: Request, rendered: dict[str, Any]) -> str:
        return key_of({**self._identity, **self._model.context(request)}, rendered, self._cache_salt)

    async def _settle(
        self,
        owned: Mapping[str, asyncio.Future[tuple[Response, bool]]],
        asked: Mapping[str, tuple[Request, dict[str, Any]]],
    ) -> None:
        """Resolve the futures from the cache or the model, committing each batch as it arrives."""
        try:
            known = await self._get(list(owned))
            for key, reply in known.items():
                if key in owned:
                    owned[key].set_result((reply, False))
            missing = [key for key in owned if key not in known]
            self.asking = bool(missing)
            if missing:
                await self._ask(missing, owned, asked)
        except BaseException as error:
            for future in owned.values():
                if not future.done():
                    future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                    future.exception()  # whether or not anyone else awaits it
            raise
        finally:
            for key in owned:
                del self._pending[key]

    async def _ask(
        self,
        keys: Sequence[str],
        owned: Mapping[str, asyncio.Future[tuple[Response, bool]]],
        asked: Mapping[str, tuple[Request, dict[str, Any]]],
    ) -> None:
        requests = [asked[key][0] for key in keys]
        together = self._model.together
        # A local model may have to read prompts and images to group them, which takes a while.
        batches = together(requests) if self._model.remote else await asyncio.to_thread(together, requests)

        async def ask(places: Sequence[int]) -> None:
            if self._stopping:
                raise Stopped("The run was stopped.")
            replies = await self._answers([requests[place] for place in places])
            answered = {keys[place]: reply for place, reply in zip(places, replies, strict=True)}
            rows = [
                CacheEntry(key, self._model.name, asked[key][1], reply)
                for key, reply in answered.items()
                if reply.outcome is not Outcome.ERROR
            ]
            kept = await self._put(rows) if rows else {}
            for key, reply in answered.items():
                # Another process may have been faster: then its answer is kept.
                owned[key].set_result((kept.get(key, reply), True))

        if self._model.workers == 1:
            for batch in batches:
                await ask(batch)
        else:
            ended = await asyncio.gather(*(ask(batch) for batch in batches), return_exceptions=True)
            for error in ended:
                if error is not None:
                    raise error

    async def _through(self, work: Coroutine[Any, Any, None]) -> None:
        """Complete work even if cancelled: what was computed or paid for is cached first."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            self._stopping = True
            self._model.stop()
            await asyncio.wait([task])  # does not raise the task's exceptions
            if not task.cancelled():
                task.exception()
            raise

    async def _answers(self, asked: Sequence[Request]) -> Sequence[Response]:
        """Get the model's answers; exceptions and malformed responses become errors.

        Raises:
            ModelError: it returned the wrong number of answers.
        """
        try:
            replies = await self._model.respond(asked)
        except SnellenError:
            raise
        except Exception as error:
            return [failure(error)] * len(asked)
        if len(replies) != len(asked):
            raise ModelError(
                f"{self._model.name} received {len(asked)} requests and returned {len(replies)} answers."
            )
        return [_clean(_fitting(request, reply)) for request, reply in zip(asked, replies, strict=True)]


def _fitting(request: Request, reply: Response) -> Response:
    """Return the reply, or an error if it has the wrong number of scores, or a score that is not a number."""
    wanted = len(request.continuations) if request.kind is Kind.SCORE else 0
    if reply.outcome is Outcome.OK and len(reply.scores) != wanted:
        reason = f"{len(reply.scores)} scores for {wanted} continuations"
        return Response(outcome=Outcome.ERROR, reason=reason)
    if any(math.isnan(score.value) or score.value == math.inf for score in reply.scores):
        return Response(outcome=Outcome.ERROR, reason="the model returned a score that is not a number")
    if any(type(score.value) is not float for score in reply.scores):  # of numpy or torch
        scores = tuple(Score(float(score.value), int(score.tokens)) for score in reply.scores)
        return replace(reply, scores=scores)
    return reply


def _clean(reply: Response) -> Response:
    """Return the reply as any database stores it, without secrets that a server may have echoed."""
    texts = {name: getattr(reply, name) for name in ("text", "reason", "prompt", "thinking")}
    cleaned: dict[str, Any] = {n: clean for n, text in texts.items() if (clean := storable(text)) != text}
    if reply.meta:
        cleaned["meta"] = {key: storable(v) if isinstance(v, str) else v for key, v in reply.meta.items()}
    return replace(reply, **cleaned) if cleaned else reply


class _WriteBatcher(Generic[Item]):
    """Batches calls of a store: calls during another one, or within ``linger`` seconds, are combined and
    made in a thread, so that many answers per second need few transactions and do not block each other's
    connections.
    """

    def __init__(self, call: Callable[[list[Item]], dict[str, Response]], linger: float) -> None:
        self._call, self._linger = call, linger
        self._waiting: list[tuple[list[Item], asyncio.Future[dict[str, Response]]]] = []
        self._busy: asyncio.Task[None] | None = None

    async def __call__(self, items: list[Item]) -> dict[str, Response]:
        """Return the call's result for these items; the call may have included others."""
        done: asyncio.Future[dict[str, Response]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, done))
        if self._busy is None:
            self._busy = asyncio.create_task(self._work())
        return await done

    async def _work(self) -> None:
        while self._waiting:
            if self._linger:
                await asyncio.sleep(self._linger)
            turn, self._waiting = self._waiting, []
            try:
                results = await asyncio.to_thread(self._call, [item for items, _ in turn for item in items])
            except Exception as error:
                for _, done in turn:
                    if not done.done():
                        done.set_exception(error)
            else:
                for _, done in turn:
                    if not done.done():
                        done.set_result(results)
        self._busy = None
