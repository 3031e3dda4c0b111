"""What remote processes need to know: the model to build, and the run to work on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from snellen.datasets.base import Selection
from snellen.models.base import Model
from snellen.protocols.base import Protocol
from snellen.types import Message

__all__ = ["ModelSpec", "TaskSpec", "identity_of"]


class ModelSpec(NamedTuple):
    """How a replica builds its model.

    Args:
        identity: of the model where the run was started.
    """

    name: str
    options: Mapping[str, Any]
    batch_size: int
    identity: Mapping[str, Any]


def identity_of(model: Model) -> dict[str, Any]:
    """Return a model's identity in a form that other processes can compare."""
    plain: dict[str, Any] = json.loads(json.dumps(model.identity()))
    return plain


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A run as seen by a replica.

    Args:
        data: builds the samples; called in each replica.
        n: the number of samples.
        ids: some ids by position, to check that a node sees the same data.
        shots: examples to show before each question.
        sink: the folder of Parquet files for answers; None for the writer.
    """

    run: str
    data: Callable[[], Selection]
    protocol: Protocol
    n: int
    ids: Mapping[int, str]
    cache_salt: str = ""
    sink: str | None = None
    shots: tuple[Message, ...] = ()
