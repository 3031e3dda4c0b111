"""CLIPScore: how well a caption matches its picture, without references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snellen._util.redaction import redact
from snellen.errors import BadOption
from snellen.models.base import MODELS, Model
from snellen.scorers.base import AskModel, SamplePrediction, Scorer
from snellen.types import Kind, Message, Outcome, Request

__all__ = ["ClipScore"]

#: Pictures per batch.
TOGETHER = 64


@dataclass
class ClipScore(Scorer):
    """Compute 2.5 · max(cosine of picture and caption, 0) by a dual encoder (``clip:…``).

    Source: Hessel et al., "CLIPScore" (arXiv 2104.08718), with ViT-B/32 and "A photo depicts" before the
    caption. Other encoders have other scales.

    Args:
        name: the dual encoder, as for ``--model``.

    Raises:
        BadOption: the model is not a dual encoder.
    """

    name: str
    _model: Model | None = field(default=None, repr=False)

    @property
    def model(self) -> Model:
        """The dual encoder."""
        if self._model is None:
            from snellen.models.dual_encoder import DualEncoder

            made = MODELS.make(self.name)
            if not isinstance(made, DualEncoder):
                raise BadOption(
                    f"clip={self.name!r} is not allowed; allowed: a dual encoder, such as "
                    "clip:openai/clip-vit-base-patch32"
                )
            made.templates, made.name = ("A photo depicts {}",), redact(self.name)
            self._model = made
        return self._model

    def check(self) -> None:
        self.model.check()

    def models(self) -> list[Model]:
        return [self.model]

    async def score(self, predictions: Sequence[SamplePrediction], ask: AskModel) -> list[dict[str, float]]:
        scores: list[dict[str, float]] = [{"clipscore": 0.0} for _ in predictions]
        reason = ""
        answered = [i for i, prediction in enumerate(predictions) if prediction.answer]
        for start in range(0, len(answered), TOGETHER):
            places = answered[start : start + TOGETHER]
            requests = []
            for i in places:
                sample = predictions[i].look()
                message = Message("user", (*sample.images, ""))
                requests.append(
                    Request((message,), Kind.SCORE, continuations=(predictions[i].answer,), sample=sample)
                )
            for i, reply in zip(places, await ask(self.model, requests), strict=True):
                if reply.outcome is Outcome.ERROR:
                    scores[i], reason = {}, reply.reason
                else:
                    scores[i] = {"clipscore": 2.5 * max(reply.scores[0].value, 0.0)}
        if answered and not any(scores[i] for i in answered):
            raise BadOption(
                f"clip={redact(self.name)!r}: no caption could be compared with its image ({reason})."
            )
        return scores

    def overall(
        self, predictions: Sequence[SamplePrediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, Any]:
        """Count the captions that could not be compared."""
        missing = sum(not score for score in scores)
        return {"without_clipscore": missing} if missing else {}
