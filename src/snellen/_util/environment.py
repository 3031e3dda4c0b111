"""The machine and the packages that a run used."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = [
    "available_memory",
    "git_hash",
    "hardware",
    "is_gone",
    "peak_rss",
    "processor",
    "this_process",
    "versions",
]


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that can change a figure."""
    packages = {"python": platform.python_version()}
    for package in ("torch", "transformers", "tokenizers", "numpy", "pillow"):
        with suppress(metadata.PackageNotFoundError):
            packages[package] = metadata.version(package)
    return packages


def hardware() -> dict[str, Any]:
    """The machine, as far as known: processor, cores, memory, GPU (only if torch is in use)."""
    import psutil

    machine: dict[str, Any] = {
        "system": platform.platform(),
        "processor": processor(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }
    if (torch := sys.modules.get("torch")) is not None:
        machine["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            machine["gpu"] = torch.cuda.get_device_name()
    return machine


def processor() -> str:
    """Return the name of the processor."""
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_rss() -> int:
    """The peak memory of this process, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        memory: Any = psutil.Process().memory_info()
        return int(memory.peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def available_memory() -> int:
    """Memory that can be allocated without swapping, in bytes."""
    import psutil

    return int(psutil.virtual_memory().available)


def this_process() -> dict[str, Any]:
    """Identify this process: host, number, and start time, since numbers are used again."""
    import psutil

    process = psutil.Process()
    return {"host": platform.node(), "pid": process.pid, "started": process.create_time()}


def is_gone(process: Mapping[str, Any]) -> bool:
    """Return whether a process of this host (see :func:`this_process`) has ended; False if it is unknown."""
    import psutil

    if process.get("host") != platform.node():
        return False
    try:
        return bool(psutil.Process(process["pid"]).create_time() != process["started"])
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return False


def git_hash() -> str | None:
    """The commit of the repository around the working directory, with ``-dirty`` if it has changes."""
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
