"""A worker: a replica of the model in a Ray process, which evaluates shard after shard."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import cached_property
from typing import Any

from snellen._util.environment import hardware, peak_rss
from snellen._util.redaction import redact
from snellen._util.words import counted
from snellen.datasets.base import InvalidRow, Selection
from snellen.engine.pending import pages, readable
from snellen.engine.ray.task import ModelSpec, TaskSpec, identity_of
from snellen.engine.ray.writer import RemoteSink, ShardSink, wait_for
from snellen.engine.recorder import BatchStats, SampleRunner
from snellen.errors import DataError, ModelError, SnellenError, Stopped, reason_of
from snellen.models.base import MODELS
from snellen.storage.parquet_run import ParquetRun, ParquetShard
from snellen.types import Sample

__all__ = ["Worker"]

log = logging.getLogger(__name__)


#: How often a sample may be the only one in flight when its replica dies before it counts as an error.
TRIES = 2


class _RemoteLogHandler(logging.Handler):
    """Sends log records to the writer."""

    def __init__(self, writer: Any, name: str) -> None:
        super().__init__(logging.INFO)
        self._writer, self._replica = writer, name

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            self._writer.log.remote(self._replica, f"{record.levelname} {self.format(record)}")


class Worker:
    """A replica of the model that evaluates shard after shard. Ray Data turns it into an actor pool; each
    call returns a report, also on failure.
    """

    def __init__(self, writer: Any, make: ModelSpec, tasks: Sequence[TaskSpec], folder: str) -> None:
        with suppress(OSError):
            os.chdir(folder)  # relative paths are relative to it
        self._writer, self._make, self._tasks = writer, make, tasks
        self._data: dict[int, Selection] = {}
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._log = logging.getLogger("snellen")
        self._log.addHandler(_RemoteLogHandler(writer, self.name))
        self._log.setLevel(logging.INFO)
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").addHandler(_RemoteLogHandler(writer, self.name))

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
        """Evaluate one shard."""
        place, start, stop = (int(batch[name][0]) for name in ("task", "start", "stop"))
        task = self._tasks[place]
        report: dict[str, Any] = {"run": task.run, "failure": None}
        try:
            wait_for(self._writer.enter.remote(task.run, start))
            try:
                # Built on first use, which does not count toward the model's time.
                model, data = self.model, self._selection(place)
                report["began"] = time.time()
                tally, skipped, report["file"] = asyncio.run(self._examine(model, task, data, start, stop))
            finally:
                wait_for(self._writer.leave.remote(task.run, start))
            report |= {"tally": {**vars(tally), "outcomes": dict(tally.outcomes)}, "ended": time.time()}
            report |= {"metadata": dict(self.model.metadata()), "replica": self._about(), "skipped": skipped}
        except Exception as error:
            message = str(error)
            if not isinstance(error, SnellenError):
                self._log.error("%s", traceback.format_exc())
                message = f"{self.name}: {reason_of(error)}. See the workspace's logs/*/{self.name}.log"
            report["failure"] = [type(error).__name__, message]
        return {"report": [json.dumps(report)]}

    @cached_property
    def model(self) -> Any:
        """The loaded model.

        Raises:
            ModelError: it cannot be loaded.
        """
        import ray

        actor = ray.get_runtime_context().get_actor_id()
        wait_for(self._writer.loading.remote(actor))
        try:
            recipe = self._make
            model = MODELS.make(recipe.name, recipe.options)
            model.name, model.batch_size = redact(recipe.name), recipe.batch_size
            here = identity_of(model)
            if here != recipe.identity:
                other = [
                    f"{key}: {here.get(key)} instead of {value}"
                    for key, value in recipe.identity.items()
                    if here.get(key) != value
                ]
                raise ModelError(
                    f"{model.name}: on {self.name}, the model differs from the one where the run was started "
                    f"({', '.join(other)}). Every node needs the same packages and weights. If some have "
                    "no GPU, set the option that differs, such as -M dtype=bfloat16."
                )
            self._log.info("loading %s", model.name)
            model.load()
        finally:
            wait_for(self._writer.loaded.remote(actor))
        self._log.info("loaded")
        return model

    def _about(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "peak_gpu_bytes": self.model.metadata().get("peak_gpu_bytes"),
            "peak_rss_bytes": peak_rss(),
            "hardware": hardware(),
        }

    def _selection(self, place: int) -> Selection:
        if place not in self._data:
            task = self._tasks[place]
            selection = task.data().after(task.shots)
            if len(selection) != task.n or any(selection.id(place) != id for place, id in task.ids.items()):
                raise DataError(
                    f"{selection.name}: {self.name} finds {counted(len(selection), 'sample')}, not the run's "
                    f"{task.n:,}. Every node must see the same data."
                )
            task.protocol.prepare()
            self._data[place] = selection
        return self._data[place]

    async def _examine(
        self, model: Any, task: TaskSpec, data: Selection, start: int, stop: int
    ) -> tuple[BatchStats, list[InvalidRow], str | None]:
        """Return the results of a shard, the skipped samples, and its file, if it has one."""
        sink: RemoteSink | ShardSink = RemoteSink(self._writer)
        if task.sink is not None:
            sink = ShardSink(ParquetShard(ParquetRun(task.sink, task.run), start, stop), self._writer)
        progress = _Shard(self._writer, sink, data)
        work = SampleRunner(
            model,
            task.protocol,
            sink,
            task.run,
            cache_salt=task.cache_salt,
            skip_invalid=data.skip_invalid,
        )
        try:
            async with model.connected():
                await progress.count(work, progress.unsuspected(work, range(start, stop)))
                for position in progress.suspects:
                    await asyncio.to_thread(sink.flush)  # processing it may kill the replica
                    await progress.count(work, progress.alone(work, position))
        finally:
            await asyncio.to_thread(sink.flush)
        self._log.info("%s: %d to %d: %s", task.run, start, stop, _describe(progress.tally))
        if progress.stopped:
            raise Stopped("It was stopped.")
        return progress.tally, work.skipped, sink.file


class _Shard:
    """A replica's progress in a shard, and the samples to treat with care."""

    def __init__(self, writer: Any, sink: RemoteSink | ShardSink, data: Selection) -> None:
        self._writer, self._sink, self._data = writer, sink, data
        self.tally = BatchStats()
        #: Positions of samples in flight when a replica died.
        self.suspects: list[int] = []
        #: Whether to start nothing more.
        self.stopped = False
        self._skipped = 0

    async def count(self, work: SampleRunner, samples: Iterable[tuple[int, Sample]]) -> None:
        """Evaluate samples and count them."""
        async with aclosing(work.evaluate(samples)) as tallies:
            async for tally in tallies:
                self.tally.add(tally)
        self._skip(work)

    def unsuspected(self, work: SampleRunner, positions: range) -> Iterator[tuple[int, Sample]]:
        """Yield missing samples, setting aside those in flight when a replica died."""
        size = work.model.batch_size
        for ids in pages(self._data, positions, size):
            self._skip(work)
            try:
                before = self._sink.begin(work.run, list(ids))
            except Stopped:
                self.stopped = True  # finish what is in flight
                return
            given_up = sum(died is None for died in before.values())
            self.tally.known += len(ids) - len(before) + given_up
            self.suspects += [ids[id] for id, died in before.items() if any(died or ())]
            fine = (ids[id] for id, died in before.items() if died == (0, 0))
            yield from readable(self._data, fine, work.skipped)

    def alone(self, work: SampleRunner, position: int) -> Iterator[tuple[int, Sample]]:
        """Yield a sample by itself, or record it as an error if replicas already died of it alone."""
        id = self._data.id(position)
        try:
            _, died = wait_for(self._writer.begin.remote(work.run, [id], alone=True))[id]
        except Stopped:
            self.stopped = True
            return
        if died < TRIES:
            yield from readable(self._data, [position], work.skipped)
            return
        if died == TRIES:
            sample = next((item for _, item in readable(self._data, [position], work.skipped)), None)
        else:  # reading it apparently kills the replica
            label = self._data.data.row(self._data.indices[position]).label
            sample = Sample(id, label=label, labels=self._data.labels, background=self._data.background)
        if sample is not None:
            log.error("%s: giving up on %s: it killed %d replicas", work.run, id, died)
            reason = f"{TRIES} replicas died while evaluating this sample alone"
            self.tally.add(work.give_up(position, sample, reason))
            wait_for(self._writer.give_up.remote(work.run, id))

    def _skip(self, work: SampleRunner) -> None:
        """Mark skipped samples as no longer in flight."""
        if new := work.skipped[self._skipped :]:
            self._skipped += len(new)
            wait_for(self._writer.ended.remote(work.run, [bad.where for bad in new]))


def _describe(tally: BatchStats) -> str:
    """Describe a tally in words."""
    parts = [f"{n} {outcome}" for outcome, n in sorted(tally.outcomes.items())]
    return ", ".join([*parts, f"{tally.known} evaluated before"] if tally.known else parts)
