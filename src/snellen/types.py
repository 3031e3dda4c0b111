"""The words of the house: what passes between data sets, protocols, models and the store.

All are frozen and do no I/O (an :class:`~snellen.images.Image` is a promise that is kept when asked).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from snellen.images import Image

__all__ = [
    "Decoding",
    "Examination",
    "Kind",
    "Message",
    "Outcome",
    "Prediction",
    "Region",
    "Request",
    "Response",
    "Sample",
    "Score",
    "ask",
]


class Outcome(StrEnum):
    """How an examination, or a single answer, ended. Only ``OK`` carries a prediction."""

    OK = "ok"
    UNPARSED = "unparsed"  #: the answer names nothing that was asked for, or several things
    REFUSED = "refused"  #: the model declined to answer
    TRUNCATED = "truncated"  #: the answer was cut off before it could be understood
    ERROR = "error"  #: no answer came; asked again on resume


class Kind(StrEnum):
    """What a request wants back."""

    GENERATE = "generate"  #: a text
    SCORE = "score"  #: a number for each continuation: its log-likelihood, or a similarity
    #: What a protocol needs where its SCORE requests offer a few short answers that their first token tells
    #: apart (yes and no, letters): a server that gives the likeliest next tokens can do that much.
    CHOOSE = "choose"
    #: What a protocol needs whose GENERATE requests have continuations: a text that is one of them.
    CONSTRAIN = "constrain"


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an image, in pixels from its upper left corner.

    Attributes:
        box: left, top, right, bottom.
        name: what it is, or the expression that refers to it.
        polygon: the outline as corners (x, y), where there is one.
    """

    box: tuple[float, float, float, float]
    name: str = ""
    polygon: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a data set. ``labels`` is the label set that all samples share (by reference)."""

    id: str
    images: tuple[Image, ...] = ()
    _: KW_ONLY
    label: str | None = None  #: the true class
    labels: tuple[str, ...] = ()
    background: str | None = None  #: the label, if any, that stands for "none of the others"
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    question: str | None = None
    choices: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()  #: which of the choices are right
    references: tuple[str, ...] = ()  #: true answers or captions in free text
    regions: tuple[Region, ...] = ()  #: what is to be found, and where it is
    meta: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Message, ...] = ()  #: a whole conversation, to be taught


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: texts and images in the order in which the model sees them."""

    role: Literal["system", "user", "assistant"]
    content: tuple[str | Image, ...]

    @property
    def text(self) -> str:
        """The texts without the images."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def images(self) -> tuple[Image, ...]:
        """The images without the texts."""
        return tuple(part for part in self.content if not isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a text is generated. Temperature 0 is greedy; ``draw`` numbers repeated samples."""

    max_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    draw: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A question to a model. A last message of the assistant's is a beginning to be continued."""

    messages: tuple[Message, ...]
    kind: Kind = Kind.GENERATE
    decoding: Decoding = field(default_factory=Decoding)
    #: Of a SCORE request what is scored; of a GENERATE request, where there are some, all that may be said.
    continuations: tuple[str, ...] = ()
    #: What the request is about. The engine sets it, for models that answer from the data (replay:); no
    #: part of the question, so no part of what it is remembered by.
    sample: Sample | None = field(default=None, compare=False, repr=False)

    @property
    def images(self) -> tuple[Image, ...]:
        """All images, in order."""
        return tuple(image for message in self.messages for image in message.images)


@dataclass(frozen=True, slots=True)
class Score:
    """A continuation's score: a log-likelihood in nats summed over ``tokens`` tokens, or, with
    ``tokens`` = 0, a similarity or logit that no length normalisation applies to.
    """

    value: float
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """A model's answer to one request."""

    text: str = ""  #: without the thinking, where the model keeps it apart
    _: KW_ONLY
    scores: tuple[Score, ...] = ()  #: one for each continuation
    outcome: Outcome = Outcome.OK  #: OK, REFUSED, TRUNCATED or ERROR
    reason: str = ""  #: of an outcome that is not OK
    latency: float = 0.0  #: seconds from asking to answering, of the batch that it came with
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt: str = ""  #: as it was sent, chat template and all, where the model tells
    thinking: str = ""  #: what a reasoning model wrote before its answer
    #: What a server said besides, as JSON: the model that it served, its usage in detail, tries …
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What an examination found. ``label`` is the class, or the answer as text: empty unless the outcome is
    OK, and it may be then. (Free text that was cut off is kept, and is TRUNCATED.)
    """

    sample_id: str
    label: str = ""
    _: KW_ONLY
    outcome: Outcome = Outcome.OK
    reason: str = ""
    questions: int = 0  #: that the stop rule needed
    ranking: tuple[str, ...] = ()  #: best first, where labels were ranked
    details: Mapping[str, Any] = field(default_factory=dict)


#: A protocol's examination of a sample: yields batches of requests, is sent their responses.
Examination = Generator[Sequence[Request], Sequence[Response], Prediction]


def ask(
    images: Iterable[Image],
    text: str,
    *,
    kind: Kind = Kind.GENERATE,
    max_tokens: int = 32,
    **more: Any,
) -> Request:
    """A user's turn: images first, then the text; one that the text names, as <image 1>, stands there."""
    message = Message("user", _placed(tuple(images), text))
    return Request((message,), kind, Decoding(max_tokens=max_tokens), **more)


def _placed(images: tuple[Image, ...], text: str) -> tuple[str | Image, ...]:
    parts = re.split(r"<image (\d+)>", text)
    named = [int(number) - 1 for number in parts[1::2]]
    if not named or max(named) >= len(images):
        return (*images, text)
    content: list[str | Image] = [image for i, image in enumerate(images) if i not in named]
    for i, part in enumerate(parts):
        content.append(images[int(part) - 1] if i % 2 else part)
    return tuple(part for part in content if part != "")
