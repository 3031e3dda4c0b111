"""Join a Ray cluster, or start Ray on this machine."""

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
    """Where a model's replicas run.

    Args:
        address: of a Ray cluster (``ray://HOST:10001``, ``auto``). None joins the cluster in
            ``$RAY_ADDRESS`` or on this machine, and otherwise starts Ray here.
        replicas: their number; None for one per GPU, or one per core without GPUs.
        gpus: per replica; may be a fraction.

    Raises:
        BadOption: an invalid number.
    """

    address: str | None = None
    replicas: int | None = None
    gpus: float | None = None
    #: Whether Ray was started here, just for this run, so that no machines will join.
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
        """Parse ``ray`` or ``ray://ADDRESS``.

        Raises:
            BadOption: another name, or an invalid number.
        """
        if name != "ray" and not name.startswith("ray://"):
            raise BadOption(f"--engine {name!r} is not allowed; allowed: ray, ray://HOST:PORT.")
        return cls(None if name == "ray" else name, replicas, gpus)

    @property
    def name(self) -> str:
        """The engine as a user names it."""
        return self.address or "ray"

    @property
    def where(self) -> str | None:
        """The cluster's address, if given."""
        return self.address or os.environ.get("RAY_ADDRESS")

    def check(self, model: Model, name: object) -> None:
        """Refuse a model that cannot be replicated.

        Raises:
            MissingExtra: ray is not installed.
            Unsupported: it is a hosted model, or a Python object.
        """
        load_ray()
        if not isinstance(model, LocalModel):
            raise Unsupported(
                f"--engine ray needs a local model, and {model.name} is hosted. Hosted models "
                "already answer in parallel: --max-concurrency"
            )
        if not isinstance(name, str):
            raise Unsupported(f"--engine ray needs a model name, not the model object {name!r}.")

    def join(self) -> bool:
        """Join the cluster, or start Ray on this machine; return whether to leave it or shut it down at the
        end.

        Raises:
            ModelError: it cannot be reached or started.
        """
        # Ray's logs also contain what its core writes to standard error.
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
    """Silence what Ray's core writes to standard error, bypassing Python's streams."""
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
    """Import Ray so that late calls cannot restart it after shutdown.

    Raises:
        MissingExtra: it is not installed.
    """
    # Ray reads this on import.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    return require("ray", "ray", "--engine ray")
