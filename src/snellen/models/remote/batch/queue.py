"""Collect requests until no more come, submit them as batches, and wait for the answers."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from snellen._util.words import counted
from snellen.errors import Stopped
from snellen.models.remote.batch.formats import BatchFormat
from snellen.models.remote.batch.ledger import Ledger, Submission
from snellen.models.remote.retry import RequestError, RetryPolicy

__all__ = ["BatchQueue"]

log = logging.getLogger(__name__)

#: The most requests, and bytes of requests, in a batch: what all providers take.
MOST, MAX_BYTES = 10_000, 90_000_000
#: The most seconds between two looks at a batch, and how much longer each wait is than the last.
LONGEST_POLL, GROWTH = 120.0, 1.5
T = TypeVar("T")


class _NotReceivedError(Exception):
    """A batch of an earlier process never reached the provider."""


class BatchQueue:
    """Requests on their way through batches, for one connection.

    Args:
        form: the provider's.
        ledger: of its batches.
        policy: how often to try to submit, or to fetch answers.
        quiet: seconds without a new request after which those that wait are submitted.
        poll: seconds until the first look at a batch.
    """

    def __init__(
        self, form: BatchFormat, ledger: Ledger, policy: RetryPolicy, quiet: float, poll: float
    ) -> None:
        self._form, self._ledger, self._policy = form, ledger, policy
        self._quiet, self._poll = quiet, poll
        self._asked: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._waiting: dict[str, bytes] = {}
        self._bytes = 0
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._left = {key: submission for submission in ledger.open() for key in submission.keys}
        #: The requests of batches of which it is not known whether the provider received them.
        self._doubtful: dict[str, dict[str, bytes]] = {}
        #: Answers of earlier processes' batches that came before they were asked for.
        self._early: dict[str, Mapping[str, Any]] = {}
        self._answered: dict[str, int] = {}
        self._delivered: set[str] = set()
        #: The provider's ids of all batches of this connection.
        self.batches: list[str] = []

    async def ask(self, body: bytes) -> Mapping[str, Any]:
        """Return the answer to a chat completion's request.

        Raises:
            RequestError: there is none.
            Stopped: the run was stopped; the batch goes on, and a resumed run collects it.
        """
        if self._stopped:
            raise Stopped("The run was stopped.")
        key = hashlib.sha256(body).hexdigest()
        if (future := self._asked.get(key)) is None:
            future = self._asked[key] = asyncio.get_running_loop().create_future()
            submission = self._left.pop(key, None)
            if key in self._early:
                self._end({key}, self._early.pop(key))
            elif submission is None or self._ended(submission):
                self._wait(key, self._form.line(key, body))
            else:
                if submission.batch is None:
                    self._doubtful.setdefault(submission.name, {})[key] = self._form.line(key, body)
                self._start(submission)
        answer = await asyncio.shield(future)
        self._delivered.add(key)
        return answer

    def _ended(self, submission: Submission) -> bool:
        """Return whether a batch has ended; what it did not answer goes into another."""
        task = self._tasks.get(submission.name)
        return task is not None and task.done()

    def status(self) -> str:
        """Return how far the batches are."""
        under_way = [name for name, task in self._tasks.items() if not task.done()]
        answered = sum(self._answered.get(name, 0) for name in under_way)
        return f"{counted(len(under_way), 'batch', 'batches')}, {counted(answered, 'answer')}"

    def stop(self) -> None:
        """Answer all that wait with the news that the run was stopped."""
        self._stopped = True
        batches = sum(not task.done() for task in self._tasks.values())
        later = (
            f" {counted(batches, 'batch goes on', 'batches go on')}: resume the run to collect the answers."
            if batches
            else ""
        )
        self._end(set(self._asked), Stopped(f"The run was stopped.{later}"))
        if self._timer is not None:
            self._timer.cancel()

    async def close(self) -> None:
        """Stop following batches."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def settle(self) -> None:
        """Forget the answers that were handed out: by now they are stored."""
        for submission in self._ledger.open():
            if keys := submission.keys & self._delivered:
                self._ledger.collected(submission.name, keys)

    # ── submitting ──────────────────────────────────────────────────────────────────────────────────

    def _wait(self, key: str, line: bytes) -> None:
        """Submit a request together with others."""
        if len(self._waiting) >= MOST or self._bytes + len(line) > MAX_BYTES:
            self._flush()
        self._waiting[key] = line
        self._bytes += len(line)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._quiet, self._flush)

    def _flush(self) -> None:
        lines, self._waiting, self._bytes = self._waiting, {}, 0
        if lines and not self._stopped:
            submission = self._ledger.begin(uuid.uuid4().hex, lines)
            self._start(submission, list(lines.values()))

    def _start(self, submission: Submission, lines: list[bytes] | None = None) -> None:
        if submission.name not in self._tasks:
            self._tasks[submission.name] = asyncio.create_task(self._follow(submission, lines))

    async def _follow(self, submission: Submission, lines: list[bytes] | None) -> None:
        """See a batch through: submit it unless it was, wait for its end, and hand out the answers."""
        try:
            batch = submission.batch or await self._submitted(submission, lines)
            self.batches.append(batch)
            await self._collected(submission, batch)
        except _NotReceivedError:
            self._ledger.collected(submission.name)
            for key, line in self._doubtful.pop(submission.name, {}).items():
                self._wait(key, line)
        except RequestError as error:
            keys = set(submission.keys)
            if not error.unavailable:  # otherwise a resumed run may still collect it
                self._ledger.collected(submission.name)
            self._end(keys, error)
        except Exception as error:  # ours; nobody must wait for ever
            self._end(submission.keys, RequestError(f"the batch failed ({error})", again=False))
        # What was not asked for in this session, such as other samples, remains in the ledger.

    async def _submitted(self, submission: Submission, lines: list[bytes] | None) -> str:
        """Submit a batch, or find the one that was submitted before the process ended."""
        sent = lines is None
        batch = None

        async def submit() -> str:
            nonlocal sent, batch
            if sent:  # perhaps: the answer was lost
                batch = await self._form.find(submission.name, submission.count, submission.began)
            if batch is None and lines is None:
                raise _NotReceivedError
            sent = True
            return batch or await self._form.submit(submission.name, lines or [])

        batch = await self._tried(submit)
        self._ledger.submitted(submission.name, batch)
        log.info("batch %s: %d requests", batch, submission.count)
        return batch

    # ── collecting ──────────────────────────────────────────────────────────────────────────────────

    async def _collected(self, submission: Submission, batch: str) -> None:
        pause = self._poll
        while not (progress := await self._tried(lambda: self._form.progress(batch))).ended:
            self._answered[submission.name] = progress.answered
            await asyncio.sleep(pause)
            pause = min(pause * GROWTH, LONGEST_POLL)
        if progress.problem:
            raise RequestError(f"the provider refused the batch: {progress.problem}", again=False, stop=True)
        failed = set(submission.keys)
        for key, result in await self._tried(lambda: self._form.results(progress)):
            if isinstance(result, RequestError):
                self._end({key}, result)
            elif key in failed:
                failed.discard(key)
                self._end({key}, result)
        # Those without an answer are asked again, if at all, in another batch.
        self._ledger.collected(submission.name, failed)
        self._end(failed, RequestError("the batch ended before this request", again=False))

    def _end(self, keys: set[str], result: Mapping[str, Any] | Exception) -> None:
        for key in list(keys):
            future = self._asked.pop(key, None)
            if future is None:
                if not isinstance(result, Exception):
                    self._early[key] = result
            elif isinstance(result, Exception):
                future.set_exception(result)
                future.exception()  # whether or not anyone awaits it
            else:
                future.set_result(result)

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call, with as many attempts as the policy allows."""
        from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            log.info("batches: %s; retrying", error)
            pause = min(self._poll * 2.0**state.attempt_number, LONGEST_POLL)
            return max(float(getattr(error, "after", None) or 0.0), pause)

        async def attempt() -> T:
            return await call()

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, RequestError) and error.again),
            stop=stop_after_attempt(self._policy.tries),
            wait=wait,
            reraise=True,
        )
        answer: T = await retrying(attempt)
        return answer
