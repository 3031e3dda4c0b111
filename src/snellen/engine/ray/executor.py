"""Run replicas of a model in parallel, in processes on this machine or a Ray cluster.

Ray Data hands out shards of the data set to an actor pool of replicas, and reassigns the shards of a
replica that died. Each replica builds the model and the data set from their names, reads the samples of
its shards itself, and evaluates them as a single process would
(:class:`~snellen.engine.recorder.SampleRunner`), so that no image except its preview passes between
processes. Answers go to the single writer, or into one file per shard.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import queue
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen import errors
from snellen.datasets.base import InvalidRow
from snellen.engine.ray.cluster import Engine, load_ray
from snellen.engine.ray.intervals import IntervalUnion
from snellen.engine.ray.task import ModelSpec, TaskSpec, identity_of
from snellen.engine.ray.worker import Worker
from snellen.engine.ray.writer import WriterActor
from snellen.engine.recorder import BatchStats
from snellen.errors import BadOption, ModelError, SnellenError, Stopped, reason_of, require
from snellen.models.base import Model
from snellen.storage.parquet_run import file_size, shard_size
from snellen.storage.store import is_address

if TYPE_CHECKING:
    from snellen.storage.store import Store

#: Seconds for which stopping replicas may finish what is in flight.
GRACE = 30.0
#: Seconds in which the threads of Ray Data end after the stop signal.
THREADS_END = 2.0
#: Seconds of silence allowed to a cluster's head. After a minute, Ray ends the process without a message.
SILENCE = 20.0

__all__ = ["RayExecutor", "RunHandle"]

log = logging.getLogger(__name__)


@dataclass
class _WorkerStats:
    """What is known about a replica."""

    samples: int = 0
    errors: int = 0
    about: dict[str, Any] = field(default_factory=dict)


class RunHandle:
    """The executor's work for one run.

    Attributes:
        skipped: invalid samples that were skipped.
    """

    def __init__(self, executor: RayExecutor, run: str) -> None:
        self._executor, self.run = executor, run
        self.left = 0
        self.reports: deque[dict[str, Any]] = deque()
        self.skipped: list[InvalidRow] = []
        #: The names of the shards' files.
        self.files: set[str] = set()
        self._replicas: dict[str, _WorkerStats] = {}
        self._metadata: dict[str, Any] = {}

    async def evaluate(self) -> AsyncGenerator[BatchStats]:
        """Yield the results of the run's samples, shard by shard.

        Raises:
            SnellenError: a replica failed for good.
        """
        busy = IntervalUnion()
        while self.left:
            if not self.reports:
                await self._executor.listen()
                continue
            report = self.reports.popleft()
            self.left -= 1
            if report["failure"] is not None:
                kind, message = report["failure"]
                raise getattr(errors, kind, ModelError)(message)
            counts = report["tally"]
            tally = BatchStats(**{**counts, "outcomes": Counter(counts["outcomes"])})
            # Overlapping times count once.
            tally.seconds = busy.add(report["began"], report["ended"]) if tally.n_new else 0.0
            self.skipped += [InvalidRow(*bad) for bad in report["skipped"]]
            replica = self._replicas.setdefault(report["replica"]["name"], _WorkerStats())
            replica.samples += tally.n
            replica.errors += tally.outcomes["error"]
            replica.about, self._metadata = report["replica"], report["metadata"]
            self.files |= {report["file"]} - {None}
            await asyncio.to_thread(self._executor.record, self.run, tally)
            yield tally

    def status(self) -> str:
        """A short status: replicas, GPU memory, failures by replica."""
        parts = [f"{len(self._replicas)} replica{'s' * (len(self._replicas) != 1)}"]
        if held := sum(self._peaks("peak_gpu_bytes")):
            parts.append(f"{held / 2**30:.1f} GiB of GPU memory")
        parts += [
            f"{worker.errors} failed on {name}" for name, worker in self._replicas.items() if worker.errors
        ]
        return ", ".join(parts)

    def metadata(self) -> Mapping[str, Any]:
        """The loaded model's metadata, with the peak GPU memory of any replica, and the number of
        replicas.
        """
        peak = max(self._peaks("peak_gpu_bytes"), default=None)
        return (
            {**self._metadata, "peak_gpu_bytes": peak, "replicas": len(self._replicas)}
            if self._metadata
            else {}
        )

    def hardware(self) -> dict[str, Any]:
        """The hardware of a replica's machine, with the peak memory of any replica."""
        if not self._replicas:
            return {}
        first = next(iter(self._replicas.values()))
        return {**first.about["hardware"], "peak_rss_bytes": max(self._peaks("peak_rss_bytes"), default=None)}

    def replicas(self) -> list[dict[str, Any]]:
        """Where each replica ran, and its counts."""
        return [
            {"name": name, "samples": worker.samples, "errors": worker.errors}
            for name, worker in sorted(self._replicas.items())
        ]

    def _peaks(self, name: str) -> list[int]:
        return [peak for worker in self._replicas.values() if (peak := worker.about[name])]


