"""What other processes need to know: which model to make, and which run to work on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from snellen.datasets.base import Selection
from snellen.models.base import Model
from snellen.protocols.base import Protocol

__all__ = ["ModelSpec", "TaskSpec", "identity_of"]


class ModelSpec(NamedTuple):
    """What a replica makes its model of.

    Args:
        identity: of the model where the run was started.
    """

    name: str
    options: Mapping[str, Any]
    batch_size: int
    identity: Mapping[str, Any]


def identity_of(model: Model) -> dict[str, Any]:
    """A model's identity as other processes tell it."""
    plain: dict[str, Any] = json.loads(json.dumps(model.identity()))
    return plain


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A run as a replica needs to know it.

    Args:
        data: makes the samples; called in each replica.
        n: how many they are.
        ids: of some of them, by position, by which a node knows that it sees the same.
        sink: the folder of Parquet files that answers go into; None for the writer.
    """

    run: str
    data: Callable[[], Selection]
    protocol: Protocol
    n: int
    ids: Mapping[int, str]
    cache_salt: str = ""
    sink: str | None = None
