"""Memory is a wrapper: what a model answered once under the same key is not asked again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from snellen.engine.driver import Answer
from snellen.models.base import Model
from snellen.store import Remembered, Store
from snellen.types import Outcome, Request, Response

__all__ = ["Remembering", "describe", "key_of"]


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
        "decoding": asdict(request.decoding),
        "continuations": list(request.continuations),
    }


def key_of(identity: Mapping[str, Any], request: Mapping[str, Any], nonce: str = "") -> str:
    """sha256 over everything that can change the answer."""
    whole = json.dumps([identity, request, nonce], sort_keys=True, ensure_ascii=True)
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

    async def respond(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer from memory where it can, from the model where it must."""
        rendered = [describe(request) for request in requests]
        keys = [key_of(self._identity, row, self._nonce) for row in rendered]
        known = self._store.recall(list(dict.fromkeys(keys)))
        missing = {key: i for i, key in enumerate(keys) if key not in known}
        fresh: dict[str, Response] = {}
        todo = list(missing.items())
        size = self._model.batch_size

        async def ask(batch: list[tuple[str, int]]) -> None:
            replies = await self._model.respond([requests[i] for _, i in batch])
            got = dict(zip((key for key, _ in batch), replies, strict=True))
            self._store.remember(
                [
                    Remembered(key, self._model.name, rendered[i], got[key])
                    for key, i in batch
                    if got[key].outcome is not Outcome.ERROR
                ]
            )
            fresh.update(got)

        await asyncio.gather(*(ask(todo[i : i + size]) for i in range(0, len(todo), size)))
        return [Answer(fresh.get(key) or known[key], key, key in fresh) for key in keys]
