"""The evaluation loop: samples in batches, their requests in batches. Models are plain functions here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from snellen.engine.asking import examination
from snellen.errors import SnellenError
from snellen.protocols.base import Protocol
from snellen.types import Examination, Outcome, Prediction, Request, Response, Sample

__all__ = ["CachedResponse", "EvaluatedSample", "Respond", "drive", "examine_block", "first_requests"]


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """A response, its cache key, and whether the model was called for it."""

    response: Response
    key: str
    new: bool


Respond = Callable[[Sequence[Request]], Awaitable[Sequence[CachedResponse]]]


@dataclass(frozen=True, slots=True)
class EvaluatedSample:
    """A sample with its prediction and the underlying answers."""

    position: int
    sample: Sample
    prediction: Prediction
    answers: tuple[CachedResponse, ...]


SampleBatch = list[tuple[int, Sample]]


async def examine_block(block: SampleBatch, protocol: Protocol, respond: Respond) -> list[EvaluatedSample]:
    """Evaluate samples in lockstep: each request batch of all of them is answered together.

    A sample with a failed answer (outcome ERROR) is not evaluated further; its prediction gives the reason.
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
        advance(position, examination(protocol, sample), None)
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
    """Return the first requests of these samples; a protocol that fails here will fail again when it is
    driven.
    """
    requests: list[Request] = []
    for _, sample in block:
        with suppress(Exception):
            requests += next(examination(protocol, sample))
    return requests


async def drive(
    samples: Iterable[tuple[int, Sample]],
    protocol: Protocol,
    respond: Respond,
    *,
    workers: int = 1,
    block: int = 16,
    prepare: Callable[[SampleBatch], SampleBatch] = lambda block: block,
    ahead: int = 1,
) -> AsyncGenerator[list[EvaluatedSample]]:
    """Evaluate samples and yield them in completed blocks: one, or all completed in the meantime.

    Each of ``workers`` takes the next ``block`` samples in the order of the data set. While blocks are
    answered, the next ``ahead`` are prepared, each in a thread: ``prepare`` may drop samples, and decodes
    their images. The iterator runs in one thread. At most ``workers`` + ``ahead`` blocks are in memory,
    however long the data set is.

    Raises:
        Whatever the iterator, ``prepare`` or ``respond`` raises; blocks in flight are cancelled.
    """
    # Long: one algorithm whose steps share nearly all of its state.
    source = iter(samples)
    loop = asyncio.get_running_loop()
    results: asyncio.Queue[list[EvaluatedSample] | BaseException | None] = asyncio.Queue(maxsize=workers)
    turn = asyncio.Lock()

    with (
        ThreadPoolExecutor(1, thread_name_prefix="snellen-draw") as drawer,
        ThreadPoolExecutor(ahead, thread_name_prefix="snellen-prepare") as pool,
    ):

        async def prepared() -> SampleBatch | None:
            drawn = await loop.run_in_executor(drawer, list, islice(source, block))
            return await loop.run_in_executor(pool, prepare, drawn) if drawn else None

        def ready() -> asyncio.Task[SampleBatch | None]:
            coming = asyncio.create_task(prepared())
            # If a run ends otherwise, nobody awaits it, and asyncio would report its error.
            coming.add_done_callback(lambda done: done.cancelled() or done.exception())
            return coming

        upcoming = deque(ready() for _ in range(ahead))

        async def take() -> SampleBatch | None:
            async with turn:
                taken = await upcoming[0]
                if taken is not None:
                    upcoming.popleft()
                    upcoming.append(ready())
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
                await results.put(error)  # also an inner cancellation, which nobody else would see

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
            for task in (*tasks, *upcoming):
                task.cancel()
            await asyncio.gather(*tasks, *upcoming, return_exceptions=True)
