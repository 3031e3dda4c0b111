"""Models that speak the OpenAI chat protocol, and shorthands for common providers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

from snellen.errors import BadOption
from snellen.models.base import MODELS, Model
from snellen.models.remote.urls import ApiKey, address_of, storable_option

__all__ = ["PROVIDERS", "Provider", "openai"]


class Provider(NamedTuple):
    """An OpenAI-compatible endpoint with its own scheme.

    Args:
        address: its base URL.
        key: the environment variable of its key.
        needs_key: whether a key is required.
        scores: the likelihoods that it provides.
    """

    address: str
    key: str
    needs_key: bool = True
    scores: Literal["none", "top", "prompt"] = "none"


#: The providers with their own scheme.
PROVIDERS = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY", scores="top"),
    "anthropic": Provider("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "gemini": Provider("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "ollama": Provider("http://localhost:11434/v1", "OLLAMA_API_KEY", needs_key=False),
    "vllm": Provider("http://localhost:8000/v1", "VLLM_API_KEY", needs_key=False, scores="prompt"),
}


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """The options of a chat model: see :func:`openai`."""

    base_url: str | None = None
    api_key_env: str | None = None
    system: str | None = None
    temperature: float | None = 0.0
    max_tokens: int | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    extra: str | None = None
    detail: Literal["low", "high", "auto"] | None = None
    max_side: int | None = None
    scores: Literal["auto", "none", "top", "prompt"] = "auto"
    max_tokens_as: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    timeout: float = 120.0
    total_timeout: float = 600.0
    tries: int = 8
    max_consecutive_failures: int = 20
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    price_in: float | None = None
    price_out: float | None = None


@MODELS.register("openai", example="openai:NAME", bundle=("options", ChatOptions))
def openai(model: str, *, options: ChatOptions) -> Model:
    """A chat model behind an OpenAI-compatible endpoint: hosted, or your own server.

    The key comes from the environment: ``OPENAI_API_KEY``, or the variable named in ``api_key_env``.

    Options: ``base_url``, the server's URL (default: ``$OPENAI_BASE_URL`` or OpenAI's own), and
    ``api_key_env``. These can change answers: ``system``, a system prompt; ``temperature`` (default: 0;
    ``none`` omits it, which is done unasked for models that are known to refuse 0); ``max_tokens`` instead
    of the protocol's (default: 4096 for models that are known to think); ``seed``;
    ``reasoning_effort``; ``extra``, a JSON object added to each request; ``detail`` and ``max_side``
    (pixels) of images; ``max_tokens_as``, the server's name for ``max_tokens``; ``scores``, the
    likelihoods that it provides: ``top`` (the top next tokens: yes and no, letters), ``prompt`` (vLLM's
    prompt_logprobs: rank) or ``none``.

    These cannot: ``timeout`` of one attempt and ``total_timeout`` of a request with all its ``tries``
    (seconds); ``max_consecutive_failures`` before the run stops; ``requests_per_minute``,
    ``tokens_per_minute``; ``price_in`` and ``price_out`` in US dollars per million tokens.

    Raises:
        BadOption: an invalid URL or option.
        ModelError: the key is missing.
    """
    return _chat("openai", model, options)


def _chat(scheme: str, model: str, options: ChatOptions) -> Model:
    from snellen.models.remote.chat import ChatModel, Settings
    from snellen.models.remote.prices import Prices
    from snellen.models.remote.reasoning import MAX_TOKENS, fixed_temperature, thinks
    from snellen.models.remote.retry import RetryPolicy

    provider = PROVIDERS[scheme]
    if not model:
        raise BadOption(f"{scheme}: needs a model; write {scheme}:NAME, with the server's name for it.")
    base_url = options.base_url
    if scheme == "openai" and base_url is None:
        base_url = os.environ.get("OPENAI_BASE_URL") or None
    address = address_of("base_url", base_url or provider.address)
    own = address == provider.address
    key_name = options.api_key_env or provider.key
    key = ApiKey(key_name, needed=options.api_key_env is not None or (own and provider.needs_key))
    settings = {f.name: getattr(options, f.name) for f in fields(Settings)}
    settings["extra"] = _object("extra", storable_option("extra", options.extra))
    storable_option("system", options.system)
    if settings["scores"] == "auto":
        settings["scores"] = provider.scores if own or scheme == "vllm" else "none"
    if settings["max_tokens_as"] == "auto":
        newer = address == PROVIDERS["openai"].address  # whose reasoning models reject the older name
        settings["max_tokens_as"] = "max_completion_tokens" if newer else "max_tokens"
    if settings["temperature"] == 0 and fixed_temperature(model):
        settings["temperature"] = None
    if settings["max_tokens"] is None and thinks(model):
        settings["max_tokens"] = MAX_TOKENS
    for name in ("max_tokens", "max_side"):
        if settings[name] is not None and settings[name] < 1:
            raise BadOption(f"{name}={settings[name]} is not allowed; allowed: 1 or more.")
    return ChatModel(
        name=f"{scheme}:{model}",
        model=model,
        address=address,
        settings=Settings(**settings),
        retry_policy=RetryPolicy(**{f.name: getattr(options, f.name) for f in fields(RetryPolicy)}),
        prices=Prices.find(f"{scheme}:{model}", options.price_in, options.price_out),
        key=key,
    )


def _shorthand(scheme: str) -> Callable[..., Model]:
    def factory(model: str, *, options: ChatOptions) -> Model:
        return _chat(scheme, model, options)

    provider = PROVIDERS[scheme]
    factory.__doc__ = (
        f"A chat model at {provider.address} (key: ``{provider.key}``"
        f"{'' if provider.needs_key else ', if required'}), with the options of ``openai``.\n\n"
        + (openai.__doc__ or "").partition("\n\n")[2]
    )
    return factory


for _name in PROVIDERS:
    if _name != "openai":
        MODELS.register(_name, example=f"{_name}:NAME", bundle=("options", ChatOptions))(_shorthand(_name))


def _object(option: str, text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BadOption(f"{option}={text!r} is not allowed; allowed: a JSON object.")
    return value
