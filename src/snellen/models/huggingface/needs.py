"""Packages that a checkpoint or an option needs, said before any weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from snellen.errors import BadOption, ModelError

__all__ = ["check_attention", "check_quantized"]

#: What reads the weights of a quantization method, by the module that is imported and the name on PyPI.
QUANTIZED: Mapping[str, Mapping[str, str]] = {
    "awq": {"gptqmodel": "gptqmodel"},
    "bitsandbytes": {"bitsandbytes": "bitsandbytes"},
    "compressed-tensors": {"compressed_tensors": "compressed-tensors"},
    "gptq": {"optimum": "optimum", "gptqmodel": "gptqmodel"},
    "torchao": {"torchao": "torchao"},
}
#: Any of these provides an attention's kernels; ``kernels`` downloads them from the Hub.
FLASH: Mapping[str, Mapping[str, str]] = {
    "flash_attention_2": {"flash_attn": "flash-attn", "kernels": "kernels"},
    "flash_attention_3": {"flash_attn_interface": "flash-attn-3", "kernels": "kernels"},
}


def check_attention(attn: str, device: str) -> None:
    """Refuse flash attention where it cannot run.

    Raises:
        BadOption: there is no GPU of NVIDIA or AMD, or no package with its kernels.
    """
    if attn not in FLASH:
        return
    if not device.startswith("cuda"):
        raise BadOption(f"attn={attn} needs a GPU, but the device is {device}. Try attn=sdpa.")
    if not any(find_spec(module) for module in FLASH[attn]):
        names = " or ".join(f"pip install {package}" for package in FLASH[attn].values())
        raise BadOption(f"attn={attn} needs a package that is not installed: {names}. Or try attn=sdpa.")


def check_quantized(name: str, config: Any, quantization: str) -> None:
    """Refuse a checkpoint that is stored in fewer bits, if what reads it is missing.

    Raises:
        ModelError: a package is missing, or it is to be quantized again.
    """
    stored = getattr(config, "quantization_config", None)
    if not stored:
        return
    method = str((stored if isinstance(stored, dict) else vars(stored)).get("quant_method", "unknown"))
    if quantization != "none":
        raise ModelError(
            f"{name} is already quantized ({method}), so that quantization={quantization} is not allowed. "
            "Leave it out."
        )
    needed = QUANTIZED.get(method, {})
    missing = [package for module, package in needed.items() if find_spec(module) is None]
    if missing:
        raise ModelError(
            f"{name} is quantized ({method}). Install what reads it: pip install {' '.join(missing)}"
        )
