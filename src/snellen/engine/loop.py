"""The evaluation loop: samples in batches, their requests in batches. Knows models as a function alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from snellen.errors import SnellenError
from snellen.protocols.base import Protocol
from snellen.types import Examination, Outcome, Prediction, Request, Response, Sample

__all__ = ["CachedResponse", "EvaluatedSample", "Respond", "drive", "examine_block", "first_requests"]


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A response, the key under which it is remembered, and whether the model was asked for it now."""

    response: Response
    key: str
    new: bool


Respond = Callable[[Sequence[Request]], Awaitable[Sequence[CachedResponse]]]


@dataclass(frozen=True, slots=True)
class EvaluatedSample:
    """A sample with its prediction and the answers behind it."""

    position: int
    sample: Sample
    prediction: Prediction
    answers: tuple[CachedResponse, ...]


SampleBatch = list[tuple[int, Sample]]


async def examine_block(block: SampleBatch, protocol: Protocol, respond: Respond) -> list[EvaluatedSample]:
    """Examine samples in lockstep: each request batch of all of them are answered together.

    A sample of which an answer fails (outcome ERROR) is not examined further; its prediction says why.
    """
    answers: dict[int, list[CachedResponse]] = {position: [] for position, _ in block}
    names = {position: sample.id for position, sample in block}
    by_position = dict(block)
    done: dict[int, Prediction] = {}
    open_: dict[int, tuple[Examination, Sequence[Request]]] = {}

    def advance(position: int, exam: Examination, replies: Sequence[Response] | None) -> None:
        try:
            request_batch = next(exam) if replies is None else exam.send(replies)
            about = by_position[position]
            open_[position] = (exam, [replace(request, sample=about) for request in request_batch])
        except StopIteration as stop:
            open_.pop(position, None)
            if not isinstance(stop.value, Prediction):
                raise SnellenError(
                    f"The protocol {protocol.name!r} ended sample {names[position]!r} without a Prediction; "
                    f"it returned {stop.value!r}."
                ) from None
            done[position] = stop.value
        except SnellenError:
            raise
        except Exception as error:
            raise SnellenError(
                f"The protocol {protocol.name!r} failed on sample {names[position]!r} "
                f"({type(error).__name__}: {error})."
            ) from error

    for position, sample in block:
        advance(position, protocol.examine(sample), None)
    while open_:
        request_batches = list(open_.items())
        got = await respond(
            [request for _, (_, request_batch) in request_batches for request in request_batch]
        )
        start = 0
        for position, (exam, request_batch) in request_batches:
            answered = got[start : start + len(request_batch)]
            start += len(request_batch)
            answers[position] += answered
            broken = next((a for a in answered if a.response.outcome is Outcome.ERROR), None)
            if broken is not None:
                exam.close()
                del open_[position]
                done[position] = Prediction(
                    names[position], outcome=Outcome.ERROR, reason=broken.response.reason
                )
            else:
                advance(position, exam, [answer.response for answer in answered])
    return [EvaluatedSample(p, sample, done[p], tuple(answers[p])) for p, sample in block]


def first_requests(block: SampleBatch, protocol: Protocol) -> list[Request]:
    """What will be asked first of these samples; a protocol that fails will do so again when it is driven."""
    requests: list[Request] = []
    for _, sample in block:
        with suppress(Exception):
            requests += next(protocol.examine(sample))
    return requests


async def drive(
    samples: Iterable[tuple[int, Sample]],
    protocol: Protocol,
    respond: Respond,
    *,
    workers: int = 1,
    block: int = 16,
    prepare: Callable[[SampleBatch], SampleBatch] = lambda block: block,
) -> AsyncGenerator[list[EvaluatedSample]]:
    """Examine samples and yield them as blocks are done: one block, or all that were done meanwhile.

    Each of ``workers`` takes the next ``block`` samples in the order of the data set. While one block
    is answered, the next is made ready in a thread: samples are drawn from the iterator, and
    ``prepare`` may leave some out and decodes their images. So at most ``workers`` + 1 blocks are in
    memory, however long the data set is.

    Raises:
        Whatever drawing samples, preparing or responding raises; blocks in flight are given up.
    """
    # Long: one algorithm, whose steps share nearly all of its state.
    source = iter(samples)
    loop = asyncio.get_running_loop()
    results: asyncio.Queue[list[EvaluatedSample] | BaseException | None] = asyncio.Queue(maxsize=workers)
    turn = asyncio.Lock()

    with ThreadPoolExecutor(1, thread_name_prefix="snellen-prepare") as pool:

        def ready() -> asyncio.Future[SampleBatch | None]:
            coming = loop.run_in_executor(pool, _next_block, source, block, prepare)
            # Where a run ends otherwise, nobody comes for it, and asyncio would complain of its error.
            coming.add_done_callback(lambda done: done.cancelled() or done.exception())
            return coming

        upcoming = ready()

        async def take() -> SampleBatch | None:
            nonlocal upcoming
            async with turn:
                taken = await upcoming
                if taken is not None:
                    upcoming = ready()
                return taken

        async def work() -> None:
            try:
                while (taken := await take()) is not None:
                    if taken:
                        await results.put(await examine_block(taken, protocol, respond))
                await results.put(None)
            except BaseException as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                await results.put(error)  # also a cancellation from within, which nobody else would see

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        try:
            finished = 0
            while finished < workers:
                ready_now = [await results.get()]
                while not results.empty():
                    ready_now.append(results.get_nowait())
                if examined := [item for block in ready_now if isinstance(block, list) for item in block]:
                    yield examined
                for result in ready_now:
                    if isinstance(result, BaseException):
                        raise result
                finished += ready_now.count(None)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _next_block(
    source: Iterator[tuple[int, Sample]], size: int, prepare: Callable[[SampleBatch], SampleBatch]
) -> SampleBatch | None:
    """The next block, made ready; None at the end. Runs in the one preparing thread."""
    taken = list(islice(source, size))
    return prepare(taken) if taken else None
