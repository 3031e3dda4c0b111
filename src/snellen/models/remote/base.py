"""Shared by all hosted models: pacing, retries, budget, and giving up."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary

from snellen._util.redaction import storable
from snellen.errors import BudgetSpent, SnellenError, Stopped, reason_of
from snellen.models.base import Model
from snellen.models.remote.concurrency import Concurrency
from snellen.models.remote.prices import Prices
from snellen.models.remote.rate import PerMinute
from snellen.models.remote.replies import usage_of
from snellen.models.remote.retry import RequestError, RetryPolicy, Tries
from snellen.types import Outcome, Request, Response, Usage

if TYPE_CHECKING:
    from snellen.images import Image

__all__ = ["RemoteModel"]

log = logging.getLogger(__name__)

#: The default limit of concurrent requests.
CONCURRENCY = 128
#: Samples looked up or stored in the meantime.
SPARE_WORKERS = 16
#: Seconds within which the first retry comes, at a random moment; doubled for each further one, up to
#: LONGEST_WAIT ("full jitter").
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
#: Statuses for a wrong key, URL or model, which affect all requests.
HOPELESS = frozenset({401, 403, 404})


class NoAnswerInTime(RequestError):
    """The timeout of one attempt has passed."""


class RemoteModel(Model):
    """A hosted model. A subclass sends one attempt (:meth:`send_once`) and combines attempts into an
    answer (:meth:`ask`).
    """

    remote = True
    batch_size = 1

    def __init__(
        self, name: str, address: str, retry_policy: RetryPolicy, prices: Prices | None = None
    ) -> None:
        self.name, self.address = name, address
        self.retry_policy, self.prices = retry_policy, prices
        self._tokens_each = 0.0  # per request, input and output, as measured
        self._most_into = 0
        self._images: WeakKeyDictionary[Image, Any] = WeakKeyDictionary()
        self._begin()

    @property
    def max_concurrency(self) -> int:
        """The most concurrent requests."""
        return self.limits.max_concurrency or CONCURRENCY

    @property
    def workers(self) -> int:  # type: ignore[override]  # an attribute of Model: here it follows the limits
        return self.max_concurrency + SPARE_WORKERS

    def _begin(self) -> None:
        self._pace = Concurrency(self.max_concurrency, timeout=self.retry_policy.timeout)
        self._requests = PerMinute(self.retry_policy.requests_per_minute)
        self._tokens = PerMinute(self.retry_policy.tokens_per_minute)
        self._over, self._settled = asyncio.Event(), asyncio.Event()
        self._cause: Stopped | None = None
        self._in_a_row = self._answered = 0
        self._counts: Counter[str] = Counter()
        self._served: set[str] = set()

    # ── what a subclass does ────────────────────────────────────────────────────────────────────────

    @abstractmethod
    async def ask(self, request: Request) -> Response:
        """Answer one request, by one or several calls of :meth:`send`."""

    @abstractmethod
    async def send_once(self, payload: Any) -> Mapping[str, Any]:
        """Send one attempt, and return the JSON response.

        Raises:
            RequestError: it failed.
        """

    @abstractmethod
    def encode(self, image: Image) -> Any:
        """Encode an image for sending."""

    @abstractmethod
    def connect(self) -> Any:
        """Return an asynchronous context manager in which :meth:`send_once` works."""

    def estimate_tokens(self, payload: Any) -> tuple[float, float]:
        """Estimate the input tokens of a payload, and the most output tokens."""
        return 0.0, 0.0

    # ── answering ───────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        self._begin()
        async with self.connect():
            yield

    def prepare(self, image: Image) -> None:
        self._images[image] = self.encode(image)

    async def encoded(self, image: Image) -> Any:
        """Return an image encoded for sending, encoding it now, in a thread, if it was not prepared."""
        if image not in self._images:
            await asyncio.to_thread(self.prepare, image)
        return self._images[image]

    def sends(self, request: Request) -> tuple[int, int]:
        calls, _, _ = self.expects(request)
        for image in request.images:
            if image not in self._images:
                self.prepare(image)
        size = sum(self.size_of(self._images[image]) for image in request.images)
        return calls * len(request.images), calls * size

    def size_of(self, encoded: Any) -> int:
        """Return the bytes of an encoded image."""
        return len(encoded)

    def together(self, requests: Sequence[Request]) -> list[list[int]]:
        """Send each request separately, so that it is committed as it arrives."""
        return [[place] for place in range(len(requests))]

    async def respond(self, requests: Sequence[Request]) -> list[Response]:
        replies = await asyncio.gather(*map(self._respond, requests), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return [reply for reply in replies if isinstance(reply, Response)]

    async def _respond(self, request: Request) -> Response:
        began = time.perf_counter()
        try:
            reply = await self.ask(request)
        except Stopped as error:
            raise self._cause or error from None
        except SnellenError:
            raise
        except Exception as error:  # a failure, or an unexpected exception, ours or the server's
            failed = error if isinstance(error, RequestError) else RequestError(reason_of(error), again=False)
            reply = Response(outcome=Outcome.ERROR, reason=str(failed))
            self._failed(failed)
        else:
            self._in_a_row = 0
            self._answered += 1
        return replace(reply, latency=time.perf_counter() - began)

    def _failed(self, error: RequestError) -> None:
        """Count a failed request, and give up after too many in a row.

        Raises:
            Stopped: too many in a row, or an error that affects all requests.
        """
        self._in_a_row += 1
        self._counts["failed"] += 1
        hopeless = error.stop or (error.status in HOPELESS and not self._answered)
        if hopeless or self._in_a_row >= self.retry_policy.max_consecutive_failures:
            often = "" if hopeless else f" after {self._in_a_row} failures in a row; the last"
            self._give_up(Stopped(f"{self.name} stopped{often}: {error}. {self.advice(error)}".rstrip()))

    def _give_up(self, cause: Stopped) -> NoReturn:
        """Start nothing more, and raise the reason in all callers."""
        self._cause = self._cause or cause
        self.stop()
        raise self._cause

    def advice(self, error: RequestError) -> str:
        """Return one sentence of advice on a failure; may be empty."""
        return ""

    async def send(self, payload: Any) -> Mapping[str, Any]:
        """Send a payload, with as many attempts as the retry policy allows, and return the response.

        Raises:
            RequestError: the last attempt failed.
            Stopped: it was stopped in the meantime, or the budget is used up.
        """
        from tenacity import (
            AsyncRetrying,
            RetryCallState,
            retry_if_exception,
            wait_random_exponential,
        )

        tries = Tries()
        backoff = wait_random_exponential(FIRST_WAIT, LONGEST_WAIT)

        def wait(state: RetryCallState) -> float:
            # A server's Retry-After is the minimum: some repeatedly send 0.
            error = state.outcome.exception() if state.outcome else None
            return backoff(state) + (getattr(error, "after", None) or 0.0)

        def late(state: RetryCallState) -> bool:
            return tries.spent() + state.upcoming_sleep > self.retry_policy.total_timeout

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, RequestError) and error.again),
            stop=lambda state: tries.counted >= self.retry_policy.tries or late(state),
            wait=wait,
            sleep=self._sleep,
            reraise=True,
        )
        reply: Mapping[str, Any] = await retrying(self._try, payload, tries)
        return reply

    @property
    def in_flight(self) -> int:
        """The requests that wait for an answer."""
        return self._pace.under_way

    async def _sleep(self, seconds: float) -> None:
        """Sleep before another attempt."""
        await self._wait(seconds)
        self._counts["retries"] += 1

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped(f"{self.name} was stopped.")

    async def _try(self, payload: Any, tries: Tries) -> Mapping[str, Any]:
        into, most_out = self.estimate_tokens(payload)
        expected = self._tokens_each or into + most_out
        loop = asyncio.get_running_loop()
        came = loop.time()
        if (turn := max(self._requests.turn(), self._tokens.turn(expected))) > 0:
            await self._wait(turn)
        async with self._pace.slot():
            reserved = await self.reserve(into, most_out)
            began = loop.time()
            if tries.began is None:
                tries.began = began
            else:
                tries.waited += began - came
            left = self.retry_policy.total_timeout - tries.spent()
            spent = reserved  # also on cancellation: the server may have processed it
            try:
                data = await self._in_time(payload, min(self.retry_policy.timeout, max(left, 1.0)))
                spent = self.count(data, expected, reserved)
            except RequestError as error:
                spent = reserved if error.billed else 0.0
                kind = str(error.status or "no answer")
                self._counts[kind] += 1
                if error.again and self._counts[kind] == 1:
                    log.info("%s: %s; retrying", self.name, error)
                tries.counted += not (error.unavailable and self._pace.down_for)
                self._slow_down(error, began)
                if error.after and error.after <= self.retry_policy.total_timeout:
                    self._pace.pause(error.after)
                raise
            finally:
                self.settle(reserved, spent)
            self._pace.succeeded(loop.time() - began)
            return data

    def _slow_down(self, error: RequestError, began: float) -> None:
        """Adapt to what a failed attempt tells of the server.

        Raises:
            Stopped: it has been away for too long.
        """
        pace, policy = self._pace, self.retry_policy
        if error.status == 429:
            pace.throttled(began)
        elif isinstance(error, NoAnswerInTime):
            pace.timed_out(began)
        elif error.unavailable:
            pace.unavailable(began, FIRST_WAIT, LONGEST_WAIT / 2)
            # A server that was never there may be none; one that was there restarts.
            away = pace.down_for > policy.total_timeout or (
                not self._answered and pace.probes >= policy.tries
            )
            if away:
                self._give_up(Stopped(f"{self.name} cannot be reached ({self.address}): {error}."))

    async def _in_time(self, payload: Any, seconds: float) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                return await self.send_once(payload)
        except TimeoutError as error:
            raise NoAnswerInTime(f"no answer within {seconds:.0f} s", billed=True) from error

    # ── tokens and money ────────────────────────────────────────────────────────────────────────────

    async def reserve(self, into: float, most_out: float, first_alone: bool = True) -> float:
        """Reserve the most that an attempt may cost; if that exceeds the rest, wait for others to settle.

        Args:
            into: input tokens, estimated.
            most_out: the most output tokens.
            first_alone: whether the first request goes alone, to learn how the server counts tokens.

        Raises:
            Stopped: it exceeds the rest, and nothing else is in flight.
        """
        budget = self.limits.budget
        if budget is None or self.prices is None:
            return 0.0
        # Other models may share the budget, in this loop or in another thread's.
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # its loop is closed
                loop.call_soon_threadsafe(self._settled.set)

        budget.waiting[id(self)] = wake
        while True:
            self._settled.clear()  # before looking, so that nothing is missed
            if self._over.is_set():
                raise Stopped(f"{self.name} was stopped.")
            cost = self.prices.cost(max(into, self._most_into), most_out)
            guess = first_alone and not self._counts["requests"] and budget.pending
            if not guess and budget.reserve(cost):
                return cost
            if not budget.pending:
                self._give_up(BudgetSpent(budget.refusal(cost)))
            await self._settled.wait()

    def settle(self, reserved: float, spent: float) -> None:
        """Release a reservation, and record what was spent."""
        if self.limits.budget is not None and self.prices is not None:
            self.limits.budget.settle(reserved, spent)

    def count(self, data: Mapping[str, Any], expected: float, reserved: float) -> float:
        """Record the tokens of an answer, and return its cost: the reserved amount, if the server does not
        report usage.
        """
        self._counts["requests"] += 1
        _, into, out, _ = usage = usage_of(data)
        self._most_into = max(self._most_into, into)
        if into + out:
            self._tokens.correct(into + out - expected)
            # A mean weighted toward recent requests.
            self._tokens_each += 0.1 * (into + out - self._tokens_each) if self._tokens_each else into + out
        if isinstance(data.get("model"), str) and len(self._served) < 20:
            self._served.add(storable(data["model"])[:200])
        if self.prices is None:
            return 0.0
        return self.prices.of(usage) if into + out else reserved

    def price(self, usage: Usage) -> float | None:
        return self.prices.of(usage) if self.prices else None

    # ── for the one who looks on ────────────────────────────────────────────────────────────────────

    def stop(self) -> None:
        if not self._over.is_set() and self.in_flight:
            log.info("%s: waiting for %d requests in flight", self.name, self.in_flight)
        self._over.set()
        self._settled.set()
        self._pace.stop()

    def status(self) -> str:
        parts = [f"{self.in_flight} in flight"]
        if self._pace.down_for:
            parts = [f"server away for {self._pace.down_for:.0f} s, trying again"]
        parts += [f"{self._counts[what]} {what}" for what in ("retries", "failed") if self._counts[what]]
        if self.limits.budget is not None:
            parts.append(f"${self.limits.budget.spent:.4f}")
        return ", ".join(parts)

    def metadata(self) -> Mapping[str, Any]:
        return {
            "address": self.address,
            "served": sorted(self._served),
            "calls": dict(self._counts),
            "concurrency": int(self._pace.limit),
            **(self.prices.as_options() if self.prices else {}),
        }
