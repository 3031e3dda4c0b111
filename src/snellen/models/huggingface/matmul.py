"""Choose the fastest exact implementation of float32 matrix products on the CPU.

oneDNN's implementation for reduced precision is up to twice as fast as the default on some processors
without losing precision, and actually rounds to bfloat16 on others, so both are tried.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

from snellen._util.environment import processor
from snellen._util.files import cache_folder, write_atomic

__all__ = ["take_fastest_route"]

#: The largest error, relative to the largest entry, that counts as float32.
EXACT = 1e-5
#: How much faster an implementation must be.
GAIN = 1.1


def take_fastest_route() -> str:
    """Set torch's implementation of float32 products in this process: ``onednn`` if it is exact and
    faster, else ``default``.

    That is measured once for a processor and a version of torch, and remembered in the user's cache: two
    processes that took different routes would differ in their last digits.
    """
    import torch

    onednn: Any = torch.backends.mkldnn
    if not onednn.is_available():
        return "default"
    usual = onednn.matmul.fp32_precision
    key = hashlib.sha256(f"{torch.__version__} {processor()}".encode()).hexdigest()[:16]
    file = cache_folder() / f"matmul-{key}"
    try:
        if file.exists():
            return _take(file.read_text(encoding="utf-8"), usual)
        route = measure_route()
        part = file.with_name(f"{file.name}.{os.getpid()}.part")
        write_atomic(part, route)
        try:
            os.link(part, file)  # whole, or not if there is one
        finally:
            part.unlink()
    except FileExistsError:  # another process was first, and decides for all
        return _take(file.read_text(encoding="utf-8"), usual)
    except OSError:  # nothing can be remembered here
        return measure_route()
    return route


def _take(route: str, usual: str) -> str:
    """Take a remembered route; ``usual`` is the switch's own position."""
    import torch

    onednn: Any = torch.backends.mkldnn
    try:
        onednn.matmul.fp32_precision = "bf16" if route == "onednn" else usual
    except RuntimeError:  # not available in this build
        return "default"
    return route


def measure_route() -> str:
    """Measure both routes and take the better one."""
    import torch

    onednn: Any = torch.backends.mkldnn
    switch, usual = onednn.matmul, onednn.matmul.fp32_precision
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(*shape, generator=generator) for shape in ((256, 1024), (1024, 1024)))
    truth = a.double() @ b.double()
    before = best_seconds(lambda: a @ b)
    try:
        switch.fp32_precision = "bf16"
        error = float(((a @ b).double() - truth).abs().max() / truth.abs().max())
        if error < EXACT and best_seconds(lambda: a @ b) * GAIN < before:
            return "onednn"
    except RuntimeError:
        pass  # not available in this build or on this processor
    switch.fp32_precision = usual
    return "default"


def best_seconds(run: Callable[[], object]) -> float:
    """Return the minimum of a few runs."""
    times = []
    for _ in range(4):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)
