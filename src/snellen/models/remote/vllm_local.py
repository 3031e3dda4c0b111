"""vLLM without a server to set up: one is started on loopback, asked, and ended.

vLLM has its own versions of torch and CUDA libraries and its own processes, so it runs next to this process
rather than in it, and all that works with a vLLM server (likelihoods, constrained answers, many requests at
once) works here.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from snellen.errors import BadOption, ModelError
from snellen.models.base import MODELS, Model
from snellen.models.remote.openai import ChatOptions, chat_model
from snellen.models.remote.urls import storable_option

__all__ = ["vllm_local"]


#: Arguments of ``vllm serve`` that are not the user's here.
OWN = ("--api-key", "--host", "--port", "--served-model-name", "--hf-token")


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """The options of ``openai`` that are not of addresses, keys, prices and other servers' ways."""

    system: str | None = None
    temperature: float | None = 0.0
    max_tokens: int | None = None
    seed: int | None = None
    extra: str | None = None
    max_side: int | None = None
    max_bytes: int | None = None
    image_format: Literal["auto", "jpeg", "png"] = "auto"
    timeout: float = 120.0
    total_timeout: float = 600.0
    tries: int = 8
    max_consecutive_failures: int = 20


@MODELS.register(
    "vllm-local", example="vllm-local:ORG/NAME or vllm-local:FOLDER", bundle=("options", LocalOptions)
)
def vllm_local(
    checkpoint: str,
    *,
    options: LocalOptions,
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
    revision: str | None = None,
    max_model_len: int | None = None,
    gpus: int = 1,
    serve: str = "",
    program: str = "vllm",
    start_timeout: float = 1200.0,
) -> Model:
    """A model in vLLM on this machine: a server is started for it on loopback, and ended with this process.

    Options: ``dtype``, ``revision``; ``max_model_len``, the most tokens of a prompt with its answer;
    ``gpus``, over which the model is split; ``serve``, further arguments of ``vllm serve``, such as
    ``--gpu-memory-utilization 0.8``; ``program``, vLLM's command, for example in another environment;
    ``start_timeout`` in seconds. As for ``openai``: ``system``, ``temperature``, ``max_tokens``, ``seed``,
    ``extra``; of images ``max_side``, ``max_bytes`` and ``image_format``; ``timeout``, ``total_timeout``,
    ``tries``, ``max_consecutive_failures``.

    Raises:
        BadOption: an invalid option.
        ModelError: the folder is no checkpoint.
    """
    # Long for its options alone.
    from snellen.models.remote.local_server import VllmLocal

    for option, number in (("gpus", gpus), ("max_model_len", max_model_len)):
        if number is not None and number < 1:
            raise BadOption(f"{option}={number} is not allowed; allowed: 1 or more.")
    if not 0 < start_timeout < math.inf:
        raise BadOption(f"start_timeout={start_timeout:g} is not allowed; allowed: above 0 seconds.")
    storable_option("serve", serve)
    try:
        more = shlex.split(serve)
    except ValueError as error:
        raise BadOption(f"serve={serve!r} is not allowed: {error}.") from error
    for word in more:
        if word.partition("=")[0] in OWN:
            raise BadOption(f"serve={word.partition('=')[0]} … is not allowed: Snellen sets it itself.")
    folder = Path(checkpoint).expanduser()
    here = bool(checkpoint) and folder.is_dir()
    if here and not (folder / "config.json").is_file():
        raise ModelError(f"vllm-local:{checkpoint}: the folder has no config.json, so it is no checkpoint.")
    if not here and (not checkpoint or checkpoint.count("/") != 1 or checkpoint[0] in "./~"):
        raise ModelError(
            f"vllm-local:{checkpoint}: no such folder. Write vllm-local:FOLDER, or vllm-local:ORG/NAME for a "
            "model on the Hub."
        )
    arguments = ["--dtype", dtype, "--tensor-parallel-size", str(gpus)]
    arguments += ["--revision", revision] if revision else []
    arguments += ["--max-model-len", str(max_model_len)] if max_model_len else []
    kind = partial(
        VllmLocal,
        path=str(folder.resolve()) if here else checkpoint,
        arguments=[*arguments, *more],
        program=program,
        patience=start_timeout,
        known_as=f"vllm-local:{checkpoint}",
    )
    return chat_model(
        "vllm", folder.resolve().name if here else checkpoint, ChatOptions(**asdict(options)), kind=kind
    )
