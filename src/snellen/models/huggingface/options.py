"""The types of options of Hugging Face models."""

from typing import Literal

__all__ = ["Attention", "Dtype", "PrefixMode"]

Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"]
#: Whether questions about an image share its computation.
PrefixMode = Literal["auto", "on", "off"]
