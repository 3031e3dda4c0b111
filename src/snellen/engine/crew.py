"""Copies of a model in processes of their own, on this machine or a Ray cluster, that examine side by side.

Ray Data hands out shards of the data set to an actor pool of replicas, and gives those of a replica that
died to others. Each replica makes the model and the data set anew from their names, reads the samples of its
shards itself, and examines them as one process would (:class:`~snellen.engine.work.Work`), so no image ever
passes between processes. What is answered goes to the one writer, or into a file for each shard.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import threading
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen import errors
from snellen.datasets.base import Bad, Selection
from snellen.engine.replica import Desk, Replica
from snellen.engine.work import Tally
from snellen.errors import BadOption, ModelError, SnellenError, Unsupported, reason_of, require
from snellen.models.base import LocalModel, Model
from snellen.protocols.base import Protocol
from snellen.shards import shard_size

if TYPE_CHECKING:
    from snellen.store import Store

#: Seconds in which replicas that are told to stop may end what they have under way.
GRACE = 5.0

__all__ = ["Crew", "Duty", "Engine"]


@dataclass(frozen=True)
class Engine:
    """Where a model's copies run.

    Args:
        address: of a Ray cluster (``ray://HOST:10001``, ``auto``); None starts Ray on this machine, or joins
            the cluster that ``$RAY_ADDRESS`` names.
        replicas: how many; None for one a GPU, or one a processor core where there are none.
        gpus: of each replica, which may be a part of one.

    Raises:
        BadOption: a number that cannot be.
    """

    address: str | None = None
    replicas: int | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.replicas is not None and self.replicas < 1:
            raise BadOption(f"--replicas {self.replicas} is not allowed; allowed: 1 or more.")
        if self.gpus is not None and self.gpus < 0:
            raise BadOption(
                f"--gpus-per-replica {self.gpus} is not allowed; allowed: 0 or more, such as 0.5."
            )

    @classmethod
    def read(cls, name: str, replicas: int | None = None, gpus: float | None = None) -> Engine:
        """``ray``, or ``ray://ADDRESS``.

        Raises:
            BadOption: another name, or a number that cannot be.
        """
        if name != "ray" and not name.startswith("ray://"):
            raise BadOption(f"--engine {name!r} is not allowed; allowed: ray, ray://HOST:PORT.")
        return cls(None if name == "ray" else name, replicas, gpus)

    @property
    def name(self) -> str:
        """As a user names it."""
        return self.address or "ray"

    def check(self, model: Model, name: object) -> None:
        """Refuse a model of which no copies can be made.

        Raises:
            MissingExtra: ray is not installed.
            Unsupported: it is behind an address, or an object of Python's own.
        """
        require("ray", "ray", "--engine ray")
        if not isinstance(model, LocalModel):
            raise Unsupported(
                f"--engine ray is for models that run here; {model.name} does not. What is behind an address "
                "is asked side by side already: --max-concurrency"
            )
        if not isinstance(name, str):
            raise Unsupported(f"An engine makes copies of models by their names; {name!r} is an object.")

    def join(self) -> bool:
        """Join the cluster, or start Ray on this machine; whether it was started, and is to be ended.

        Raises:
            ModelError: it cannot be.
        """
        # What Ray's core writes to standard error, its own logs hold as well.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # What still asks after Ray was ended is to fail, and not to start it again.
        os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
        ray: Any = require("ray", "ray", "--engine ray")
        require("ray.data", "ray", "--engine ray")
        if ray.is_initialized():
            return False
        where = self.address or os.environ.get("RAY_ADDRESS")
        try:
            with _hushed():
                ray.init(where, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        except Exception as error:
            raise ModelError(
                f"--engine ray: Ray cannot be {'reached at ' + where if where else 'started'} "
                f"({reason_of(error)})."
            ) from error
        return True


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what Ray's core, which knows nothing of Python's streams, writes to standard error."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@dataclass(frozen=True)
class Duty:
    """An examination as a replica is told of it.

    Args:
        data: makes the samples; called in each replica.
        n: how many they are.
        sink: where Parquet files go that answers go into, and how many samples make one; None for the writer.
    """

    run: str
    data: Callable[[], Selection]
    protocol: Protocol
    n: int
    nonce: str = ""
    sink: Mapping[str, Any] | None = None


@dataclass
class _Known:
    """What is known of a replica."""

    samples: int = 0
    errors: int = 0
    about: dict[str, Any] = field(default_factory=dict)


class Crew:
    """Replicas of a model, and what they are to do.

    Args:
        model: the model, not loaded; the replicas make theirs by ``name`` and ``options``.
        store: the workspace that one process, beside this one, writes.
    """

    def __init__(
        self, engine: Engine, model: Model, name: str, options: Mapping[str, Any], store: Store
    ) -> None:
        self._engine, self._model, self._store = engine, model, store
        self._make = (name, dict(options), model.batch_size)
        self._duties: list[Duty] = []
        self._reports: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
        self._waiting: dict[str, deque[dict[str, Any]]] = {}
        self._left: dict[str, int] = {}
        self._known: dict[str, _Known] = {}
        self._facts: dict[str, Any] = {}
        self._desk: Any = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._began = False
        #: What was left out of each run's data.
        self.skipped: dict[str, list[Bad]] = {}

    def begin(self, duties: Sequence[Duty]) -> None:
        """Start Ray, if it does not run, and have the replicas start with the first shards.

        Raises:
            ModelError: Ray cannot be reached, or has no room.
        """
        import ray

        self._duties = list(duties)
        self._began = self._engine.join()
        try:
            each = self._resources()
            count = self._count(each)
            self._desk = self._place(ray.remote(Desk)).remote(
                self._store.where, str(self._store.folder.resolve()), count
            )
            shards = list(self._shards(count))
            self._thread = threading.Thread(target=self._work, args=(shards, each, count), daemon=True)
            self._thread.start()
        except SnellenError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise ModelError(f"--engine ray: the replicas cannot be started ({reason_of(error)}).") from error

    def _shards(self, replicas: int) -> Iterator[dict[str, int]]:
        for place, duty in enumerate(self._duties):
            size = duty.sink["size"] if duty.sink else shard_size(duty.n, self._model.batch_size)
            starts = range(0, duty.n, size)
            self._left[duty.run] = len(starts)
            self._waiting[duty.run] = deque()
            self.skipped[duty.run] = []
            for start in starts:
                yield {"duty": place, "start": start, "stop": min(start + size, duty.n)}

    def _resources(self) -> dict[str, float]:
        import ray

        gpus = self._engine.gpus
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
        return {"num_cpus": 1, "num_gpus": gpus}

    def _count(self, each: Mapping[str, float]) -> int:
        """How many replicas there are to be: as many as fit, unless it is said. A cluster may grow."""
        import ray

        there = ray.cluster_resources()
        fits = int(there.get("CPU", 1))
        if each["num_gpus"]:
            fits = min(fits, int(there.get("GPU", 0) / each["num_gpus"]))
        wanted = self._engine.replicas or max(1, fits)
        if wanted > fits and self._began and not (self._engine.address or os.environ.get("RAY_ADDRESS")):
            raise BadOption(
                f"--replicas {wanted} is not allowed; allowed: 1 to {fits}, for which there is room."
            )
        return wanted

    def _place(self, actor: Any) -> Any:
        """The writer beside this process, whose folder it writes."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        if ray.util.client.ray.is_connected():
            if self._store.where == str(self._store.folder.resolve()):
                raise BadOption(
                    f"--engine {self._engine.address}: the workspace {self._store.name} is a folder of this "
                    "machine, which the cluster cannot write. Name a database (--workspace "
                    "postgresql://USER@HOST/NAME), or run this on a node of the cluster (--engine ray)."
                )
        else:
            node = ray.get_runtime_context().get_node_id()
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        return actor.options(**options, max_concurrency=4)

    def _work(self, shards: Sequence[Mapping[str, int]], each: Mapping[str, float], count: int) -> None:
        """Have Ray Data give the shards to the replicas. In a thread, since it waits."""
        try:
            import ray.data

            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = context.print_on_execution_start = False
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)
            # One block a shard; handed over from here, since tasks that read would want cores that replicas
            # have taken.
            todo = ray.data.from_items(list(shards), override_num_blocks=len(shards))
            done = todo.map_batches(
                Replica,
                fn_constructor_args=(self._desk, self._make, self._duties, str(Path.cwd())),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=count),
                **each,
            )
            for row in done.iter_rows():
                self._reports.put(json.loads(row["report"]))
                if self._stopping.is_set():
                    return
            self._reports.put(None)
        except BaseException as error:
            self._reports.put(error)

    async def examine(self, run: str) -> AsyncGenerator[Tally]:
        """What comes of a run's samples, shard by shard.

        Raises:
            SnellenError: what a replica could not go on after.
        """
        covered = 0.0
        while self._left[run] or self._waiting[run]:
            report = self._waiting[run].popleft() if self._waiting[run] else await self._next()
            if report["run"] != run:
                self._waiting[report["run"]].append(report)
                continue
            told = report["tally"]
            tally = Tally(**{**told, "outcomes": Counter(told["outcomes"])})
            # What several did at the same time took its time once.
            if tally.fresh:
                tally.seconds = max(0.0, report["ended"] - max(report["began"], covered))
                covered = max(covered, report["ended"])
            took = partial(self._store.record, run, [], fresh=tally.fresh, seconds=tally.seconds)
            await asyncio.to_thread(took)
            yield tally

    async def _next(self) -> dict[str, Any]:
        """The next report, of whatever run."""
        while True:
            try:
                report = await asyncio.to_thread(self._reports.get, timeout=0.5)
            except queue.Empty:
                continue
            if report is None:
                raise ModelError("--engine ray: Ray ended before all shards were examined.")
            if isinstance(report, BaseException):
                raise ModelError(f"--engine ray: {reason_of(report)}") from report
            if report["failure"] is not None:
                kind, message = report["failure"]
                raise getattr(errors, kind, ModelError)(message)
            self._left[report["run"]] -= 1
            self.skipped[report["run"]] += [Bad(*bad) for bad in report["skipped"]]
            known = self._known.setdefault(report["replica"]["name"], _Known())
            known.samples += report["tally"]["n"]
            known.errors += report["tally"]["outcomes"].get("error", 0)
            known.about = report["replica"]
            self._facts = report["facts"]
            return report

    def status(self) -> str:
        """How it goes, in a few words: replicas, the memory of GPUs, and failures by replica."""
        told = [f"{len(self._known)} replica{'s' * (len(self._known) != 1)}"]
        if held := sum(known.about.get("peak_gpu_bytes") or 0 for known in self._known.values()):
            told.append(f"{held / 2**30:.1f} GiB of GPU memory")
        told += [f"{known.errors} failed on {name}" for name, known in self._known.items() if known.errors]
        return ", ".join(told)

    def facts(self) -> Mapping[str, Any]:
        """Of the loaded model, with the most memory that any replica held; and how many there were."""
        if not self._facts:
            return {}
        peaks = [known.about.get("peak_gpu_bytes") or 0 for known in self._known.values()]
        return {
            **self._facts,
            **({"peak_gpu_bytes": max(peaks)} if any(peaks) else {}),
            "replicas": len(self._known),
        }

    def hardware(self) -> dict[str, Any]:
        """Of a replica's machine, with the most memory that any replica held."""
        about = [known.about for known in self._known.values()]
        if not about:
            return {}
        peaks = [one["hardware"].get("peak_rss_bytes") or 0 for one in about]
        return {**about[0]["hardware"], "peak_rss_bytes": max(peaks) or None}

    def replicas(self) -> list[dict[str, Any]]:
        """Where each replica was, and what it did."""
        return [
            {"name": name, "samples": known.samples, "errors": known.errors}
            for name, known in sorted(self._known.items())
        ]

    def close(self) -> None:
        """Have the replicas stop, and end Ray where it was started for them."""
        import ray

        self._stopping.set()
        if self._desk is not None and ray.is_initialized():
            self._desk.stop.remote()
        if self._thread is not None:
            self._thread.join(GRACE)
        self._desk = self._thread = None
        if self._began:
            ray.shutdown()
            self._began = False
