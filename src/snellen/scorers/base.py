"""Scores computed after the evaluation: by embedding and overlap of texts, by CLIP, by a judge.

A protocol names its scorers. They see all predictions at once (CIDEr needs the word frequencies of the
whole data set), and requests to their own models are cached like all others, so that scoring again is
free.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from snellen._util.redaction import redact
from snellen.errors import BadOption
from snellen.types import Kind, Outcome, Request, Response, Sample

if TYPE_CHECKING:
    from snellen.models.base import Model

__all__ = ["ERROR_COUNTS", "AskModel", "SamplePrediction", "Scorer", "TextModelScorer"]

#: The figures that count the samples about which a scorer's model ended in an error, to be asked again.
ERROR_COUNTS = ("judge_errors", "extractor_errors")

#: Gets answers from a scorer's model, from the cache if possible.
AskModel = Callable[["Model", Sequence[Request]], Awaitable[Sequence[Response]]]


@dataclass(frozen=True, slots=True)
class SamplePrediction:
    """A sample without its images, and its prediction. ``look`` rebuilds it with images, so that only the
    caller holds them.
    """

    sample: Sample
    answer: str  #: empty if there is none
    outcome: Outcome
    details: Mapping[str, Any]
    look: Callable[[], Sample]
    replies: Callable[[], Sequence[Response]] = tuple  #: the model's answers, in the order of the requests


class Scorer(ABC):
    """Scores predictions once all are complete."""

    def check(self) -> None:
        """Refuse what is known to fail before a run starts.

        Raises:
            UsageError, MissingExtra, ModelError: a requirement is missing or unsuitable.
        """

    def models(self) -> Sequence[Model]:
        """The models that it calls."""
        return ()

    def identity(self) -> Mapping[str, Any]:
        """Everything that can change a score and is not an option of its protocol, as JSON: the models it
        calls.
        """
        return {model.name: dict(model.identity()) for model in self.models()}

    def prepare(self) -> None:
        """Load its requirements, once all predictions are complete."""
        for model in self.models():
            model.load()

    def close(self) -> None:
        """Release what :meth:`prepare` loaded."""
        for model in self.models():
            model.close()

    def prefetch(self, sample: Sample, answer: str) -> tuple[Model, Sequence[Request]] | None:
        """Return the model that it would call about such an answer, and the requests; None if it calls
        none that costs.
        """
        return None

    @abstractmethod
    async def score(
        self, predictions: Sequence[SamplePrediction], ask: AskModel
    ) -> Sequence[Mapping[str, float]]:
        """Return scores by name for each prediction; higher is better. A sample without an answer gets the
        lowest score; one that could not be scored (a judge gave no grade) gets none. A name that starts
        with an underscore is only for :meth:`overall`.
        """

    def details(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what to store with the details of predictions, by sample, after :meth:`score`."""
        return {}

    def overall(
        self, predictions: Sequence[SamplePrediction], scores: Sequence[Mapping[str, float]]
    ) -> Mapping[str, Any]:
        """Return corpus-level figures that are not means over samples."""
        return {}


class TextModelScorer(Scorer):
    """Asks a model that an option of a protocol names, and that answers without an image."""

    option: ClassVar[str]
    name: str

    @cached_property
    def model(self) -> Model:
        """The model.

        Raises:
            BadOption: it does not generate text, or needs an image.
        """
        from snellen.models.base import MODELS

        made = MODELS.make(self.name)
        if Kind.GENERATE not in made.kinds or not made.text_only:
            raise BadOption(
                f"{self.option}={self.name!r} is not allowed; allowed: a model that generates text without "
                "an image, such as openai:gpt-4o"
            )
        made.name = redact(self.name)
        return made

    def check(self) -> None:
        self.model.check()

    def models(self) -> Sequence[Model]:
        return [self.model]
