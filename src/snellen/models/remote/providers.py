"""Servers that speak the OpenAI chat protocol: addresses, keys, and what they take."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["ANYWHERE", "PROVIDERS", "Provider"]

#: The formats (Pillow's names) that every server takes.
COMMON = ("JPEG", "PNG")
PILLOW = (*COMMON, "WEBP")
MIB = 2**20


class Provider(NamedTuple):
    """An OpenAI-compatible server with its own scheme.

    Args:
        address: its base URL; empty if each user has another.
        key: the environment variable of its key.
        needs_key: whether a key is required.
        scores: the likelihoods that it provides.
        guided: how it makes an answer one of several: vLLM's ``structured_outputs`` (``choice``), or a JSON
            schema (``schema``).
        formats: of images.
        max_bytes: of an image in base64.
        max_side: of an image, in pixels.
        max_images: in a request; None if unknown.
        batches: the form of its batches at half the price (see :mod:`snellen.models.remote.batch.formats`);
            empty if it has none, or it could not be verified.
        note: what else users should know.
        source: where the limits are documented; none if they are only this package's defaults.
    """

    address: str
    key: str
    needs_key: bool = True
    scores: Literal["none", "top", "prompt"] = "none"
    guided: Literal["none", "choice", "schema"] = "none"
    formats: tuple[str, ...] = COMMON
    max_bytes: int = 5 * MIB
    max_side: int | None = None
    max_images: int | None = None
    batches: str = ""
    note: str = ""
    source: str = ""


def _local(port: int, key: str) -> Provider:
    return Provider(f"http://localhost:{port}/v1", key, needs_key=False)


#: The providers with their own scheme; limits as documented in November 2026.
PROVIDERS = {
    "openai": Provider(
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        scores="top",
        guided="schema",
        formats=PILLOW,
        batches="openai",
        source="https://platform.openai.com/docs/guides/images-vision",
    ),
    "anthropic": Provider(
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        formats=PILLOW,
        max_side=8000,
        max_images=100,
        batches="anthropic",
        source="https://docs.claude.com/en/docs/build-with-claude/vision",
    ),
    "azure": Provider(
        "",
        "AZURE_OPENAI_API_KEY",
        scores="top",
        guided="schema",
        formats=PILLOW,
        note="base_url=https://NAME.openai.azure.com/openai/v1, or a deployment's address with api_version=",
    ),
    "dashscope": Provider("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "fireworks": Provider("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        formats=PILLOW,
        note="at most 20 MB a request",
        source="https://ai.google.dev/gemini-api/docs/image-understanding",
    ),
    "groq": Provider(
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        max_bytes=3_800_000,
        max_side=5760,
        max_images=5,
        batches="openai",
        note="at most 4 MB a request, and 33 megapixels an image",
        source="https://console.groq.com/docs/vision",
    ),
    "hf-router": Provider("https://router.huggingface.co/v1", "HF_TOKEN"),
    "llama-cpp": _local(8080, "LLAMA_API_KEY")._replace(
        note="llama-server with a projector (--mmproj); no WebP",
        source="https://github.com/ggml-org/llama.cpp/pull/19066",
    ),
    "lm-studio": _local(1234, "LM_STUDIO_API_KEY"),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY", batches="mistral"),
    "ollama": _local(11434, "OLLAMA_API_KEY")._replace(
        note="answers one request at a time unless told otherwise"
    ),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "sglang": _local(30000, "SGLANG_API_KEY")._replace(formats=PILLOW),
    "together": Provider("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "vllm": _local(8000, "VLLM_API_KEY")._replace(
        scores="prompt", guided="choice", formats=PILLOW, max_bytes=20 * MIB
    ),
    "xai": Provider(
        "https://api.x.ai/v1",
        "XAI_API_KEY",
        source="https://docs.x.ai/docs/guides/image-understanding",
    ),
}

#: Another address than a provider's own: what every server takes.
ANYWHERE = Provider("", "OPENAI_API_KEY", needs_key=False)
