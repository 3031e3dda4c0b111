"""What a user may have meant by the name of a model."""

from __future__ import annotations

import re

from snellen.models.builtin import NAMES

__all__ = ["suggest"]

#: Beginnings of names, and the names that people usually mean by them ({name}: what was typed).
FAMILIES = (
    (r"gpt-|o[1-9](-|$)|chatgpt", "openai:{name}"),
    (r"claude", "anthropic:{name}"),
    (r"gemini", "gemini:{name}"),
    (r"mistral|ministral|pixtral", "mistral:{name}"),
    (r"llava", "hf:llava-hf/llava-1.5-7b-hf"),
    (r"qwen", "hf:Qwen/Qwen2.5-VL-7B-Instruct"),
    (r"smolvlm", "hf:HuggingFaceTB/SmolVLM-500M-Instruct"),
    (r"internvl", "hf:OpenGVLab/InternVL3-8B-hf"),
    (r"paligemma", "hf:google/paligemma2-3b-mix-224"),
    (r"gemma", "hf:google/gemma-3-4b-it"),
    (r"florence", "hf:florence-community/Florence-2-base-ft"),
    (r"clip", "clip:openai/clip-vit-base-patch32"),
    (r"siglip", "clip:google/siglip2-base-patch16-224"),
    (r"resnet|vit", "classifier:google/vit-base-patch16-224"),
)


def suggest(name: str) -> list[str]:
    """Return full names for a name without a scheme, the built-in one first.

    >>> suggest("llava"), suggest("gpt-4o"), suggest("nothing")
    (['pico:llava', 'hf:llava-hf/llava-1.5-7b-hf'], ['openai:gpt-4o'], [])
    """
    bare = name.rstrip(":").lower()
    names = [f"pico:{bare}"] if bare in NAMES else []
    return names + [form.format(name=name) for start, form in FAMILIES if re.match(start, bare)][:1]
