"""What a model is to the rest of the house, and what local ones share."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from snellen._util.asyncio import complete
from snellen._util.tokens import image_tokens, text_tokens
from snellen.errors import reason_of
from snellen.models.out_of_memory import Shrinking, release
from snellen.registry import Registry
from snellen.types import Kind, Outcome, Request, Response, Sample

__all__ = ["MODELS", "Budget", "Limits", "LocalModel", "Model", "batches", "failure"]

if TYPE_CHECKING:
    from snellen.images import Image
    from snellen.parsing.boxes import BoxFormat

T = TypeVar("T")


@dataclass
class Budget:
    """What a command may spend, in US dollars, on all its models together."""

    most: float
    spent: float = 0.0
    reserved: float = 0.0
    pending: int = 0  # requests that something is set aside for

    def reserve(self, cost: float) -> bool:
        """Set aside what a request may cost; False where that could be more than there is."""
        if self.spent + self.reserved + cost > self.most:
            return False
        self.reserved += cost
        self.pending += 1
        return True

    def refusal(self, cost: float) -> str:
        """Why a request is not made, in words."""
        return (
            f"The budget is used up: ${self.spent:.4f} of --max-cost {self.most:g} are spent, and another "
            f"request could cost ${cost:.4f}."
        )

    def settle(self, reserved: float, cost: float) -> None:
        """Take back what was set aside, and note what it came to."""
        self.pending -= 1
        self.reserved = self.reserved - reserved if self.pending else 0.0
        self.spent += cost


@dataclass(frozen=True)
class Limits:
    """What holds for all models of a command.

    Args:
        max_concurrency: requests under way at once.
        budget: shared by all.
    """

    max_concurrency: int | None = None
    budget: Budget | None = None


class Model(ABC):
    """Who answers.

    Attributes:
        name: how a user named it.
        kinds: what it can be asked for.
        text_only: whether it answers requests without an image.
        workers: how many blocks of samples may be under way at once.
        batch_size: how many requests, or images with all their questions, are answered together.
        remote: whether it is behind an address: its answers may cost money.
        boxes: how it writes places in a picture, where its family is known to (see docs/grounding.md).
        fixed: whether its answers were written before it was asked.
        hint: what a user can do where it cannot answer a protocol, in a sentence.
        limits: what a user sets for a whole command; the plan does so.
    """

    name: str = "unnamed"
    kinds: frozenset[Kind] = frozenset(Kind)
    text_only: bool = True
    workers: int = 1
    batch_size: int = 16
    remote: bool = False
    boxes: BoxFormat | None = None
    fixed: bool = False
    hint: str = ""
    limits: Limits = Limits()

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Everything of the model that can change an answer, as JSON: the memory's key holds it.
        Known without loading the model.
        """

    @abstractmethod
    async def respond(self, requests: Sequence[Request]) -> list[Response]:
        """Answer, in order. What cannot be answered comes back with the outcome ERROR."""

    def stream(self, request: Request) -> Generator[str, None, Response]:
        """Answer one request to generate piece by piece, for somebody who watches; the whole is returned at
        the end. What cannot tell pieces gives all at once. Closed early, it stops generating.
        """

        async def once() -> list[Response]:
            async with self.connected():
                return await self.respond([request])

        (response,) = complete(once())
        if response.text:
            yield response.text
        return response

    def context(self, request: Request) -> Mapping[str, Any]:
        """What, besides the request and the identity, can change the answer, as JSON."""
        return {}

    def together(self, requests: Sequence[Request]) -> list[list[int]]:
        """Which requests, by their places, are to be asked together; what they are answered is then
        committed together.
        """
        groups: dict[Hashable, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(self.group(request), []).append(place)
        return [
            batch
            for places in groups.values()
            for batch in batches(places, self.batch_size, lambda place: self.cost(requests[place]))
        ]

    def group(self, request: Request) -> Hashable:
        """Requests of one group may share a batch."""
        return ()

    def cost(self, request: Request) -> int:
        """How many rows of a batch a request takes."""
        return 1

    @property
    def request_batch(self) -> int:
        """How many questions about an image cost little more than one, so that a protocol may ask them
        before it knows that it needs their answers. Known once the model is loaded.
        """
        return 1

    def prepare(self, image: Image) -> None:
        """Told in another thread of an image that will be asked about: to make of it what will be needed.

        Raises:
            ImageError: it cannot be read.
        """
        _ = image.pixels

    #: Whether :meth:`prefetch` does anything.
    prefetches: bool = False

    def prefetch(self, requests: Sequence[Request]) -> None:
        """Told in another thread of requests that will come soon: what can be made ready may be."""

    def missing_fields(self, sample: Callable[[], Sample]) -> str | None:
        """What the data lack for it to answer, in words, going by their first sample; None where nothing."""
        return None

    def check(self) -> None:
        """Refuse what can be known to fail before anything is asked: a key or a package that is not there.

        Raises:
            ModelError, MissingExtra: as said.
        """

    def load(self) -> None:
        """Load what answering needs; the time that it takes is not counted.

        Raises:
            ModelError: it cannot be loaded.
        """

    def metadata(self) -> Mapping[str, Any]:
        """What is worth knowing of a loaded model: ``parameters``, ``device``, ``dtype`` …, and
        ``peak_gpu_bytes`` so far.
        """
        return {}

    def close(self) -> None:
        """Give back what :meth:`load` took."""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """What answering needs while an event loop runs: connections. Requests come within it."""
        yield

    def stop(self) -> None:
        """Begin nothing more; what is under way may end, and is awaited. Told to whoever answers in several
        steps, or waits before answering.
        """

    def status(self) -> str:
        """How it goes, in a few words, for a line of progress; empty where there is nothing to say."""
        return ""

    def expects(self, request: Request) -> tuple[int, float, float]:
        """How many prompts a request takes, about how many tokens they are, and how many at most come out."""
        text = text_tokens(sum(len(message.text) for message in request.messages))
        images = sum(image_tokens(image.size) for image in request.images)
        out = request.decoding.max_tokens if request.kind is Kind.GENERATE else 1
        return 1, text + images, out

    def price(self, requests: int, prompt_tokens: int, completion_tokens: int) -> float | None:
        """What so many requests of so many tokens cost in US dollars; None where that is not known."""
        return None


class LocalModel(Model):
    """A model in this process: answers batch by batch, in a thread, one batch at a time.

    A batch that does not fit into memory is halved, and so are all later ones (see
    :mod:`snellen.models.out_of_memory`). A batch that fails otherwise is asked again request by request, so
    that one bad request spoils no other.
    """

    @cached_property
    def memory(self) -> Shrinking:
        """What fits into memory at once."""
        return Shrinking(self.free_memory)

    def free_memory(self) -> None:
        """Give back what is cached, after memory ran out."""
        release()

    @cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()

    @abstractmethod
    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """Answer requests of one group (see :meth:`group`) as one batch."""

    def group(self, request: Request) -> Hashable:
        constrained = request.kind is Kind.GENERATE and bool(request.continuations)
        return (request.kind, request.decoding, len(request.images), constrained)

    async def respond(self, requests: Sequence[Request]) -> list[Response]:
        return await asyncio.to_thread(self._respond, requests)

    def _respond(self, requests: Sequence[Request]) -> list[Response]:
        responses: list[Response] = [Response()] * len(requests)
        with self._lock:
            for places in self.together(requests):
                began = time.perf_counter()
                answers = self._resilient([requests[i] for i in places])
                took = time.perf_counter() - began
                for place, response in zip(places, answers, strict=True):
                    responses[place] = replace(response, latency=took)
        return responses

    def fitting(self, rows: Sequence[Any], run: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
        """Run rows in chunks that fit into memory (see :mod:`snellen.models.out_of_memory`).

        Raises:
            OutOfMemory: a single row does not fit.
        """
        return self.memory.run(rows, self.batch_size, run)

    def _resilient(self, batch: list[Request]) -> list[Response]:
        try:
            return self.answer(batch)
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                return self._resilient(batch[:middle]) + self._resilient(batch[middle:])
            return [failure(error)]


def failure(error: Exception) -> Response:
    """The response that says why there is none."""
    return Response(outcome=Outcome.ERROR, reason=reason_of(error))


def batches(items: Sequence[T], size: int, cost: Callable[[T], int]) -> list[list[T]]:
    """Items in order, cut so that the costs of a batch add up to ``size`` at most (or it is one item)."""
    chunks: list[list[T]] = []
    rows = 0
    for item in items:
        if not chunks or rows + cost(item) > size:
            chunks.append([])
            rows = 0
        chunks[-1].append(item)
        rows += cost(item)
    return chunks


MODELS: Registry[Model] = Registry("model", "snellen.models", bare="hf")
