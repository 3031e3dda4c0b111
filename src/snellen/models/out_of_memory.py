"""Handle running out of memory on a local model: one policy for CPU and GPU.

Halve the batch, free caches, and retry; finally raise an error that names the options to set. The batch
size that fits becomes the limit from then on.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from snellen.errors import ModelError

__all__ = ["RESTART", "OutOfMemory", "Shrinking", "is_broken", "is_out_of_memory", "release"]

R = TypeVar("R")
T = TypeVar("T")

#: Messages of torch's allocators, CUDA's libraries, ROCm and Apple's Metal, in lower case.
_PHRASES = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "failed to allocate",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "hiperroroutofmemory",
)


class OutOfMemory(ModelError):
    """A single request does not fit into memory, even after freeing everything."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out.

    torch raises ``OutOfMemoryError`` for a GPU, ``RuntimeError`` for the CPU's allocator and for CUDA's
    libraries, and ``AcceleratorError`` for errors that surface late; numpy and Python raise
    ``MemoryError``.

    >>> is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    True
    >>> is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    if isinstance(error, MemoryError | OutOfMemory):
        return True
    if type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in _PHRASES)


#: What CUDA says of a process that can compute no more, in lower case.
_BROKEN = ("device-side assert", "illegal memory access", "unspecified launch failure", "misaligned address")
#: What to do then.
RESTART = (
    "After this, the GPU answers nothing more in this process. To see where it happened, set "
    "CUDA_LAUNCH_BLOCKING=1 and resume the run"
)


def is_broken(error: BaseException) -> bool:
    """Return whether the GPU can compute no more in this process, so that all that follows would fail.

    >>> is_broken(RuntimeError("CUDA error: device-side assert triggered"))
    True
    """
    text = str(error).lower()
    return any(phrase in text for phrase in _BROKEN)


def release() -> None:
    """Return unused memory to the device."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def refusal(what: str) -> OutOfMemory:
    """Return the final error, with the options that help."""
    return OutOfMemory(
        f"Out of memory: {what} does not fit. Try --batch-size 1, -M cache_budget=512MB, "
        "-M dtype=bfloat16, -M quantization=4bit (a GPU), -M device_map=auto (several GPUs), or smaller "
        "images."
    )


class Shrinking:
    """Runs rows in chunks that fit.

    Args:
        free: frees caches; called before each retry.

    Attributes:
        limit: the number of rows that fit, after some did not; None before that.
    """

    def __init__(self, free: Callable[[], None] = release) -> None:
        self.free = free
        self.limit: int | None = None

    def size(self, most: int) -> int:
        """Return the number of rows to run at once."""
        return most if self.limit is None else max(1, min(self.limit, most))

    def attempt(self, count: int, run: Callable[[], R]) -> tuple[bool, R | None]:
        """Run something over ``count`` rows; return whether it fit, and its result.

        If it did not fit, memory is freed and the limit is halved.

        Raises:
            OutOfMemory: a single row failed twice.
        """
        for last in (False, True):
            try:
                return True, run()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error).strip().partition("\n")[0]
            # Outside the handler, since the error's traceback keeps intermediate results alive.
            self.free()
            if count > 1:
                self.limit = count // 2
                return False, None
            if last:
                raise refusal(f"one request ({message[:120]})")
        raise AssertionError("unreachable")

    def run(self, rows: Sequence[T], most: int, run: Callable[[Sequence[T]], list[Any]]) -> list[Any]:
        """Run all rows in order, in chunks of at most ``most``.

        Raises:
            OutOfMemory: a single row does not fit.
        """
        done: list[Any] = []
        while len(done) < len(rows):
            chunk = rows[len(done) : len(done) + self.size(most)]
            fitted, results = self.attempt(len(chunk), partial(run, chunk))
            if fitted and results is not None:
                done += results
        return done
