"""What is worth knowing of a loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["facts"]


def facts(model: Any) -> Mapping[str, Any]:
    """Parameters, architecture, device and precision of a torch model, and the GPU's peak so far."""
    if model is None:
        return {}
    import torch

    on_gpu = model.device.type == "cuda"
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "architecture": type(model).__name__,
        "device": torch.cuda.get_device_name(model.device) if on_gpu else str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated(model.device) if on_gpu else None,
    }
