"""The interface of models, and what local models share."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from snellen._util.asyncio import complete
from snellen._util.tokens import image_tokens, text_tokens
from snellen.errors import ModelError, Stopped, reason_of
from snellen.models.out_of_memory import RESTART, Shrinking, is_broken, release
from snellen.models.suggest import suggest
from snellen.registry import Registry
from snellen.types import Kind, Outcome, Request, Response, Sample, Usage

__all__ = ["EVERYWHERE", "MODELS", "Budget", "Limits", "LocalModel", "Model", "batches", "failure"]

if TYPE_CHECKING:
    from pathlib import Path

    from snellen.images import Image
    from snellen.parsing.boxes import BoxFormat

T = TypeVar("T")


@dataclass
class Budget:
    """A command's budget in US dollars, shared by all its models."""

    most: float
    spent: float = 0.0
    reserved: float = 0.0
    pending: int = 0  # requests with a reservation
    #: Called whenever a reservation is released, by whoever waits for that.
    waiting: dict[int, Callable[[], None]] = field(default_factory=dict, repr=False, compare=False)

    def reserve(self, cost: float) -> bool:
        """Reserve the most that a request may cost; False if that exceeds the rest."""
        if self.spent + self.reserved + cost > self.most:
            return False
        self.reserved += cost
        self.pending += 1
        return True

    def refusal(self, cost: float) -> str:
        """Explain why a request is not made."""
        return (
            f"The budget is used up: ${self.spent:.4f} of --max-cost {self.most:g} spent, and another "
            f"request could cost ${cost:.4f}."
        )

    def settle(self, reserved: float, cost: float) -> None:
        """Release a reservation, and record the actual cost."""
        self.pending -= 1
        self.reserved = self.reserved - reserved if self.pending else 0.0
        self.spent += cost
        for wake in list(self.waiting.values()):
            wake()


@dataclass(frozen=True)
class Limits:
    """Limits for all models of a command.

    Args:
        max_concurrency: the most concurrent requests.
        budget: shared by all models.
    """

    max_concurrency: int | None = None
    budget: Budget | None = None


#: The place of a model whose layers are spread over all GPUs.
EVERYWHERE = "all devices"


class PromptSize(NamedTuple):
    """A prompt as sent, the tokens of its text, those of text and images, and the most that the model takes
    (None if unknown).
    """

    prompt: str
    text_tokens: int
    tokens: int
    context: int | None


