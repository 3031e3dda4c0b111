"""Evaluate samples and record the results, in one process or in each of many."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from snellen.datasets.base import InvalidRow
from snellen.engine.asking import repeat_scores
from snellen.engine.cache import CachedModel, ResponseCache
from snellen.engine.loop import EvaluatedSample, SampleBatch, drive, first_requests
from snellen.engine.pending import add_skipped, refuse_skipped
from snellen.errors import ImageError
from snellen.images import Image
from snellen.models.base import Model
from snellen.protocols.base import Protocol as Asked
from snellen.storage.rows import SampleResult
from snellen.types import Outcome, Prediction, Sample

__all__ = ["BatchStats", "ResultSink", "SampleRunner"]

#: The most blocks for a server, or images for another processor, that are prepared at once: more than one
#: sender needs.
AHEAD = 4
#: Seconds for which remote samples wait to be stored together; their answers are already stored.
GATHER = 0.02


class ResultSink(ResponseCache, Protocol):
    """Storage of answers and predictions. A :class:`~snellen.storage.store.Store` is one."""

    def record(
        self, run: str, findings: Sequence[SampleResult], *, n_new: int = 0, seconds: float = 0.0
    ) -> None:
        """Commit the results of samples, and how long they took."""

    def keep_previews(self, images: Sequence[Image]) -> None:
        """Store small previews of images that have none yet."""


@dataclass(kw_only=True)
class BatchStats:
    """Statistics of evaluated samples.

    Attributes:
        n: the number of samples evaluated.
        fresh: how many of them called the model and got an answer.
        seconds: the time of those; 0 if there are none.
        labeled, right: how many have a known score, and the sum of the scores.
        known: how many more had been evaluated before.
    """

    n: int = 0
    n_new: int = 0
    seconds: float = 0.0
    labeled: int = 0
    right: float = 0.0
    known: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, other: BatchStats) -> None:
        """Add other statistics."""
        self.n += other.n
        self.n_new += other.n_new
        self.seconds += other.seconds
        self.labeled += other.labeled
        self.right += other.right
        self.known += other.known
        self.outcomes.update(other.outcomes)


class SampleRunner:
    """Evaluates samples with a model under a protocol.

    Args:
        model: loaded.
        sink: stores everything.
        run: the run's id.
        cache_salt: of a fresh run (see :class:`~snellen.engine.cache.CachedModel`).
        skip_invalid: skip unreadable samples instead of failing; :attr:`skipped` lists them.
        looks: whether images are read at all.
    """

    def __init__(
        self,
        model: Model,
        protocol: Asked,
        sink: ResultSink,
        run: str,
        *,
        cache_salt: str = "",
        skip_invalid: bool = False,
        looks: bool = True,
    ) -> None:
        self.model, self.sink, self.run, self.skip_invalid, self.looks = (
            model,
            sink,
            run,
            skip_invalid,
            looks,
        )
        # A model's self-check does not count toward the run's time.
        self.protocol = protocol.batched(model.request_batch) if protocol.multi_query else protocol
        self.memory = CachedModel(model, sink, cache_salt)
        self.skipped: list[InvalidRow] = []

    async def evaluate(self, samples: Iterable[tuple[int, Sample]]) -> AsyncGenerator[BatchStats]:
        """Evaluate samples, given with their positions; record and yield block by block."""
        blocks = drive(
            samples,
            self.protocol,
            self.memory.respond,
            workers=self.model.workers,
            block=self.model.block,
            prepare=self._prepare,
            # A local model reads its next prompts in one thread.
            ahead=AHEAD if self.model.remote else 1,
        )
        began = time.perf_counter()
        async with aclosing(blocks):  # so that requests in flight are awaited while connections are open
            async for block in blocks:
                now = time.perf_counter()
                # In a thread, so that a remote database does not delay answers.
                yield await asyncio.to_thread(self._record, block, now - began)
                began = now
                if self.model.remote:
                    await asyncio.sleep(GATHER)

    def _prepare(self, block: SampleBatch) -> SampleBatch:
        """Read and hash a block's images in advance, preprocess them for the model, and store their previews
        (which proves that they can be decoded).
        """
        if not self.looks:
            return block
        good = []
        for item, error in zip(block, self._look_at_all(block), strict=True):
            if error is None:
                good.append(item)
            elif self.skip_invalid:
                add_skipped(self.skipped, item[1].id, error)
            else:
                refuse_skipped([InvalidRow(item[1].id, str(error))])
        # Nobody listens, so the protocol need not be asked.
        if self.model.prefetches and self.memory.asking:
            self.model.prefetch(first_requests(good, self.protocol))
        return good

    @property
    def _hands(self) -> int:
        """The threads that prepare a local model's block: one where it computes on the same processor."""
        if self.model.place == "cpu":
            return 1
        ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(AHEAD, ours)

    def _look_at_all(self, block: SampleBatch) -> Iterable[ImageError | None]:
        if self.model.remote or self._hands == 1:  # several blocks at once, or one thread
            return map(self._look, block)
        with ThreadPoolExecutor(self._hands) as pool:
            return list(pool.map(self._look, block))

    def _look(self, item: tuple[int, Sample]) -> ImageError | None:
        """Read a sample's images; return why they cannot be."""
        _, sample = item
        try:
            for image in sample.images:
                self.model.prepare(image)
            self.sink.keep_previews(sample.images)
        except ImageError as error:
            return error
        return None

    def give_up(self, position: int, sample: Sample, reason: str) -> BatchStats:
        """Record a sample as an error without evaluating it."""
        lost = Prediction(sample.id, outcome=Outcome.ERROR, reason=reason)
        return self._record([EvaluatedSample(position, sample, lost, ())], 0.0)

    def _record(self, block: Sequence[EvaluatedSample], seconds: float) -> BatchStats:
        tally = BatchStats(n=len(block))
        findings = []
        for item in block:
            sample, prediction = item.sample, _counted(item.prediction, item.sample)
            scores = self.protocol.score_sample(sample, prediction) | repeat_scores(prediction.details)
            kept = [a.key for a in item.answers if a.response.outcome is not Outcome.ERROR]
            complete = _with_more(prediction, self.protocol.sample_details(sample), sample)
            truth = self.protocol.truth(sample)
            findings.append(SampleResult(item.position, sample, complete, kept, scores, truth))
            asked = any(answer.new for answer in item.answers)
            tally.n_new += asked and prediction.outcome is not Outcome.ERROR
            tally.outcomes[prediction.outcome] += 1
            if self.protocol.classifies and sample.label is not None:
                tally.labeled += 1
                tally.right += prediction.label == sample.label
            elif (value := scores.get(self.protocol.primary)) is not None:
                tally.labeled += 1
                tally.right += value
        # A fully cached block says nothing about the model's speed.
        tally.seconds = seconds if tally.n_new else 0.0
        self.sink.record(self.run, findings, n_new=tally.n_new, seconds=tally.seconds)
        return tally


def _counted(prediction: Prediction, sample: Sample) -> Prediction:
    """Count another right class as the first one, so that every figure and every test takes it for right."""
    first = sample.label
    if first is None or not sample.also:
        return prediction
    same = dict.fromkeys(sample.also, first)
    label = same.get(prediction.label, prediction.label)
    ranking = tuple(dict.fromkeys(same.get(name, name) for name in prediction.ranking))
    details = (
        {**prediction.details, "named": prediction.label} if label != prediction.label else prediction.details
    )
    return replace(prediction, label=label, ranking=ranking, details=details)


def _with_more(prediction: Prediction, about: Mapping[str, Any], sample: Sample) -> Prediction:
    """Return the prediction with the parts of its sample that metrics need, also if there is no answer."""
    category = sample.meta.get("category")
    more = {"category": str(category)} if category is not None else {}
    if not more and not about:
        return prediction
    return replace(prediction, details={**about, **more, **prediction.details})
