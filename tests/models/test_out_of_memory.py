"""Running out of memory: one policy for every local model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snellen.errors import ModelError
from snellen.models.out_of_memory import OutOfMemory, Shrinking, is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        torch.cuda.OutOfMemoryError("HIP out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        MemoryError(),
        OutOfMemory("a request does not fit"),
    ],
)
def test_every_kind_of_error_is_known(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ValueError("out of memory is only a word here"),
        ModelError("no such checkpoint"),
    ],
)
def test_other_errors_are_others(error):
    assert not is_out_of_memory(error)


def test_a_real_allocation_that_cannot_be(monkeypatch):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value) or "storage" in str(caught.value).lower()


@given(rows=st.lists(st.integers(), max_size=40), most=st.integers(1, 16), fits=st.integers(1, 16))
def test_what_fits_is_found_and_kept(rows, most, fits):
    freed: list[int] = []
    sizes: list[int] = []
    memory = Shrinking(lambda: freed.append(1))

    def run(chunk: Any) -> list[int]:
        sizes.append(len(chunk))
        if len(chunk) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [2 * value for value in chunk]

    assert memory.run(rows, most, run) == [2 * value for value in rows]
    first = next((i for i, size in enumerate(sizes) if size <= fits), len(sizes))
    assert all(size <= fits for size in sizes[first:]), "what did not fit once is not tried again"
    assert len(freed) == sum(size > fits for size in sizes)


def test_caches_are_given_back_before_a_single_row_is_given_up():
    held = [True]
    memory = Shrinking(held.clear)

    def run(chunk: Any) -> list[str]:
        if held:
            raise RuntimeError("CUDA out of memory")
        return ["answer"]

    assert memory.run(["row"], 8, run) == ["answer"]


def test_at_the_end_the_error_names_the_options():
    def run(chunk: Any) -> list[str]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nmore")

    with pytest.raises(OutOfMemory, match=r"Tried to allocate 9.00 GiB.*--batch-size 1.*cache_budget.*4bit"):
        Shrinking(lambda: None).run(["a", "b"], 2, run)


def test_other_errors_go_through():
    def run(chunk: Any) -> list[str]:
        raise ValueError("no image")

    with pytest.raises(ValueError, match="no image"):
        Shrinking(lambda: None).run(["a"], 1, run)
