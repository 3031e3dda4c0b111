"""A chat model that is asked by batches."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from snellen.models.remote.batch.formats import FORMATS
from snellen.models.remote.batch.ledger import Ledger
from snellen.models.remote.batch.queue import BatchQueue
from snellen.models.remote.chat import ChatModel, completed
from snellen.models.remote.retry import RequestError
from snellen.models.remote.transport import Payload

__all__ = ["BatchModel"]

#: Samples under way, and thereby about the size of a batch, unless ``--max-concurrency`` says otherwise.
SAMPLES = 2000
#: Attempts for a request that may succeed in another batch.
ATTEMPTS = 2


class BatchModel(ChatModel):
    """Sends requests in batches: those that are ready at about the same time go together, so that each round
    of a protocol is a batch. A restarted run collects the batches of the last one.
    """

    #: Seconds without a new request after which those that wait are submitted, and until the first look.
    quiet, poll = 3.0, 10.0

    def __init__(self, *, batches: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._form = FORMATS[batches](self.transport, self.model)
        self._queue: BatchQueue | None = None

    @property
    def max_concurrency(self) -> int:
        """The most samples under way."""
        return self.limits.max_concurrency or SAMPLES

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[None]:
        async with super().connect():
            queue = BatchQueue(self._form, Ledger(self._path()), self.retry_policy, self.quiet, self.poll)
            self._queue = queue
            try:
                yield
                queue.settle()
            finally:
                await queue.close()

    def _path(self) -> Path | None:
        if self.folder is None:
            return None
        account = f"{self.address}\n{self.transport.key.variable}\n{self.model}"
        return self.folder / "batches" / f"{hashlib.sha256(account.encode()).hexdigest()[:16]}.jsonl"

    async def send(self, payload: Payload) -> Mapping[str, Any]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._send_later(payload)
            except RequestError as error:
                learned = self.learned(error, payload)
                if not learned.again or attempt == ATTEMPTS:
                    raise
                self._counts["retries"] += 1
        raise AssertionError("the last attempt returns or raises")

    async def _send_later(self, payload: Payload) -> Mapping[str, Any]:
        into, most_out = self.estimate_tokens(payload)
        # Without going alone first: that would take another day.
        reserved = await self.reserve(into, most_out, first_alone=False)
        spent = 0.0
        try:
            assert self._queue is not None  # connected
            data = completed(await self._queue.ask(await self.render(payload)))
            spent = self.count(data, into + most_out, reserved)
            return data
        except RequestError as error:
            spent = reserved if error.billed else 0.0
            raise
        finally:
            self.settle(reserved, spent)

    def stop(self) -> None:
        super().stop()
        if self._queue is not None:
            self._queue.stop()

    def status(self) -> str:
        parts = [self._queue.status()] if self._queue is not None else []
        parts += [f"{self._counts[what]} {what}" for what in ("retries", "failed") if self._counts[what]]
        return ", ".join(parts)

    def metadata(self) -> Mapping[str, Any]:
        known = {k: v for k, v in super().metadata().items() if k != "concurrency"}
        return {**known, "batches": list(self._queue.batches) if self._queue is not None else []}
