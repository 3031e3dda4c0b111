"""What a protocol is, and what several of them need."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from snellen._util.redaction import redact
from snellen.errors import BadOption, DataError
from snellen.parsing import ParseFailure, is_refusal, parse_label, parse_short, parse_yes_no, strip_thinking
from snellen.parsing.text import marked_text
from snellen.registry import Registry
from snellen.types import (
    Examination,
    Kind,
    Outcome,
    Prediction,
    Response,
    Sample,
    Score,
)

if TYPE_CHECKING:
    from snellen.models.base import Model
    from snellen.scorers.base import Scorer

__all__ = [
    "PROTOCOLS",
    "Normalise",
    "Protocol",
    "check_count",
    "check_placeholders",
    "failed",
    "free_text",
    "limit_candidates",
    "most_frequent",
    "per_length",
    "positive",
    "read_label",
    "read_short",
    "read_yes_no",
    "refusal",
    "shuffled",
    "unanswered",
]

#: Options that name a model, by an address perhaps.
MODELS_AMONG_OPTIONS = ("judge", "clip")
#: What a log-likelihood is divided by: nothing, the tokens, or the UTF-8 bytes of its text.
Normalise = Literal["sum", "tokens", "bytes"]


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """How a model is examined. A subclass is a frozen dataclass; its fields are its options.

    :meth:`examine` is a generator that never calls a model: it yields batches of requests, is sent their
    responses, and returns a prediction: a pure function of (options, sample, responses). Responses
    with the outcome ERROR are never sent to it; the engine makes such a sample's prediction itself.
    """

    name: ClassVar[str]
    #: What it asks of a model, unless its options say otherwise (see :attr:`needs`).
    kind: ClassVar[Kind] = Kind.GENERATE
    #: Whether it predicts one of the data set's classes; the others give scores of their own.
    classifies: ClassVar[bool] = True

    @property
    def multi_query(self) -> bool:
        """Whether it asks several things about an image, so that a model does well to share their prefix."""
        return True

    @property
    def requires(self) -> Kind:
        """What a model must be able to do for it."""
        return self.kind

    @property
    def without_image(self) -> bool:
        """Whether it also asks without an image."""
        return False

    @property
    def permutes_choices(self) -> bool:
        """Whether it asks the same with other letters, which no written answer can follow."""
        return False

    @abstractmethod
    def examine(self, sample: Sample) -> Examination:
        """Examine one sample."""

    @property
    def primary(self) -> str:
        """The score that runs are ranked by."""
        return "accuracy"

    def check(self, labels: Sequence[str], background: str | None) -> None:
        """Refuse a data set that this protocol cannot ask about.

        Raises:
            DataError: it cannot.
        """
        if self.classifies and not labels:
            raise DataError(
                f"The protocol {self.name!r} needs class names; this data set has none. Name their column: "
                "-D label=COLUMN; or name another protocol, and what it asks by (-D question=, -D choices=, "
                "-D reference=): snellen ls protocols"
            )

    def missing_fields(self, sample: Sample) -> str | None:
        """What a sample lacks to be asked about, in words; None where it lacks nothing. A data set is judged
        by its first sample.
        """
        return None

    def for_model(self, model: Model) -> Protocol:
        """The same protocol as a model is to be asked, where models speak in different forms.

        Raises:
            UsageError: it is not known how.
        """
        return self

    def batched(self, request_batch: int) -> Protocol:
        """The same protocol for a model that answers ``request_batch`` questions about an image for little
        more than one. It predicts the same, and counts the same questions.
        """
        return self

    def prepare(self) -> None:
        """Make ready what is needed besides the model, before anything is asked.

        Raises:
            UsageError: it is not there.
        """

    def truth(self, sample: Sample) -> str | None:
        """What the right answer is, as text; None where nobody knows."""
        return sample.label

    def sample_details(self, sample: Sample) -> dict[str, Any]:
        """What :meth:`summary` must know of a sample whatever was answered, and also if nothing was: stored
        among the details of its prediction.
        """
        return {}

    def score_sample(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        """How good a prediction is, by name, each the higher the better; of a sample without one too, which
        scores 0. Classes are judged elsewhere (see :mod:`snellen.metrics.classification`).
        """
        return {}

    def scorers(self) -> Sequence[Scorer]:
        """What else is to score the predictions, once all are there (see :mod:`snellen.scorers.base`)."""
        return ()

    def options(self) -> dict[str, Any]:
        """All options with their values, for manifests and keys. What looks like a secret is taken out: a
        judge may be named by an address.
        """
        return {key: redact(v) if key in MODELS_AMONG_OPTIONS and v else v for key, v in asdict(self).items()}

    def summary(self, details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Figures of this protocol's own, from the details of its predictions."""
        return {}


def shuffled(names: Sequence[str], seed: int, sample: Sample, turn: int = 0) -> list[str]:
    """The names in an order that depends on (seed, sample id, turn) alone."""
    order = list(names)
    random.Random(f"snellen/order/{seed}/{sample.id}/{turn}").shuffle(order)
    return order


