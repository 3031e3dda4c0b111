"""A classification head on the features of a vision-language model, as written by ``snellen tune --recipe
head``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.errors import ModelError
from snellen.models.base import MODELS, LocalModel
from snellen.models.classifier import match
from snellen.registry import parse_name
from snellen.types import Kind, Request, Response, Score, ask

if TYPE_CHECKING:
    import torch

    from snellen.models.huggingface.vlm import VisionLanguageModel

__all__ = ["CONFIG", "WEIGHTS", "Head", "head"]

#: The files of a head.
CONFIG, WEIGHTS = "head.json", "head.safetensors"
#: Options of the base model that a folder may set.
KEPT = ("revision", "dtype", "attn", "quantization")


@MODELS.register("head", example="head:FOLDER")
def head(folder: str, *, device: str = "auto", trust_remote_code: bool = False) -> Head:
    """A classification head fitted on a model's features: ranks the classes that it was trained on.

    Options: ``device`` of the base model; ``trust_remote_code=true`` runs code that comes with it; the
    folder alone can never enable it.

    Raises:
        ModelError: no such folder, or the base model is missing.
    """
    from snellen.models.huggingface.vlm import VisionLanguageModel

    path = Path(folder).expanduser()
    try:
        facts = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        weights = (path / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder or '(nothing)'}: no head found ({error}). Create one with: snellen tune MODEL "
            "--recipe head --data DATA -o FOLDER"
        ) from error
    scheme, rest, own = parse_name(str(facts["base"]))
    if scheme not in ("hf", "pico"):
        raise ModelError(f"{folder}: a head needs an hf: or pico: model, not {facts['base']!r}.")
    kept = {key: value for key, value in {**own, **facts["options"]}.items() if key in KEPT}
    more = {"trust_remote_code": True} if trust_remote_code else {}
    base = MODELS.make(f"{scheme}:{rest}", {**kept, **more, "device": device})
    if not isinstance(base, VisionLanguageModel):
        raise ModelError(f"{folder}: {facts['base']} has no hidden states for a head.")
    if base.checkpoint.revision != facts["revision"]:
        raise ModelError(
            f"{folder}: this head was fitted on different weights ({facts['revision'][:19]}…) than "
            f"{facts['base']} has now ({base.checkpoint.revision[:19]}…). Fit it again: snellen tune "
            f"{facts['base']} --recipe head"
        )
    return Head(base, facts, weights)


class Head(LocalModel):
    """See :func:`head`. A class's score is its log-probability; an unknown class has -inf."""

    kinds = frozenset({Kind.SCORE})
    text_only = False

    def __init__(self, base: VisionLanguageModel, facts: Mapping[str, Any], weights: bytes) -> None:
        self.base, self._facts, self._bytes = base, facts, weights
        self._arrays: Any = None

    def identity(self) -> Mapping[str, Any]:
        digest = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode() + self._bytes)
        return {"kind": "head", "base": dict(self.base.identity()), "head": digest.hexdigest()}

    def load(self) -> None:
        if self._arrays is None:
            from safetensors.numpy import load

            self.base.load()
            self._arrays = load(self._bytes)

    def metadata(self) -> Mapping[str, Any]:
        return self.base.metadata()

    def close(self) -> None:
        self._arrays = None
        self.base.close()

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        from snellen.models.huggingface.features import batched

        self.load()
        asked = [ask(request.images[-1:], self._facts["prompt"]) for request in requests]
        return list(map(self._rank, requests, batched(self.base, asked)))

    def _rank(self, request: Request, states: Mapping[str, torch.Tensor]) -> Response:
        import numpy as np

        name = next(key for key in states if key.endswith(self._facts["place"]))
        held = self._arrays
        seen = (states[name].numpy() - held["mean"]) / held["scale"]
        logits = (held["weight"] @ seen + held["bias"]).astype(float)
        logits -= np.logaddexp.reduce(logits)
        own = dict(enumerate(self._facts["labels"]))
        ids = match(request.continuations, own, {})
        values = [float(np.logaddexp.reduce(logits[i])) if i else -math.inf for i in ids]
        return Response(scores=tuple(map(Score, values)))
