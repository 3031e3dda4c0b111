"""Joining a Ray cluster, or starting Ray on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from snellen.errors import BadOption, ModelError, Unsupported, reason_of, require
from snellen.models.base import LocalModel, Model

__all__ = ["Engine", "load_ray"]


@dataclass
class Engine:
    """Where a model's copies run.

    Args:
        address: of a Ray cluster (``ray://HOST:10001``, ``auto``); None joins the cluster that
            ``$RAY_ADDRESS`` names, or that runs on this machine, or else starts Ray here.
        replicas: how many; None for one a GPU, or one a processor core where there are none.
        gpus: of each replica, which may be a part of one.

    Raises:
        BadOption: a number that cannot be.
    """

    address: str | None = None
    replicas: int | None = None
    gpus: float | None = None
    #: Whether Ray was started here, for this alone, so that no more machines will come.
    alone: bool = field(default=False, init=False, compare=False)

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

    @property
    def where(self) -> str | None:
        """The address of a cluster, where one is named."""
        return self.address or os.environ.get("RAY_ADDRESS")

    def check(self, model: Model, name: object) -> None:
        """Refuse a model of which no copies can be made.

        Raises:
            MissingExtra: ray is not installed.
            Unsupported: it is behind an address, or an object of Python's own.
        """
        load_ray()
        if not isinstance(model, LocalModel):
            raise Unsupported(
                f"--engine ray is for models that run here; {model.name} does not. What is behind an address "
                "is asked side by side already: --max-concurrency"
            )
        if not isinstance(name, str):
            raise Unsupported(f"An engine makes copies of models by their names; {name!r} is an object.")

    def join(self) -> bool:
        """Join the cluster, or start Ray on this machine: whether it is to be left again, or ended.

        Raises:
            ModelError: it cannot be.
        """
        # What Ray's core writes to standard error, its own logs hold as well.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray = load_ray()
        require("ray.data", "ray", "--engine ray")
        if ray.is_initialized():
            return False
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            with _hushed():
                try:
                    ray.init(self.where or "auto", **quiet)
                except ConnectionError:
                    if self.where:
                        raise
                    ray.init("local", include_dashboard=False, **quiet)
                    self.alone = True
        except Exception as error:
            raise ModelError(
                f"--engine ray: Ray cannot be {'reached at ' + self.where if self.where else 'started'} "
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


def load_ray() -> Any:
    """Ray, which must not be started again by what still asks it after it was ended.

    Raises:
        MissingExtra: it is not installed.
    """
    # Ray reads this when it is imported.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    return require("ray", "ray", "--engine ray")
