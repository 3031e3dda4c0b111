"""Scores that come after an examination: of texts by embedding and overlap, of captions by CLIP, by a judge.

A protocol names its scorers. They see all predictions at once (the frequencies of words that CIDEr weighs
by are those of the whole data set), and what they ask of models of their own is remembered as what was
examined is: scoring again costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snellen.types import Outcome, Request, Response, Sample

if TYPE_CHECKING:
    from snellen.models.base import Model

__all__ = ["AskModel", "SamplePrediction", "Scorer"]

#: Has a model of the scorer's own answer, by memory where it can.
AskModel = Callable[["Model", Sequence[Request]], Awaitable[Sequence[Response]]]


@dataclass(frozen=True, slots=True)
class SamplePrediction:
    """A sample, without its images, with what was predicted. ``look`` makes it anew, images and all, so that
    they are held by nobody but who looks.
    """

    sample: Sample
    answer: str  #: empty where there is none
    outcome: Outcome
    details: Mapping[str, Any]
    look: Callable[[], Sample]


class Scorer(ABC):
    """Scores predictions once all are there."""

    def check(self) -> None:
        """Refuse what can be known to fail, before a run is begun.

        Raises:
            UsageError, MissingExtra, ModelError: what it needs is not there, or cannot be used for it.
        """

    def models(self) -> Sequence[Model]:
        """Models of its own that it asks."""
        return ()

    def identity(self) -> Mapping[str, Any]:
        """Everything of it that can change a score and is no option of its protocol, as JSON: who it asks."""
        return {model.name: dict(model.identity()) for model in self.models()}

    def prepare(self) -> None:
        """Load what it needs, once all predictions are there."""
        for model in self.models():
            model.load()

    def close(self) -> None:
        """Give back what :meth:`prepare` took."""
        for model in self.models():
            model.close()

    def prefetch(self, sample: Sample, answer: str) -> tuple[Model, Sequence[Request]] | None:
        """A model that it would ask about such an answer, and what; None where it asks none that costs."""
        return None

    @abstractmethod
    async def score(
        self, predictions: Sequence[SamplePrediction], ask: AskModel
    ) -> Sequence[Mapping[str, float]]:
        """Scores by name for each prediction, the higher the better. A sample without an answer scores the
        least; what could not be scored (a judge who gave no mark) has no score. A name that begins with an
        underscore is for :meth:`overall` alone.
        """

    def overall(
        self, predictions: Sequence[SamplePrediction], scores: Sequence[Mapping[str, float]]
    ) -> Mapping[str, Any]:
        """Figures of the whole that are no mean of the samples'."""
        return {}
