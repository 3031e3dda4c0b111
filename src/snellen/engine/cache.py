"""Memory is a wrapper: what a model answered once under the same key is not asked again."""

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
from snellen.types import Decoding, Kind, Outcome, Request, Response

__all__ = ["CACHE_VERSION", "CachedModel", "ResponseCache", "describe", "key_of"]

Item = TypeVar("Item")

#: Seconds for which answers from afar wait for others to be committed with them. What is killed meanwhile was
#: not told to anybody, and is asked again.
LINGER = 0.01
#: To be raised by whoever changes how requests are rendered or answered: what was remembered before then
#: is not taken for an answer of now.
CACHE_VERSION = 2


def describe(request: Request) -> dict[str, Any]:
    """A request as JSON, images by their hash: what stands in the store."""
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
    """Few are in use, and asdict copies deeply."""
    return asdict(decoding)


def key_of(identity: Mapping[str, Any], request: Mapping[str, Any], cache_salt: str = "") -> str:
    """sha256 over everything that can change the answer."""
    text = json.dumps([CACHE_VERSION, identity, request, cache_salt], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class ResponseCache(Protocol):
    """Where answers are kept. A :class:`~snellen.storage.store.Store` is one."""

    def get(self, keys: Sequence[str]) -> dict[str, Response]:
        """The answers that are remembered under these keys."""

    def put(self, rows: Sequence[CacheEntry]) -> dict[str, Response]:
        """Commit answers; those that were there already stay as they are, and are returned."""


class CachedModel:
    """A model behind a store.

    Each batch of the model's is committed as it is received. Errors are not remembered. What is being asked
    already is not asked again meanwhile, but waited for.

    Args:
        cache_salt: makes the keys differ from all others: nothing is recalled from other runs.
    """

    def __init__(self, model: Model, store: ResponseCache, cache_salt: str = "") -> None:
        self._model, self._cache_salt = model, cache_salt
        self._identity = model.identity()
        linger = LINGER if model.remote else 0.0
        self._get: _WriteBatcher[str] = _WriteBatcher(store.get, linger)
        self._put: _WriteBatcher[CacheEntry] = _WriteBatcher(store.put, linger)
        #: Keys that are being looked up or asked, and what will come of them.
        self._pending: dict[str, asyncio.Future[tuple[Response, bool]]] = {}
        self._stopping = False
        #: Whether the model had to be asked last time: what it is asked next is worth making ready.
        self.asking = True

    async def respond(self, requests: Sequence[Request]) -> list[CachedResponse]:
        """Answer from memory where it can, from the model where it must.

        Raises:
            SnellenError: the model gave up, or the store cannot be written. What was under way is seen
                through, and remembered, before that is raised, and also where this is cancelled.
        """
        rendered = [describe(request) for request in requests]
        contexts = [self._model.context(request) for request in requests]
        keys = [
            key_of({**self._identity, **context}, row, self._cache_salt)
            for context, row in zip(contexts, rendered, strict=True)
        ]
        # No await between looking and entering: two that come at once would both ask.
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

    async def _settle(
        self,
        owned: Mapping[str, asyncio.Future[tuple[Response, bool]]],
        asked: Mapping[str, tuple[Request, dict[str, Any]]],
    ) -> None:
        """Bring about the futures: by memory, or by the model, each batch committed as it comes."""
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
                    future.exception()  # whether or not anybody else waits for it
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
        # What is near may have to look at prompts and images to tell, which takes a while.
        batches = together(requests) if self._model.remote else await asyncio.to_thread(together, requests)

        async def ask(places: Sequence[int]) -> None:
            if self._stopping:
                raise Stopped("It was stopped.")
            replies = await self._answers([requests[place] for place in places])
            answered = {keys[place]: reply for place, reply in zip(places, replies, strict=True)}
            rows = [
                CacheEntry(key, self._model.name, asked[key][1], reply)
                for key, reply in answered.items()
                if reply.outcome is not Outcome.ERROR
            ]
            kept = await self._put(rows) if rows else {}
            for key, reply in answered.items():
                # Another process may have been faster: its answer is the one that is kept.
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
        """See work through also when it is cancelled: what was computed, or paid for, is remembered first."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            self._stopping = True
            self._model.stop()
            await asyncio.wait([task])  # raises nothing of the task's own
            if not task.cancelled():
                task.exception()
            raise

    async def _answers(self, asked: Sequence[Request]) -> Sequence[Response]:
        """The model's answers; what it raises, and what does not fit the requests, made errors.

        Raises:
            ModelError: it gave another number of answers than it was asked for.
        """
        try:
            replies = await self._model.respond(asked)
        except SnellenError:
            raise
        except Exception as error:
            return [failure(error)] * len(asked)
        if len(replies) != len(asked):
            raise ModelError(
                f"{self._model.name} was asked {len(asked)} requests and gave {len(replies)} answers."
            )
        return [_clean(_fitting(request, reply)) for request, reply in zip(asked, replies, strict=True)]


def _fitting(request: Request, reply: Response) -> Response:
    """The reply, or an error where it holds another number of scores than there are continuations, or one
    that is no number.
    """
    wanted = len(request.continuations) if request.kind is Kind.SCORE else 0
    if reply.outcome is Outcome.OK and len(reply.scores) != wanted:
        reason = f"{len(reply.scores)} scores for {wanted} continuations"
        return Response(outcome=Outcome.ERROR, reason=reason)
    if any(math.isnan(score.value) or score.value == math.inf for score in reply.scores):
        return Response(outcome=Outcome.ERROR, reason="the model gave a score that is no number")
    return reply


def _clean(reply: Response) -> Response:
    """The reply as any database gives it back, and without secrets that a server may have echoed."""
    texts = {name: getattr(reply, name) for name in ("text", "reason", "prompt", "thinking")}
    cleaned: dict[str, Any] = {n: clean for n, text in texts.items() if (clean := storable(text)) != text}
    if reply.meta:
        cleaned["meta"] = {key: storable(v) if isinstance(v, str) else v for key, v in reply.meta.items()}
    return replace(reply, **cleaned) if cleaned else reply


class _WriteBatcher(Generic[Item]):
    """Calls of a store: those that come while one is under way, or within ``linger`` seconds, are made in
    one go, in a thread, so that many answers a second take few transactions, and none of them holds up the
    others' connections.
    """

    def __init__(self, call: Callable[[list[Item]], dict[str, Response]], linger: float) -> None:
        self._call, self._linger = call, linger
        self._waiting: list[tuple[list[Item], asyncio.Future[dict[str, Response]]]] = []
        self._busy: asyncio.Task[None] | None = None

    async def __call__(self, items: list[Item]) -> dict[str, Response]:
        """What the call gives for these items (and for others that were in the same go)."""
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