class Model(ABC):
    """A model.

    Attributes:
        name: as the user named it; of an object, its class's name unless it has another.
        kinds: the kinds of requests that it supports.
        text_only: whether it supports requests without an image.
        workers: the most blocks of samples in flight.
        batch_size: requests per batch, or images with all their questions.
        remote: whether it is hosted, so that its answers may cost money.
        place: where it computes; models of different places may answer at the same time.
        boxes: the box format of its family, if known (see docs/grounding.md).
        fixed: whether its answers are recorded.
        hint: one sentence for users whose protocol it does not support.
        limits: a command's limits, set by the plan.
        folder: where it may keep what must outlive the process, set by an evaluation; None: nowhere.
    """

    name: str = "Model"
    kinds: frozenset[Kind] = frozenset(Kind)
    text_only: bool = True
    workers: int = 1
    batch_size: int = 16
    remote: bool = False
    place: str = "cpu"
    boxes: BoxFormat | None = None
    fixed: bool = False
    hint: str = ""
    limits: Limits = Limits()
    folder: Path | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        named = next(base for base in cls.__mro__ if "name" in vars(base))
        if vars(named)["name"] == named.__name__:  # not given by an author
            cls.name = cls.__name__

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return everything about the model that can change an answer, as JSON, for the cache key. Available
        without loading the model.
        """

    @abstractmethod
    async def respond(self, requests: Sequence[Request]) -> list[Response]:
        """Answer requests, in order. A failed request gets a response with the outcome ERROR."""

    def stream(self, request: Request) -> Generator[str, None, Response]:
        """Answer one generation request piece by piece; the complete response is returned at the end. Models
        that cannot stream yield everything at once. Closing it early stops generation.
        """

        async def once() -> list[Response]:
            async with self.connected():
                return await self.respond([request])

        (response,) = complete(once())
        if response.text:
            yield response.text
        return response

    def context(self, request: Request) -> Mapping[str, Any]:
        """Return whatever can change the answer in addition to the request and the identity, as JSON."""
        return {}

    def together(self, requests: Sequence[Request]) -> list[list[int]]:
        """Return which requests, by index, to send together; their answers are committed together."""
        groups: dict[Hashable, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(self.group(request), []).append(place)
        return [
            batch
            for places in groups.values()
            for batch in batches(places, self.batch_size, lambda place: self.cost(requests[place]))
        ]

    @property
    def block(self) -> int:
        """The samples to evaluate together, once the model is loaded: as many as a batch holds."""
        return self.batch_size

    def group(self, request: Request) -> Hashable:
        """Return a key; requests with equal keys may share a batch."""
        return ()

    def cost(self, request: Request) -> int:
        """Return the number of batch rows that a request takes."""
        return 1

    @property
    def request_batch(self) -> int:
        """The number of questions about an image that cost little more than one, so that a protocol may send
        them before it knows that it needs the answers. Known once the model is loaded.
        """
        return 1

    def prepare(self, image: Image) -> None:
        """Preprocess an image that will be needed. Called in another thread; in several at once for a hosted
        model, or one that computes elsewhere than on the processor (:attr:`place`).

        Raises:
            ImageError: it cannot be read.
        """
        _ = image.pixels

    #: Whether :meth:`prefetch` does anything.
    prefetches: bool = False

    def prefetch(self, requests: Sequence[Request]) -> None:
        """Prepare requests that will come soon. Called in another thread."""

    def missing_fields(self, sample: Callable[[], Sample]) -> str | None:
        """Return what the data lacks for this model, in words, judging by its first sample; None if
        nothing.
        """
        return None

    def check(self) -> None:
        """Refuse what is known to fail before the evaluation starts: a missing key or package.

        Raises:
            ModelError, MissingExtra: as stated.
        """

    def load(self) -> None:
        """Load everything needed; the time is not counted.

        Raises:
            ModelError: it cannot be loaded.
        """

    def metadata(self) -> Mapping[str, Any]:
        """Facts about a loaded model: ``parameters``, ``device``, ``dtype`` …, and ``peak_gpu_bytes`` so
        far.
        """
        return {}

    def close(self) -> None:
        """Release what :meth:`load` took."""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """A context for connections within an event loop, in which requests are made."""
        yield

    def stop(self) -> None:
        """Start nothing more; requests in flight may finish and are awaited. For models that answer in
        several steps or wait.
        """

    def status(self) -> str:
        """A short status for the progress line; may be empty."""
        return ""

    def prompt_size(self, request: Request) -> PromptSize | None:
        """Return a request's prompt and its length; None for models that do not know. Loads what it needs."""
        return None

    def expects(self, request: Request) -> tuple[int, float, float]:
        """Estimate a request: the number of prompts, their tokens, and the most output tokens."""
        text = text_tokens(sum(len(message.text) for message in request.messages))
        images = sum(image_tokens(image.size) for image in request.images)
        out = request.decoding.max_tokens if request.kind is Kind.GENERATE else 1
        return 1, text + images, out

    def sends(self, request: Request) -> tuple[int, int]:
        """Estimate what of a request leaves the machine: the number of images, and their bytes."""
        return 0, 0

    def price(self, usage: Usage) -> float | None:
        """Return the price in US dollars; None if unknown."""
        return None


class LocalModel(Model):
    """A model in this process, which answers one batch at a time in a thread.

    A batch that does not fit into memory is halved, and so are later ones (see
    :mod:`snellen.models.out_of_memory`). A batch that fails otherwise is retried request by request, so
    that one bad request does not affect others.
    """

    @cached_property
    def memory(self) -> Shrinking:
        """The batch sizes that fit into memory."""
        return Shrinking(self.free_memory)

    def free_memory(self) -> None:
        """Free caches after running out of memory."""
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
                if len(answers) != len(places) or not all(isinstance(each, Response) for each in answers):
                    raise ModelError(
                        f"{self.name}: answer() must return a Response for each request; it returned "
                        f"{len(answers)} objects ({', '.join({type(one).__name__ for one in answers})}) for "
                        f"{len(places)} requests."
                    )
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
        except Stopped:
            raise
        except Exception as error:
            if is_broken(error):
                raise Stopped(f"{self.name} stopped: {reason_of(error)}. {RESTART}") from error
            if len(batch) > 1:
                middle = len(batch) // 2
                return self._resilient(batch[:middle]) + self._resilient(batch[middle:])
            return [failure(error)]


def failure(error: Exception) -> Response:
    """Return a response that explains a failure."""
    return Response(outcome=Outcome.ERROR, reason=reason_of(error))


def batches(items: Sequence[T], size: int, cost: Callable[[T], int]) -> list[list[T]]:
    """Yield items in order, in batches whose costs add up to at most ``size`` (or with a single item)."""
    chunks: list[list[T]] = []
    rows = 0
    for item in items:
        if not chunks or rows + cost(item) > size:
            chunks.append([])
            rows = 0
        chunks[-1].append(item)
        rows += cost(item)
    return chunks


MODELS: Registry[Model] = Registry("model", "snellen.models", bare="hf", suggest=suggest)
