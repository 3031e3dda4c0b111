"""Models that speak the OpenAI chat protocol, and shorthands for common providers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from snellen.errors import BadOption
from snellen.models.base import MODELS, Model
from snellen.models.remote.providers import ANYWHERE, PROVIDERS, Provider
from snellen.models.remote.urls import ApiKey, chat_address, storable_option

if TYPE_CHECKING:
    from snellen.models.remote.chat import ChatModel

__all__ = ["ChatOptions", "chat_model", "openai"]

#: Headers of who pays at OpenAI, and the variables with their values.
ACCOUNT = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """The options of a chat model: see :func:`openai`."""

    base_url: str | None = None
    api_key_env: str | None = None
    api_version: str | None = None
    header: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    temperature: float | None = 0.0
    max_tokens: int | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    extra: str | None = None
    detail: Literal["low", "high", "auto"] | None = None
    max_side: int | None = None
    max_bytes: int | None = None
    image_format: Literal["auto", "jpeg", "png"] = "auto"
    scores: Literal["auto", "none", "top", "prompt"] = "auto"
    guided: Literal["auto", "none", "choice", "schema"] = "auto"
    max_tokens_as: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    timeout: float = 120.0
    total_timeout: float = 600.0
    tries: int = 8
    max_consecutive_failures: int = 20
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    price_cached: float | None = None
    batch: bool = False


@MODELS.register("openai", example="openai:NAME", bundle=("options", ChatOptions))
def openai(model: str, *, options: ChatOptions) -> Model:
    """A chat model behind an OpenAI-compatible endpoint: hosted, or your own server.

    The key comes from the environment: ``OPENAI_API_KEY``, or the variable named in ``api_key_env``.

    Options: ``base_url``, the server's URL (default: ``$OPENAI_BASE_URL`` or OpenAI's own),
    ``api_key_env``, ``api_version`` (Azure's deployments), and ``header.NAME=VARIABLE``, a header with the
    value of an environment variable. These can change answers: ``system``, a system prompt;
    ``temperature`` (default: 0; ``none`` omits it, which is done unasked for models that are known to refuse
    0); ``max_tokens`` instead of the protocol's (default: 4096 for models that are known to think); ``seed``;
    ``reasoning_effort``; ``extra``, a JSON object added to each request; of images ``detail``,
    ``max_side`` (pixels), ``max_bytes`` (in base64) and ``image_format`` (defaults: what the provider
    documents, see ``snellen ls providers``); ``max_tokens_as``, the server's name for ``max_tokens``;
    ``scores``, the likelihoods that it provides: ``top`` (the top next tokens: yes and no, letters),
    ``prompt`` (vLLM's prompt_logprobs: rank) or ``none``; ``guided``, how it makes an answer one of several
    (``closed-set?constrained=true``): ``choice`` (vLLM's structured_outputs), ``schema`` (JSON) or ``none``.

    These cannot: ``timeout`` of one attempt and ``total_timeout`` of a request with all its ``tries``
    (seconds); ``max_consecutive_failures`` before the run stops; ``requests_per_minute``,
    ``tokens_per_minute``; ``price_in``, ``price_out`` and ``price_cached`` (of the prompt's tokens that
    the server has cached; default: as ``price_in``) in US dollars per million tokens; ``batch``, to send
    requests by the provider's batches, at half the price and within a day (``openai:``, ``anthropic:``,
    ``groq:``, ``mistral:``).

    Raises:
        BadOption: an invalid URL or option.
        ModelError: the key is missing.
    """
    return chat_model("openai", model, options)


def chat_model(
    scheme: str, model: str, options: ChatOptions, kind: Callable[..., ChatModel] | None = None
) -> Model:
    """Return a chat model of a provider.

    Args:
        kind: makes it; by default :class:`~snellen.models.remote.chat.ChatModel`, or one that uses batches.

    Raises:
        BadOption, ModelError: as for :func:`openai`.
    """
    # Long for its options alone.
    from snellen.models.remote.chat import ChatModel, Settings
    from snellen.models.remote.prices import Prices
    from snellen.models.remote.reasoning import MAX_TOKENS, fixed_temperature, thinks
    from snellen.models.remote.retry import RetryPolicy
    from snellen.models.remote.transport import ChatTransport

    provider = PROVIDERS[scheme]
    if not model:
        raise BadOption(f"{scheme}: needs a model; write {scheme}:NAME, with the server's name for it.")
    base_url = options.base_url
    if scheme == "openai" and base_url is None:
        base_url = os.environ.get("OPENAI_BASE_URL") or None
    if not (base_url or provider.address):
        raise BadOption(f"{scheme}: needs an address: {provider.note}")
    address = chat_address("base_url", base_url or provider.address)
    own = address == provider.address
    taken = provider if own or scheme != "openai" else ANYWHERE
    # Each user of Azure has another address, and each vLLM server.
    known = own or scheme in ("azure", "vllm")
    key_name = options.api_key_env or provider.key
    needed = options.api_key_env is not None or (known and provider.needs_key)
    key = ApiKey(key_name, needed=needed)
    settings = {f.name: getattr(options, f.name) for f in fields(Settings) if f.name != "formats"}
    settings["extra"] = _object("extra", storable_option("extra", options.extra))
    storable_option("system", options.system)
    if settings["scores"] == "auto":
        settings["scores"] = provider.scores if known else "none"
    if settings["guided"] == "auto":
        settings["guided"] = provider.guided if known else "none"
    if settings["max_tokens_as"] == "auto":
        newer = address == PROVIDERS["openai"].address  # whose reasoning models reject the older name
        settings["max_tokens_as"] = "max_completion_tokens" if newer else "max_tokens"
    if settings["temperature"] == 0 and fixed_temperature(model):
        settings["temperature"] = None
    if settings["max_tokens"] is None and thinks(model):
        settings["max_tokens"] = MAX_TOKENS
    for name in ("max_tokens", "max_side", "max_bytes"):
        if settings[name] is not None and settings[name] < 1:
            raise BadOption(f"{name}={settings[name]} is not allowed; allowed: 1 or more.")
    settings["max_side"] = min(filter(None, [settings["max_side"], taken.max_side]), default=None)
    settings["max_bytes"] = options.max_bytes or taken.max_bytes
    one = options.image_format.upper()
    settings["formats"] = taken.formats if one == "AUTO" else (one,)
    headers = {name: ApiKey(variable, needed=True) for name, variable in options.header.items()}
    host = f".{urlsplit(address).hostname}"
    if scheme == "openai" and (own or host.endswith(".api.openai.com")):  # as OpenAI's own client sends them
        for name, variable in ACCOUNT.items():
            if os.environ.get(variable):
                headers.setdefault(name, ApiKey(variable, needed=False))
    transport = ChatTransport(address, key, headers, options.api_version)
    prices = Prices.find(f"{scheme}:{model}", options.price_in, options.price_out, options.price_cached)
    if options.batch:
        kind = _batch_model(scheme, provider)
        prices = None if prices is None else prices.halved()
    return (kind or ChatModel)(
        name=f"{scheme}:{model}",
        model=model,
        transport=transport,
        settings=Settings(**settings),
        retry_policy=RetryPolicy(**{f.name: getattr(options, f.name) for f in fields(RetryPolicy)}),
        prices=prices,
        max_images=taken.max_images,
    )


def _batch_model(scheme: str, provider: Provider) -> Callable[..., ChatModel]:
    """Return the constructor of a provider's model that is asked by batches."""
    from snellen.models.remote.batch.model import BatchModel

    if not provider.batches:
        known = ", ".join(f"{name}:" for name, each in PROVIDERS.items() if each.batches)
        raise BadOption(f"batch=true is not possible with {scheme}:; possible: {known}.")
    return partial(BatchModel, batches=provider.batches)


def _shorthand(scheme: str) -> Callable[..., Model]:
    def factory(model: str, *, options: ChatOptions) -> Model:
        return chat_model(scheme, model, options)

    provider = PROVIDERS[scheme]
    factory.__doc__ = (
        f"A chat model at {provider.address or 'your address'} (key: ``{provider.key}``"
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
