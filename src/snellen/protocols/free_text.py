"""Shared by protocols that compare answers with reference texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from snellen.errors import BadOption
from snellen.scorers.base import Scorer
from snellen.scorers.clipscore import ClipScore
from snellen.scorers.judge import Judge, Rubric
from snellen.scorers.overlap import Overlap
from snellen.scorers.similarity import MINILM, Similarity
from snellen.types import Prediction, Sample

__all__ = ["FreeTextProtocol"]

KNOWN = ("similarity", "overlap")


@dataclass(frozen=True, kw_only=True)
class FreeTextProtocol:
    """Options and scorers for texts with reference texts."""

    classifies: ClassVar[bool] = False
    takes_repeats: ClassVar[bool] = False
    metrics: tuple[str, ...] = ("similarity",)
    embedding: str = MINILM
    clip: str | None = None
    judge: str | None = None
    rubric: Rubric = "grades"

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in KNOWN:
                raise BadOption(f"metrics={name!r} is not allowed; allowed: {', '.join(KNOWN)}.")
        if not self.scorers():
            raise BadOption("metrics= is empty and neither clip nor judge is set: there would be no score.")

    @property
    def multi_query(self) -> bool:
        """One question per image."""
        return False

    @property
    def primary(self) -> str:
        """The first available: similarity, CIDEr, CLIPScore, the judge's grade."""
        if "similarity" in self.metrics:
            return "similarity"
        return "cider" if "overlap" in self.metrics else "clipscore" if self.clip else "judge"

    def truth(self, sample: Sample) -> str | None:
        """The references, one per line."""
        return "\n".join(sample.references) or None

    def score_sample(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        """Count words; all other scores need the whole set of answers (see :meth:`scorers`)."""
        return {"words": float(len(prediction.label.split()))} if prediction.label else {}

    def scorers(self) -> Sequence[Scorer]:
        """The scorers selected by the options."""
        scorers: list[Scorer] = []
        if "similarity" in self.metrics:
            scorers.append(Similarity(self.embedding))
        if "overlap" in self.metrics:
            scorers.append(Overlap())
        if self.clip:
            scorers.append(ClipScore(self.clip))
        if self.judge:
            scorers.append(Judge(self.judge, self.rubric))
        return scorers
