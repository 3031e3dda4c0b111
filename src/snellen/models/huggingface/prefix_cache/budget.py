"""The memory budget of caches."""

from __future__ import annotations

import re
from typing import Any

from snellen._util.environment import available_memory
from snellen.errors import BadOption

__all__ = ["free_bytes", "memory_of", "parse_bytes"]

#: The share of free memory to use, leaving room for what is not counted.
SHARE = {"cuda": 0.7, "cpu": 0.25}
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(option: str, value: str) -> int | None:
    """Parse ``512MB``, ``2GiB``, ``1.5g`` or a number of bytes; None for ``auto``.

    >>> parse_bytes("cache_budget", "2GB")
    2147483648

    Raises:
        BadOption: anything else.
    """
    if value == "auto":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", value.strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise BadOption(f"{option}={value!r} is not allowed; allowed: auto, or a size such as 512MB or 2GB.")
    return size


def memory_of(device: Any) -> int:
    """Return all of a GPU's memory in bytes, free or not."""
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def free_bytes(device: Any) -> int:
    """Return a share of the free memory on a device."""
    if device.type == "cuda":
        import torch

        # Memory that torch has reserved but does not use is available too.
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free * SHARE["cuda"])
    return int(available_memory() * SHARE["cpu"])
