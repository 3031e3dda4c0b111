"""Let accelerate shard models on CPUs as well, for whoever has this folder on ``PYTHONPATH``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

state: Any = import_module("accelerate.state")  # which has no types
begin = state.AcceleratorState.__init__


def begin_sharded(self: Any, *arguments: Any, **options: Any) -> None:
    """Begin as always, and shard if a plugin for it was given, now or before."""
    begin(self, *arguments, **options)
    shared = state.AcceleratorState._shared_state
    plugin = options.get("fsdp_plugin") or shared.get("fsdp_plugin")
    if plugin is not None:
        shared |= {"fsdp_plugin": plugin, "distributed_type": state.DistributedType.FSDP}


state.AcceleratorState.__init__ = begin_sharded
