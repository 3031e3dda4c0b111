"""What all models behind an address share: pace, retries, budget, and giving up."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary

from snellen._util.redaction import storable
from snellen.errors import SnellenError, Stopped, reason_of
from snellen.models.base import Model
from snellen.models.remote.prices import Prices
from snellen.models.remote.rate import Concurrency, PerMinute
from snellen.models.remote.replies import tokens_of
from snellen.models.remote.retry import RequestError, RetryPolicy, Tries
from snellen.types import Outcome, Request, Response

if TYPE_CHECKING:
    from snellen.images import Image

__all__ = ["RemoteModel"]

log = logging.getLogger(__name__)

#: Requests under way at once where nobody says otherwise.
CONCURRENCY = 128
#: Samples that are looked up or stored meanwhile.
SPARE_WORKERS = 16
#: Seconds within which a second try comes, at a random moment; twice as many for each further one, up to
#: LONGEST_WAIT ("full jitter").
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
#: Statuses that say: this key, or this address, or this model will do for no request at all.
HOPELESS = frozenset({401, 403, 404})


class RemoteModel(Model):
    """A model behind an address. A subclass makes one try (:meth:`send_once`) and puts tries together to an
    answer (:meth:`ask`).
    """

    remote = True
    batch_size = 1

    def __init__(
        self, name: str, address: str, retry_policy: RetryPolicy, prices: Prices | None = None
    ) -> None:
        self.name, self.address = name, address
        self.retry_policy, self.prices = retry_policy, prices
        self._tokens_each = 0.0  # of a request, both ways, as measured
        self._most_into = 0
        self._images: WeakKeyDictionary[Image, Any] = WeakKeyDictionary()
        self._begin()

    @property
    def max_concurrency(self) -> int:
        """How many requests may be under way at once."""
        return self.limits.max_concurrency or CONCURRENCY

    @property
    def workers(self) -> int:  # type: ignore[override]  # an attribute of Model: here it follows the limits
        return self.max_concurrency + SPARE_WORKERS

    def _begin(self) -> None:
        self._pace = Concurrency(self.max_concurrency)
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
        """Answer one request, by one :meth:`send` or several."""

    @abstractmethod
    async def send_once(self, payload: Any) -> Mapping[str, Any]:
        """One try: send, and give the JSON that came back.

        Raises:
            RequestError: none did.
        """

    @abstractmethod
    def encode(self, image: Image) -> Any:
        """An image as it is sent."""

    @abstractmethod
    def connect(self) -> Any:
        """An asynchronous context manager in which :meth:`send_once` works."""

    def estimate_tokens(self, payload: Any) -> tuple[float, float]:
        """About how many tokens a payload takes, into the model and, at most, out of it."""
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
        """An image as it is sent; made now, in a thread, where nobody told of it before."""
        if image not in self._images:
            await asyncio.to_thread(self.prepare, image)
        return self._images[image]

    def together(self, requests: Sequence[Request]) -> list[list[int]]:
        """Each alone: it is committed as it comes."""
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
        except Exception as error:  # a failure, or a fault that nobody foresaw, of ours or of a server's
            failed = error if isinstance(error, RequestError) else RequestError(reason_of(error), again=False)
            reply = Response(outcome=Outcome.ERROR, reason=str(failed))
            self._failed(failed)
        else:
            self._in_a_row = 0
            self._answered += 1
        return replace(reply, latency=time.perf_counter() - began)

    def _failed(self, error: RequestError) -> None:
        """Count a request that came to nothing, and give up where that is all that comes.

        Raises:
            Stopped: too many in a row, or one that says that no other can fare better.
        """
        self._in_a_row += 1
        self._counts["failed"] += 1
        hopeless = error.status in HOPELESS and not self._answered
        if hopeless or self._in_a_row >= self.retry_policy.max_consecutive_failures:
            often = "" if hopeless else f" after {self._in_a_row} failures in a row; the last"
            self._give_up(Stopped(f"{self.name} stopped{often}: {error}. {self.advice(error)}".rstrip()))

    def _give_up(self, cause: Stopped) -> NoReturn:
        """Begin nothing more, and say why to all who ask."""
        self._cause = self._cause or cause
        self.stop()
        raise self._cause

    def advice(self, error: RequestError) -> str:
        """What a user can do about a failure, in a sentence; or nothing."""
        return ""

    async def send(self, payload: Any) -> Mapping[str, Any]:
        """What a server answers to this, after as many tries as it takes and the retry policy allows.

        Raises:
            RequestError: the last try did.
            Stopped: it was stopped meanwhile, or the budget is used up.
        """
        from tenacity import (
            AsyncRetrying,
            RetryCallState,
            retry_if_exception,
            stop_after_attempt,
            wait_random_exponential,
        )

        tries = Tries()
        backoff = wait_random_exponential(FIRST_WAIT, LONGEST_WAIT)

        def wait(state: RetryCallState) -> float:
            # What a server asks for is the least: some ask for no patience at all, again and again.
            error = state.outcome.exception() if state.outcome else None
            return backoff(state) + (getattr(error, "after", None) or 0.0)

        def late(state: RetryCallState) -> bool:
            return tries.spent() + state.upcoming_sleep > self.retry_policy.total_timeout

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, RequestError) and error.again),
            stop=lambda state: stop_after_attempt(self.retry_policy.tries)(state) or late(state),
            wait=wait,
            sleep=self._sleep,
            reraise=True,
        )
        reply: Mapping[str, Any] = await retrying(self._try, payload, tries)
        return reply

    async def _sleep(self, seconds: float) -> None:
        """Before another try."""
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
        came = time.monotonic()
        if (turn := max(self._requests.turn(), self._tokens.turn(expected))) > 0:
            await self._wait(turn)
        async with self._pace.slot():
            reserved = await self._reserve(into, most_out)
            began = time.monotonic()
            if tries.began is None:
                tries.began = began
            else:
                tries.waited += began - came
            left = self.retry_policy.total_timeout - tries.spent()
            spent = reserved  # also where this is cancelled: the server may have worked on it
            try:
                data = await self._in_time(payload, min(self.retry_policy.timeout, max(left, 1.0)))
                spent = self._count(data, expected, reserved)
            except RequestError as error:
                spent = reserved if error.billed else 0.0
                kind = str(error.status or "no answer")
                self._counts[kind] += 1
                if error.again and self._counts[kind] == 1:
                    log.info("%s: %s; trying again", self.name, error)
                if error.status == 429:
                    self._pace.throttled(began)
                if error.after and error.after <= self.retry_policy.total_timeout:
                    self._pace.pause(error.after)
                raise
            finally:
                if self.limits.budget is not None and self.prices is not None:
                    self.limits.budget.settle(reserved, spent)
                    self._settled.set()
            self._pace.succeeded()
            return data

    async def _in_time(self, payload: Any, seconds: float) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                return await self.send_once(payload)
        except TimeoutError as error:
            raise RequestError(f"no answer within {seconds:.0f} s", billed=True) from error

    # ── tokens and money ────────────────────────────────────────────────────────────────────────────

    async def _reserve(self, into: float, most_out: float) -> float:
        """Set aside what a try may cost at most; where that is more than is left, wait for what others
        come to.

        Raises:
            Stopped: it is more than is left, and nothing else is under way.
        """
        budget = self.limits.budget
        if budget is None or self.prices is None:
            return 0.0
        while True:
            if self._over.is_set():
                raise Stopped(f"{self.name} was stopped.")
            cost = self.prices.cost(max(into, self._most_into), most_out)
            # The first one goes alone: how a server counts is known once it has.
            guess = not self._counts["requests"] and budget.pending
            if not guess and budget.reserve(cost):
                return cost
            if not budget.pending:
                self._give_up(Stopped(budget.refusal(cost)))
            self._settled.clear()
            await self._settled.wait()

    def _count(self, data: Mapping[str, Any], expected: float, reserved: float) -> float:
        """Take note of what an answer took, and give what it cost: what was set aside for it, where the
        server does not say.
        """
        self._counts["requests"] += 1
        into, out = tokens_of(data)
        self._most_into = max(self._most_into, into)
        if into + out:
            self._tokens.correct(into + out - expected)
            # The mean of the last ones, weighted towards the newest.
            self._tokens_each += 0.1 * (into + out - self._tokens_each) if self._tokens_each else into + out
        if isinstance(data.get("model"), str) and len(self._served) < 20:
            self._served.add(storable(data["model"])[:200])
        if self.prices is None:
            return 0.0
        return self.prices.cost(into, out) if into + out else reserved

    def price(self, requests: int, prompt_tokens: int, completion_tokens: int) -> float | None:
        return self.prices.cost(prompt_tokens, completion_tokens) if self.prices else None

    # ── for the one who looks on ────────────────────────────────────────────────────────────────────

    def stop(self) -> None:
        if not self._over.is_set() and self._pace.under_way:
            log.info("%s: waiting for %d requests under way", self.name, self._pace.under_way)
        self._over.set()
        self._settled.set()
        self._pace.stop()

    def status(self) -> str:
        parts = [f"{self._pace.under_way} under way"]
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
            **({"price_in": self.prices.into, "price_out": self.prices.out} if self.prices else {}),
        }
