"""Shared by all models that are loaded from a checkpoint."""

from __future__ import annotations

import gc
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from snellen.models.base import EVERYWHERE, LocalModel
from snellen.models.huggingface.checkpoint import Checkpoint

__all__ = ["CheckpointModel"]

#: Bytes of weights that are given back at once; less waits for Python's own collection.
LARGE = 2**28


class CheckpointModel(LocalModel):
    """A model from a checkpoint, loaded on first use."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.name = checkpoint.name
        device = checkpoint.device
        self.place = "cuda:0" if device == "cuda" else device
        if checkpoint.device_map is not None:
            self.place = EVERYWHERE
        self._model: Any = None
        self._processor: Any = None

    @abstractmethod
    def load_parts(self) -> tuple[Any, Any]:
        """Load the processor and the model."""

    def load(self) -> None:
        if self._model is None:
            processor, model = self.load_parts()
            self.checkpoint.image_size.apply(processor, model)
            self._processor, self._model = processor, model
            for gpu in self._gpus():
                import torch

                torch.cuda.reset_peak_memory_stats(gpu)

    def close(self) -> None:
        if self._model is not None:
            on_gpu = self._model.device.type == "cuda"
            large = sum(p.nbytes for p in self._model.parameters()) > LARGE
            self._model = None
            # It looks at every object of the process, which takes as long as a small model's answer.
            if on_gpu or large:
                gc.collect()
            if on_gpu:
                import torch

                torch.cuda.empty_cache()

    def _gpus(self) -> list[Any]:
        """Return the GPUs that hold the model."""
        return sorted({p.device for p in self._model.parameters() if p.device.type == "cuda"}, key=str)

    def metadata(self) -> Mapping[str, Any]:
        """Parameters, architecture, device and precision, and the combined peak memory of its GPUs so far."""
        if self._model is None:
            return {}
        import torch

        model = self._model
        on_gpu = model.device.type == "cuda"
        quantized = {name: str(value) for name, value in self.checkpoint.quantized().items()}
        return {
            "parameters": sum(p.numel() for p in model.parameters()),
            "architecture": type(model).__name__,
            "device": ", ".join(map(torch.cuda.get_device_name, self._gpus())) or str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            **({"quantization": quantized} if quantized else {}),
            "peak_gpu_bytes": sum(map(torch.cuda.max_memory_allocated, self._gpus())) if on_gpu else None,
        }
