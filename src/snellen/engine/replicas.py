"""Many copies of a model in processes of their own, on this machine or a Ray cluster, as one model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from snellen.errors import BadOption, ModelError, Unsupported, reason_of, require
from snellen.images import Image
from snellen.models.base import LocalModel, Model, failure
from snellen.registry import MODELS
from snellen.types import Message, Request, Response

__all__ = ["Engine", "Replicated"]

#: How often a replica that died is started again, and how often a batch that it died of is tried again.
RESTARTS, RETRIES = 8, 1
#: Seconds in which all replicas must have loaded: a cluster may be busy, or still growing.
PATIENCE = 1800.0
#: Blocks that wait for each replica, so that none is idle while its answers are stored.
AHEAD = 2


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


class _Bytes:
    """An image's encoded bytes, as what an :class:`Image` is loaded by: what can be sent."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __call__(self) -> bytes:
        return self.data


def portable(requests: Sequence[Request]) -> list[Request]:
    """Requests that can be sent to another process: images as their bytes, each once, and no samples."""
    known: dict[str, Image] = {}

    def sent(part: str | Image) -> str | Image:
        if isinstance(part, str):
            return part
        if part.sha256 not in known:
            known[part.sha256] = Image(_Bytes(part.data), part.name)
        return known[part.sha256]

    return [
        replace(
            request,
            messages=tuple(Message(m.role, tuple(map(sent, m.content))) for m in request.messages),
            sample=None,
        )
        for request in requests
    ]


class _Replica:
    """A model in a process of its own. What Ray makes an actor of."""

    def __init__(self, name: str, options: Mapping[str, Any], batch_size: int | None) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.model = MODELS.make(name, options)
        self.model.batch_size = batch_size or self.model.batch_size
        self.model.load()

    def respond(self, requests: list[Request]) -> list[Response]:
        """Answer; called for one batch after another."""
        return asyncio.run(self.model.respond(requests))

    def about(self) -> tuple[dict[str, Any], int, int]:
        """Facts of the loaded model, its wave, and the process that it is in."""
        return dict(self.model.facts()), self.model.wave, os.getpid()


class Replicated(Model):
    """Copies of a model that answer side by side; to the rest of the house it is that model: the same
    identity,
    so the same run and the same memory.

    The one process that drives the protocols reads the data, stores what comes back and sends what is to
    be asked,
    at most two blocks a replica ahead. A replica that dies is started again by Ray, and what it was asked is
    asked again; a batch that it dies of twice is halved, down to the request that is at fault, which ends as
    an error.

    Args:
        name, options: of the model, as :data:`snellen.registry.MODELS` takes them: every replica makes its
        own.

    Raises:
        MissingExtra: ray is not installed.
        Unsupported: the model is behind an address, or is none that runs in a process.
    """

    def __init__(
        self, name: str, options: Mapping[str, Any], engine: Engine, batch_size: int | None = None
    ) -> None:
        require("ray", "ray", "The engine ray")
        self._inner = MODELS.make(name, options)
        if not isinstance(self._inner, LocalModel):
            raise Unsupported(
                f"--engine ray is for models that run here; {name} does not. What is behind an address is "
                "asked side by side already: --max-concurrency"
            )
        self._make = (name, dict(options), batch_size)
        self._engine = engine
        self.name, self.kinds, self.text_only = name, self._inner.kinds, self._inner.text_only
        self.boxes, self.hint = self._inner.boxes, self._inner.hint
        self.batch_size = batch_size or self._inner.batch_size
        self._actors: list[Any] = []
        self._idle: asyncio.Queue[Any] | None = None
        self._facts: dict[str, Any] = {}
        self._wave = 1
        self._began = False
        self._deaths = 0

    def identity(self) -> Mapping[str, Any]:
        return self._inner.identity()

    def context(self, request: Request) -> Mapping[str, Any]:
        return self._inner.context(request)

    def check(self) -> None:
        self._inner.check()

    def prepare(self, image: Image) -> None:
        _ = image.data

    def group(self, request: Request) -> Hashable:
        return self._inner.group(request)

    def together(self, requests: Sequence[Request]) -> list[list[int]]:
        """All of them: a replica parts them as it would alone."""
        return [list(range(len(requests)))] if requests else []

    @property
    def wave(self) -> int:
        return self._wave

    def load(self) -> None:
        """Start Ray, if it does not run, and the replicas.

        Raises:
            ModelError: Ray cannot be reached, or a replica cannot load the model.
        """
        if self._actors:
            return
        ray: Any = require("ray", "ray", "The engine ray")
        try:
            if not ray.is_initialized():
                where = self._engine.address or os.environ.get("RAY_ADDRESS")
                ray.init(where, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
                self._began = True
            each = self._resources(ray)
            actor = ray.remote(_Replica).options(
                **each, max_restarts=RESTARTS, max_task_retries=RETRIES, max_concurrency=1
            )
            name, options, size = self._make
            self._actors = [actor.remote(name, options, size) for _ in range(self._count(ray, each))]
            about = ray.get([one.about.remote() for one in self._actors], timeout=PATIENCE)
        except Exception as error:
            self.close()
            raise ModelError(f"--engine ray: the replicas cannot be started ({reason_of(error)}).") from error
        self._facts, self._wave = about[0][0], min(wave for _, wave, _ in about)
        self.workers = AHEAD * len(self._actors)

    def _resources(self, ray: Any) -> dict[str, float]:
        gpus = self._engine.gpus
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
        return {"num_cpus": 1, "num_gpus": gpus}

    def _count(self, ray: Any, each: Mapping[str, float]) -> int:
        """How many replicas there are to be: as many as fit, unless it is said."""
        there = ray.cluster_resources()
        fits = int(there.get("CPU", 1))
        if each["num_gpus"]:
            fits = min(fits, int(there.get("GPU", 0) / each["num_gpus"]))
        wanted = self._engine.replicas or fits
        if wanted > fits:
            raise ValueError(f"{wanted} replicas are asked for, and there is room for {fits}")
        return max(1, wanted)

    async def respond(self, requests: Sequence[Request]) -> list[Response]:
        """Answer by the next replica that is idle."""
        return await self._ask(portable(requests))

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Who is idle is known within one event loop."""
        self._idle = asyncio.Queue()
        for actor in self._actors:
            self._idle.put_nowait(actor)
        try:
            yield
        finally:
            self._idle = None

    async def _ask(self, requests: list[Request]) -> list[Response]:
        import ray

        assert self._idle is not None
        actor = await self._idle.get()
        try:
            found: list[Response] = await actor.respond.remote(requests)
            return found
        except ray.exceptions.RayTaskError as error:  # raised by the model: no other try would help
            return [failure(_cause(error))] * len(requests)
        except ray.exceptions.RayError as error:
            self._deaths += 1
            fate: Exception = error
        finally:
            self._idle.put_nowait(actor)
        if len(requests) == 1:
            return [failure(fate)]
        middle = len(requests) // 2
        return await self._ask(requests[:middle]) + await self._ask(requests[middle:])

    def status(self) -> str:
        told = f"{len(self._actors)} replicas"
        return told + (f", {self._deaths} batches tried again" if self._deaths else "")

    def facts(self) -> Mapping[str, Any]:
        """Of one replica, and how many there were."""
        return {**self._facts, "replicas": len(self._actors)} if self._facts else {}

    def close(self) -> None:
        if self._actors:
            import ray

            for actor in self._actors:
                ray.kill(actor)
            self._actors = []
        if self._began:
            import ray

            ray.shutdown()
            self._began = False


def _cause(error: Any) -> Exception:
    """What a task of Ray's failed of."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error
