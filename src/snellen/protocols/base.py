"""The interface of protocols, and what several of them share."""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from snellen._util.redaction import redact
from snellen.errors import BadOption, DataError
from snellen.parsing import ParsedAnswer, ParseFailure, is_refusal, labels, short, strip_thinking, yes_no
from snellen.parsing.text import marked_text
from snellen.protocols.common import CommonOptions, with_common
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
    "ROOM",
    "Normalise",
    "Protocol",
    "check_count",
    "check_placeholders",
    "check_protocol",
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

#: Options that name a model, possibly by a URL.
MODELS_AMONG_OPTIONS = ("judge", "clip", "extractor")
#: The most tokens of an answer where the authors of a benchmark set no limit: enough for one with an
#: explanation, since an answer must not be cut off by the one who asks.
ROOM = 256
#: Divisors of a log-likelihood: none, the number of tokens, or of UTF-8 bytes of its text.
Normalise = Literal["sum", "tokens", "bytes"]


@dataclass(frozen=True, kw_only=True)
class Protocol(CommonOptions):
    """How a model is evaluated. A subclass is a frozen dataclass whose fields are its options.

    :meth:`examine` is a generator that never calls a model: it yields batches of requests, is sent their
    responses, and returns a prediction: a pure function of (options, sample, responses). Responses with
    the outcome ERROR are never sent to it; the engine makes such a sample's prediction itself.
    """

    name: ClassVar[str]
    #: The kind of request it sends, unless its options change it (see :attr:`needs`).
    kind: ClassVar[Kind] = Kind.GENERATE
    #: Whether it predicts one of the data set's classes; other protocols define their own scores.
    classifies: ClassVar[bool] = True

    @property
    def multi_query(self) -> bool:
        """Whether it asks several questions about an image, so that sharing their prefix pays off."""
        return True

    @property
    def requires(self) -> Kind:
        """The capability that a model needs for it."""
        return self.kind

    #: What to do if its prompt does not fit a model's context.
    if_too_long: ClassVar[str] = "Use a model with a longer context, or shorten the prompt: -P prompt="

    @property
    def without_image(self) -> bool:
        """Whether it also sends requests without an image."""
        return False

    @property
    def permutes_choices(self) -> bool:
        """Permutes option letters, so recorded answers (``replay:``) cannot be used."""
        return False

    @abstractmethod
    def examine(self, sample: Sample) -> Examination:
        """Evaluate one sample."""

    @property
    def primary(self) -> str:
        """The score that runs are ranked by."""
        return "accuracy"

    def check(self, labels: Sequence[str], background: str | None) -> None:
        """Refuse a data set that does not fit this protocol.

        Raises:
            DataError: it does not fit.
        """
        if self.classifies and not labels:
            raise DataError(
                f"The protocol {self.name!r} needs class names, but this data set has none. Set their "
                "column: "
                "-D label=COLUMN. Or use another protocol with its columns (-D question=, -D choices=, "
                "-D reference=). List protocols with: snellen ls protocols"
            )

    def missing_fields(self, sample: Sample) -> str | None:
        """Return what a sample lacks for this protocol, in words; None if nothing. A data set is judged by
        its first sample.
        """
        return None

    def for_model(self, model: Model) -> Protocol:
        """Return the protocol in the form that a model needs, if models differ.

        Raises:
            UsageError: the form is unknown.
        """
        return self

    def batched(self, request_batch: int) -> Protocol:
        """Return the protocol for a model that answers ``request_batch`` questions about an image for little
        more than one. It predicts the same, and counts the same questions.
        """
        return self

    def prepare(self) -> None:
        """Load everything needed in addition to the model, before the evaluation starts.

        Raises:
            UsageError: something is missing.
        """

    def truth(self, sample: Sample) -> str | None:
        """Return the reference answer as text; None if unknown."""
        return sample.label

    def sample_details(self, sample: Sample) -> dict[str, Any]:
        """Return what :meth:`summary` needs from a sample, even if it has no answer; stored with the details
        of its prediction.
        """
        return {}

    def right_answer(self, sample: Sample) -> str | None:
        """Return the right answer in the form that a model should give it, for examples; None if unknown."""
        if self.classifies:
            return sample.label
        return next((text.strip() for text in sample.references if text.strip()), None)

    def score_sample(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        """Score a prediction, by name; higher is better. A sample without a prediction scores 0. Classes are
        scored elsewhere (see :mod:`snellen.metrics.classification`).
        """
        return {}

    def scorers(self) -> Sequence[Scorer]:
        """Return scorers to run on all predictions at the end (see :mod:`snellen.scorers.base`)."""
        return ()

    def options(self) -> dict[str, Any]:
        """Return all options with their values, for manifests and cache keys. Secrets are redacted, since a
        judge may be named by a URL.
        """
        options = asdict(self)
        for option in fields(CommonOptions):  # unless set, they are no part of a run's identity
            if options[option.name] == option.default:
                del options[option.name]
        return {key: redact(v) if key in MODELS_AMONG_OPTIONS and v else v for key, v in options.items()}

    def summary(self, details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Compute metrics specific to this protocol from the details of its predictions."""
        return {}


def check_protocol(protocol: Protocol, labels: Sequence[str], background: str | None) -> None:
    """Refuse invalid values of the options that every protocol has, those that a protocol cannot use, and a
    data set that does not fit it.

    Raises:
        BadOption, DataError: as stated.
    """
    protocol.check_common()
    protocol.check(labels, background)


def shuffled(names: Sequence[str], seed: int, sample: Sample, turn: int = 0) -> list[str]:
    """Shuffle the names in an order that depends only on (seed, sample id, turn)."""
    order = list(names)
    random.Random(f"snellen/order/{seed}/{sample.id}/{turn}").shuffle(order)
    return order


def limit_candidates(sample: Sample, candidates: int | None, seed: int) -> Sample:
    """Limit a sample to this many labels: the true one and random others, in their original order. Smaller
    sets are subsets of larger ones, so that a curve over sizes is not dominated by noise. All labels are
    kept if there are no more, or if the true one is unknown.

    Source: Zhang et al., arXiv 2405.18415, "label set size".
    """
    if candidates is None or candidates >= len(sample.labels) or sample.label is None:
        return sample
    others = [name for name in sample.labels if name not in (sample.label, *sample.also)]
    random.Random(f"snellen/offer/{seed}/{sample.id}").shuffle(others)
    kept = {sample.label, *others[: candidates - 1]}
    return replace(sample, labels=tuple(name for name in sample.labels if name in kept))


def refusal(reply: Response) -> ParseFailure | None:
    """Return a failure for a reply that its server marks as a refusal."""
    if reply.outcome is not Outcome.REFUSED:
        return None
    return ParseFailure(reply.reason or "refusal", Outcome.REFUSED)


def unanswered(reply: Response) -> ParseFailure | None:
    """Return a failure if a chain of thought was cut off before it marked an answer, since it contains
    only reasoning.
    """
    if reply.outcome is not Outcome.TRUNCATED or marked_text(strip_thinking(reply.text)):
        return None
    return ParseFailure("cut off before an answer", Outcome.TRUNCATED)


def read_label(reply: Response, sample: Sample) -> ParsedAnswer[str]:
    """Parse the label that a reply names (see :func:`snellen.parsing.parse_label`)."""
    if (refused := refusal(reply)) is not None:
        return ParsedAnswer(refused)
    cut = reply.outcome is Outcome.TRUNCATED
    return labels.read_label(reply.text, sample.labels, sample.synonyms, truncated=cut)


def read_yes_no(reply: Response, question: str | None = None) -> ParsedAnswer[bool]:
    """Parse yes or no from a reply to a question (see :func:`snellen.parsing.parse_yes_no`)."""
    if (refused := refusal(reply)) is not None:
        return ParsedAnswer(refused)
    return yes_no.read_yes_no(reply.text, truncated=reply.outcome is Outcome.TRUNCATED, question=question)


def read_short(reply: Response, *, verbatim: bool = False, numeric: bool = False) -> ParsedAnswer[str]:
    """Parse the short answer in a reply (see :func:`snellen.parsing.parse_short`)."""
    if (refused := refusal(reply)) is not None:
        return ParsedAnswer(refused)
    cut = reply.outcome is Outcome.TRUNCATED
    return short.read_short(reply.text, truncated=cut, verbatim=verbatim, numeric=numeric)


def free_text(reply: Response) -> tuple[str, Outcome, str]:
    """Return free text with its outcome and reason; truncated text is kept and marked as such."""
    text = strip_thinking(reply.text).strip()
    # A description ("it cannot be seen") is not a refusal.
    if reply.outcome is Outcome.REFUSED or is_refusal(re.split(r"[.!?\n]", text, maxsplit=1)[0]):
        return "", Outcome.REFUSED, reply.reason or "refusal"
    if reply.outcome is Outcome.TRUNCATED:
        return text, Outcome.TRUNCATED, reply.reason
    return (text, Outcome.OK, "") if text else ("", Outcome.UNPARSED, "empty answer")


def per_length(score: Score, text: str, how: Normalise) -> float:
    """Return a log-likelihood divided by the text's length, or unchanged; a similarity or logit has no
    length.
    """
    if how == "sum" or not score.tokens:
        return score.value
    return score.value / (score.tokens if how == "tokens" else max(1, len(text.encode())))


def failed(sample: Sample, failure: ParseFailure, questions: int, **details: Any) -> Prediction:
    """Return the prediction for a parse failure: none."""
    return Prediction(
        sample.id, "", outcome=failure.outcome, reason=failure.reason, questions=questions, details=details
    )


def check_placeholders(option: str, prompt: str, *names: str) -> None:
    """Refuse an empty prompt, or one without a required placeholder.

    Raises:
        BadOption: as stated.
    """
    if not prompt.strip():
        raise BadOption(f"{option}={prompt!r} is not allowed: the prompt is empty.")
    for name in names:
        if "{" + name + "}" not in prompt:
            raise BadOption(f"{option}={prompt!r} is not allowed: it must contain {{{name}}}.")


def check_count(option: str, value: int | None) -> None:
    """Refuse a number of labels that leaves nothing to choose from.

    Raises:
        BadOption: as stated.
    """
    if value is not None and value < 2:
        raise BadOption(f"{option}={value} is not allowed; allowed: 2 or more.")


def positive(option: str, value: int) -> None:
    """Refuse a number below 1.

    Raises:
        BadOption: as stated.
    """
    if value < 1:
        raise BadOption(f"{option}={value} is not allowed; allowed: 1 or more.")


def most_frequent(failures: Sequence[ParseFailure]) -> ParseFailure:
    """Return the failure that represents several: the first one with the most frequent outcome."""
    counts: dict[Outcome, int] = {}
    for failure in failures:
        counts[failure.outcome] = counts.get(failure.outcome, 0) + 1
    top = max(counts.values())
    return next(f for f in failures if counts[f.outcome] == top)


#: What protocols are called elsewhere.
OTHER_NAMES = {
    "mcq": ["multiple-choice"],
    "mc": ["multiple-choice"],
    "likelihood": ["rank"],
    "perplexity": ["rank"],
    "zero-shot": ["rank", "closed-set"],
    "classification": ["closed-set", "rank"],
    "pope": ["yes-no"],
    "captioning": ["caption"],
    "detection": ["grounding?task=detect"],
    "refer": ["grounding"],
}
PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    "snellen.protocols",
    takes_rest=False,
    finish=with_common,
    suggest=lambda name: OTHER_NAMES.get(name.lower(), []),
)