class RayExecutor:
    """Replicas of a model, working on several runs.

    Args:
        model: the model, not loaded; the replicas build theirs from ``name`` and ``options``.
        store: the workspace, which a single other process on this machine writes.
    """

    def __init__(
        self, engine: Engine, model: Model, name: str, options: Mapping[str, Any], store: Store
    ) -> None:
        self._engine, self._model, self._store = engine, model, store
        self._make = ModelSpec(name, dict(options), model.batch_size, identity_of(model))
        self._reports: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
        self._writer: Any = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        #: When the head of the cluster last responded.
        self.heard = 0.0
        self._lost = False
        self._began = False
        #: By run.
        self.shares: dict[str, RunHandle] = {}

    def begin(self, tasks: Sequence[TaskSpec]) -> None:
        """Start Ray, if necessary, and start the replicas on the first shards.

        Raises:
            BadOption: not enough room for that many replicas.
            ModelError: Ray cannot be reached.
        """
        self._began = self._engine.join()
        ray = load_ray()
        try:
            each = self._resources()
            count = self.replicas_that_fit(each)
            folder = str(self._store.folder.resolve())
            self._writer = self._place(ray.remote(WriterActor)).remote(self._store.where, folder)
            self.shares = {task.run: RunHandle(self, task.run) for task in tasks}
            work = (tasks, list(self._shards(tasks, count)), each, count)
            self._thread = threading.Thread(target=self._work, args=work, daemon=True)
            self._thread.start()
        except BaseException as error:
            self.close()
            if isinstance(error, SnellenError) or not isinstance(error, Exception):
                raise
            raise ModelError(f"--engine ray: the replicas cannot be started ({reason_of(error)}).") from error

    def _shards(self, tasks: Sequence[TaskSpec], replicas: int) -> Iterator[dict[str, int]]:
        for place, task in enumerate(tasks):
            batch = self._model.batch_size
            size = file_size(task.n) if task.sink else shard_size(task.n, batch, replicas)
            for start in range(0, task.n, size):
                self.shares[task.run].left += 1
                yield {"task": place, "start": start, "stop": min(start + size, task.n)}

    def _resources(self) -> dict[str, float]:
        gpus = self._engine.gpus
        if gpus is None:
            gpus = 1.0 if load_ray().cluster_resources().get("GPU", 0) else 0.0
        return {"num_cpus": 1, "num_gpus": gpus}

    def replicas_that_fit(self, each: Mapping[str, float]) -> int:
        """Return the number of replicas: the requested number, or as many as fit. A cluster may grow."""
        there = load_ray().cluster_resources()
        cores, gpus = int(there.get("CPU", 0)), there.get("GPU", 0)
        fits = min(cores, int(gpus / each["num_gpus"])) if each["num_gpus"] else cores
        wanted = self._engine.replicas or max(1, fits)
        if wanted <= fits:
            return wanted
        room = f"{cores} cores and {gpus:g} GPUs have room for {fits}"
        room += f" of {each['num_gpus']:g} GPUs" if each["num_gpus"] else ""
        if self._engine.alone:
            less = f"--replicas {fits}" if fits else "--gpus-per-replica 0, to run on the processor"
            raise BadOption(f"--engine ray: {wanted} replicas requested, but {room}. Use: {less}")
        log.info("--engine ray: %d replicas requested, but %s. The others wait for more.", wanted, room)
        return wanted

    def _place(self, actor: Any) -> Any:
        """Choose the node of the writer: this machine, whose folder it writes."""
        ray = load_ray()
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        if ray.util.client.ray.is_connected():
            if not is_address(self._store.where):
                raise BadOption(
                    f"--engine {self._engine.name}: the workspace {self._store.name} is a folder on this "
                    "machine, which the cluster cannot write to. Use a database (--workspace "
                    "postgresql://USER@HOST/NAME), or run this command on a node of the cluster (--engine "
                    "ray)."
                )
        else:
            node = ray.get_runtime_context().get_node_id()
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        return actor.options(**options, max_concurrency=4)

    def _work(
        self,
        tasks: Sequence[TaskSpec],
        shards: Sequence[Mapping[str, int]],
        each: Mapping[str, float],
        count: int,
    ) -> None:
        """Let Ray Data hand the shards to the replicas. Runs in a thread, since it blocks."""
        try:
            data: Any = require("ray.data", "ray", "--engine ray")
            context = data.DataContext.get_current()
            context.enable_progress_bars = context.print_on_execution_start = False
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)
            # One block per shard, created here, since reading tasks would compete for the cores that replicas
            # occupy.
            todo = data.from_items(list(shards), override_num_blocks=len(shards))
            done = todo.map_batches(
                Worker,
                fn_constructor_args=(self._writer, self._make, tasks, str(Path.cwd())),
                batch_size=1,
                compute=data.ActorPoolStrategy(size=count),
                **each,
            )
            for row in done.iter_rows():
                self._reports.put(json.loads(row["report"]))
                if self._stopping.is_set():
                    return
            self._reports.put(None)
        except BaseException as error:
            self._reports.put(error)

    async def listen(self) -> None:
        """Wait for a report, and pass it to its run.

        Raises:
            ModelError: Ray failed.
            Stopped: the head node is gone.
        """
        try:
            report = await asyncio.to_thread(self._reports.get, timeout=0.5)
        except queue.Empty:
            await asyncio.to_thread(self.hear_head)
            return
        if report is None:
            raise ModelError("--engine ray: Ray ended before all shards were evaluated.")
        if isinstance(report, BaseException):
            raise ModelError(f"--engine ray: {reason_of(report)}") from report
        self.shares[report["run"]].reports.append(report)

    def hear_head(self) -> None:
        """Check occasionally that the head of the cluster responds.

        Raises:
            Stopped: it has not responded for a while.
        """
        ray, now = load_ray(), time.monotonic()
        if now - self.heard < SILENCE / 4 or ray.util.client.ray.is_connected():
            return
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            self.heard = now
        except OSError as error:
            self.heard = self.heard or now
            if now - self.heard > SILENCE:
                self._lost = True
                raise Stopped(
                    f"--engine ray: the head of the cluster, {host}:{port}, no longer responds "
                    f"({reason_of(error)})."
                ) from error

    def record(self, run: str, tally: BatchStats) -> None:
        """Record how long samples took; their results are already stored."""
        self._store.record(run, [], n_new=tally.n_new, seconds=tally.seconds)

    def close(self) -> None:
        """Let the replicas finish what is in flight, so that it is saved, and shut Ray down if it was
        started here.
        """
        ray = load_ray()
        if self._lost:  # and every call of Ray would wait for it
            self._stopping.set()
            return
        try:
            if self._writer is not None and ray.is_initialized() and self._thread is not None:
                self._await_the_last(ray)
        finally:
            self._stopping.set()
            if self._writer is not None and ray.is_initialized():
                ray.kill(self._writer)
            self._writer = None
            self._await_threads()
            self._thread = None
            if self._began:
                ray.shutdown()
                self._began = False

    def _await_threads(self) -> None:
        """Wait for the threads of Ray Data. A thread that drops an object reference after Ray's shutdown
        ends the whole process, with status 1 and no message. (Occasionally its prefetcher misses the stop
        signal and sleeps forever; it drops nothing, so the wait is short.)
        """
        ends = time.monotonic() + THREADS_END
        for thread in threading.enumerate():
            of_ray_data = type(thread).__module__.startswith("ray.data") or thread.name == "Prefetcher"
            if of_ray_data or thread is self._thread:
                thread.join(max(0.0, ends - time.monotonic()))
        gc.collect()

    def _await_the_last(self, ray: Any) -> None:
        """Start nothing more, and wait for what is in flight; a second interrupt ends the wait."""
        assert self._thread is not None
        if any(share.left for share in self.shares.values()):
            log.info("finishing requests in flight; interrupt again to stop at once")
        ends = time.monotonic() + GRACE
        with suppress(ray.exceptions.RayError):
            ray.get(self._writer.stop.remote(), timeout=GRACE)
            while self._thread.is_alive() and time.monotonic() < ends:
                if not ray.get(self._writer.busy.remote(), timeout=GRACE):
                    self._stopping.set()
                self._thread.join(0.2)
