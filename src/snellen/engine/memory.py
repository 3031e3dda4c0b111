"""Memory is a wrapper: what a model answered once under the same key is not asked again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from snellen.engine.driver import Answer
from snellen.errors import ModelError, SnellenError
from snellen.models.base import Model, failure
from snellen.store import Remembered, Store
from snellen.types import Decoding, Kind, Outcome, Request, Response

__all__ = ["ANSWERS", "Remembering", "describe", "key_of"]

#: To be raised by whoever changes how requests are rendered or answered: what was remembered before then
#: is not taken for an answer of now.
ANSWERS = 2


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


def key_of(identity: Mapping[str, Any], request: Mapping[str, Any], nonce: str = "") -> str:
    """sha256 over everything that can change the answer."""
    whole = json.dumps([ANSWERS, identity, request, nonce], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(whole.encode()).hexdigest()


class Remembering:
    """A model behind a store.

    Each batch of the model's is committed as it is received. Errors are not remembered. Equal requests
    of one wave are asked once.

    Args:
        nonce: makes the keys differ from all others: nothing is recalled from other runs.
    """

    def __init__(self, model: Model, store: Store, nonce: str = "") -> None:
        self._model, self._store, self._nonce = model, store, nonce
        self._identity = model.identity()
        #: Whether the model had to be asked last time: what it is asked next is worth making ready.
        self.asking = True

    async def respond(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer from memory where it can, from the model where it must."""
        rendered = [describe(request) for request in requests]
        contexts = [self._model.context(request) for request in requests]
        keys = [
            key_of({**self._identity, **context}, row, self._nonce)
            for context, row in zip(contexts, rendered, strict=True)
        ]
        known = self._store.recall(list(dict.fromkeys(keys)))
        missing = list({key: i for i, key in enumerate(keys) if key not in known}.values())
        self.asking = bool(missing)
        fresh: dict[str, Response] = {}

        async def ask(batch: Sequence[int]) -> None:
            replies = await self._answers([requests[i] for i in batch])
            self._store.remember(
                [
                    Remembered(keys[i], self._model.name, rendered[i], reply)
                    for i, reply in zip(batch, replies, strict=True)
                    if reply.outcome is not Outcome.ERROR
                ]
            )
            fresh.update(zip((keys[i] for i in batch), replies, strict=True))

        todo: list[list[int]] = []
        if missing:
            together = await asyncio.to_thread(self._model.together, [requests[i] for i in missing])
            todo = [[missing[place] for place in places] for places in together]

        if self._model.workers == 1:
            for batch in todo:
                await _through(ask(batch))
        else:
            await asyncio.gather(*(ask(batch) for batch in todo))
        return [Answer(fresh.get(key) or known[key], key, key in fresh) for key in keys]

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
        return [_fitting(request, reply) for request, reply in zip(asked, replies, strict=True)]


def _fitting(request: Request, reply: Response) -> Response:
    """The reply, or an error where it holds another number of scores than there are continuations."""
    wanted = len(request.continuations) if request.kind is Kind.SCORE else 0
    if reply.outcome is Outcome.OK and len(reply.scores) != wanted:
        reason = f"{len(reply.scores)} scores for {wanted} continuations"
        return Response(outcome=Outcome.ERROR, reason=reason)
    return reply


async def _through(work: Coroutine[Any, Any, None]) -> None:
    """See work through also when it is cancelled: a batch that was computed is remembered first."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
