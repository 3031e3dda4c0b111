"""Image captioning, optionally with a target length; scored against human captions.

Sources: the study of Pixtral 12B (github.com/aryankargwal/vlm-benchmarks) compares captions with
references by the cosine of their embeddings; see :mod:`snellen.metrics` for the other metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from snellen.errors import BadOption
from snellen.prompts import CAPTION, CAPTION_OF_WORDS, fill
from snellen.protocols.base import PROTOCOLS, Protocol, check_placeholders, free_text, positive
from snellen.protocols.free_text import FreeTextProtocol
from snellen.types import Examination, Prediction, Sample, ask

__all__ = ["Caption"]


@PROTOCOLS.register("caption")
@dataclass(frozen=True, kw_only=True)
class Caption(FreeTextProtocol, Protocol):
    """Describe the image; similarity to reference captions, BLEU, ROUGE-L, CIDEr, CLIPScore, length.

    Options: ``words``: the requested length; ``prompt`` (with ``{words}``, if ``words`` is set);
    ``max_tokens``;
    ``metrics``: ``similarity`` (of sentence embeddings by the model ``embedding``) and ``overlap`` (BLEU,
    ROUGE-L, CIDEr), separated by a comma; ``clip``: a dual encoder for CLIPScore; ``judge``: a model that
    grades the captions, by ``rubric``: ``grades`` (1 to 5) or ``correctness`` (0.0 to 1.0).
    """

    name: ClassVar[str] = "caption"
    prompt: str | None = None
    words: int | None = None
    max_tokens: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("max_tokens", self.max_tokens)
        if self.words is not None:
            positive("words", self.words)
        if self.prompt is not None:
            check_placeholders("prompt", self.prompt, *(["words"] if self.words is not None else []))
            if self.words is None and "{words}" in self.prompt:
                raise BadOption(f"prompt={self.prompt!r} contains {{words}}; set the number: words=40")

    def examine(self, sample: Sample) -> Examination:
        """One request. A data set's own question is not used: all captions answer the same prompt."""
        usual = CAPTION if self.words is None else CAPTION_OF_WORDS
        text = fill(self.prompt or usual, words=str(self.words))
        (reply,) = yield [ask(sample.images, text, max_tokens=self.max_tokens)]
        said, outcome, reason = free_text(reply)
        return Prediction(sample.id, said, outcome=outcome, reason=reason, questions=1)