def limit_candidates(sample: Sample, candidates: int | None, seed: int) -> Sample:
    """The sample with so many of its labels on offer: the true one and others at random, in their own order.
    The others of a smaller offer are among those of a larger one, so that a curve over offers is not noise.
    All of them where there are no more, or where the true one is not known.

    Source: Zhang et al., arXiv 2405.18415, "label set size".
    """
    if candidates is None or candidates >= len(sample.labels) or sample.label is None:
        return sample
    others = [name for name in sample.labels if name != sample.label]
    random.Random(f"snellen/offer/{seed}/{sample.id}").shuffle(others)
    kept = {sample.label, *others[: candidates - 1]}
    return replace(sample, labels=tuple(name for name in sample.labels if name in kept))


def refusal(reply: Response) -> ParseFailure | None:
    """Why there is nothing to read in a reply that its server says is a refusal."""
    if reply.outcome is not Outcome.REFUSED:
        return None
    return ParseFailure(reply.reason or "refusal", Outcome.REFUSED)


def unanswered(reply: Response) -> ParseFailure | None:
    """Of a chain of thought: whether it was cut off before it marked an answer, so that all it says was said
    on the way.
    """
    if reply.outcome is not Outcome.TRUNCATED or marked_text(strip_thinking(reply.text)):
        return None
    return ParseFailure("cut off on the way to an answer", Outcome.TRUNCATED)


def read_label(reply: Response, sample: Sample) -> str | ParseFailure:
    """The label that a reply names (see :func:`snellen.parsing.parse_label`)."""
    if (refused := refusal(reply)) is not None:
        return refused
    cut = reply.outcome is Outcome.TRUNCATED
    return parse_label(reply.text, sample.labels, sample.synonyms, truncated=cut)


def read_yes_no(reply: Response) -> bool | ParseFailure:
    """What a reply says (see :func:`snellen.parsing.parse_yes_no`)."""
    if (refused := refusal(reply)) is not None:
        return refused
    return parse_yes_no(reply.text, truncated=reply.outcome is Outcome.TRUNCATED)


def read_short(reply: Response) -> str | ParseFailure:
    """The short answer that a reply gives (see :func:`snellen.parsing.parse_short`)."""
    if (refused := refusal(reply)) is not None:
        return refused
    return parse_short(reply.text, truncated=reply.outcome is Outcome.TRUNCATED)


def free_text(reply: Response) -> tuple[str, Outcome, str]:
    """Free text with how it ended and why: what was cut off is kept as it is, and said to be cut off."""
    text = strip_thinking(reply.text).strip()
    # What a text says of others ("it cannot be seen") declines nothing.
    if reply.outcome is Outcome.REFUSED or is_refusal(re.split(r"[.!?\n]", text, maxsplit=1)[0]):
        return "", Outcome.REFUSED, reply.reason or "refusal"
    if reply.outcome is Outcome.TRUNCATED:
        return text, Outcome.TRUNCATED, reply.reason
    return (text, Outcome.OK, "") if text else ("", Outcome.UNPARSED, "empty answer")


def per_length(score: Score, text: str, how: Normalise) -> float:
    """A log-likelihood divided by the text's length, or as it is; a similarity or logit has no length."""
    if how == "sum" or not score.tokens:
        return score.value
    return score.value / (score.tokens if how == "tokens" else max(1, len(text.encode())))


def failed(sample: Sample, failure: ParseFailure, questions: int, **details: Any) -> Prediction:
    """The prediction of an examination that ended in a parse failure: none."""
    return Prediction(
        sample.id, "", outcome=failure.outcome, reason=failure.reason, questions=questions, details=details
    )


def check_placeholders(option: str, prompt: str, *names: str) -> None:
    """Refuse an empty prompt, and one that lacks one of these slots.

    Raises:
        BadOption: as said.
    """
    if not prompt.strip():
        raise BadOption(f"{option}={prompt!r} is not allowed: an empty prompt asks nothing.")
    for name in names:
        if "{" + name + "}" not in prompt:
            raise BadOption(f"{option}={prompt!r} is not allowed: it must hold {{{name}}}.")


def check_count(option: str, value: int | None) -> None:
    """Refuse a number of labels that leaves nothing to choose from.

    Raises:
        BadOption: as said.
    """
    if value is not None and value < 2:
        raise BadOption(f"{option}={value} is not allowed; allowed: 2 or more.")


def positive(option: str, value: int) -> None:
    """Refuse a number below 1.

    Raises:
        BadOption: as said.
    """
    if value < 1:
        raise BadOption(f"{option}={value} is not allowed; allowed: 1 or more.")


def most_frequent(failures: Sequence[ParseFailure]) -> ParseFailure:
    """The failure that stands for several: the first of the most frequent outcome."""
    counts: dict[Outcome, int] = {}
    for failure in failures:
        counts[failure.outcome] = counts.get(failure.outcome, 0) + 1
    top = max(counts.values())
    return next(f for f in failures if counts[f.outcome] == top)


PROTOCOLS: Registry[Protocol] = Registry("protocol", "snellen.protocols", takes_rest=False)
