"""Running out of memory on a local model: one policy, on a CPU and on a GPU.

Shrink what runs at once, give back what is cached, and try again; at the end an error that names the
options to set. What fitted once is the bound from then on.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from snellen.errors import ModelError

__all__ = ["OutOfMemory", "Shrinking", "is_out_of_memory", "release"]

R = TypeVar("R")
T = TypeVar("T")

#: What torch's allocators, CUDA's libraries, ROCm and Apple's Metal say, in lower case.
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
    """A single request does not fit into memory, whatever is given back."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of whatever sort it is.

    torch raises ``OutOfMemoryError`` for a GPU, ``RuntimeError`` for the CPU's allocator and for CUDA's
    libraries, and ``AcceleratorError`` for errors that surface late; numpy and Python raise ``MemoryError``.

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


def release() -> None:
    """Give unused memory back to the device."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def refusal(what: str) -> OutOfMemory:
    """The error at the end, with what a user can change."""
    return OutOfMemory(
        f"Out of memory: {what} does not fit. Use less of it: --batch-size 1, -M cache_budget=512MB, "
        "-M dtype=bfloat16, -M quantization=4bit (a GPU), -M device_map=auto (several GPUs), or smaller "
        "images."
    )


class Shrinking:
    """Runs rows in chunks that fit.

    Args:
        free: gives back what is cached; called before each new try.

    Attributes:
        limit: how many rows fitted at once, once some did not; None before that.
    """

    def __init__(self, free: Callable[[], None] = release) -> None:
        self.free = free
        self.limit: int | None = None

    def size(self, most: int) -> int:
        """How many rows to run at once."""
        return most if self.limit is None else max(1, min(self.limit, most))

    def attempt(self, count: int, run: Callable[[], R]) -> tuple[bool, R | None]:
        """Run something over ``count`` rows: whether it fitted, and its result.

        Where it did not, memory is given back and the limit is halved.

        Raises:
            OutOfMemory: a single row did not fit twice.
        """
        for last in (False, True):
            try:
                return True, run()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error).strip().partition("\n")[0]
            # Outside the handler: the error's traceback holds what was computed so far.
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
