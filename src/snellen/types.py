"""The types that pass between data sets, protocols, models and the store.

All are frozen and do no I/O (an :class:`~snellen.images.Image` loads lazily).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

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
    "placed",
]


class Outcome(StrEnum):
    """How the evaluation of a sample, or a single answer, ended. Only ``OK`` carries a prediction."""

    OK = "ok"
    UNPARSED = "unparsed"  #: the answer names none of the candidates, or several
    REFUSED = "refused"  #: the model declined to answer
    TRUNCATED = "truncated"  #: the answer was cut off before it could be parsed
    ERROR = "error"  #: no answer; retried on resume


class Kind(StrEnum):
    """What a request asks a model for."""

    GENERATE = "generate"  #: a text
    SCORE = "score"  #: a number for each continuation: its log-likelihood, or a similarity
    #: Needed by protocols whose SCORE requests offer a few short answers that differ in their first token
    #: (yes and no, letters): a server that returns the top next tokens is enough.
    CHOOSE = "choose"
    #: Needed by protocols whose GENERATE requests have continuations: the text must be one of them.
    CONSTRAIN = "constrain"


#: Corners (x, y).
Outline = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an image, in pixels from its upper left corner.

    Attributes:
        box: left, top, right, bottom.
        name: the object's name, or the expression that refers to it.
        outlines: the outlines of its parts, if known.
    """

    box: tuple[float, float, float, float]
    name: str = ""
    outlines: tuple[Outline, ...] = ()

    def scaled(self, width: float, height: float) -> Region:
        """Return a region in pixels, given one in shares of an image's width and height."""
        left, top, right, bottom = self.box
        box = (left * width, top * height, right * width, bottom * height)
        drawn = (tuple((x * width, y * height) for x, y in outline) for outline in self.outlines)
        return Region(box, self.name, tuple(drawn))


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a data set. ``labels`` is the label set, which all samples share by reference."""

    id: str
    images: tuple[Image, ...] = ()
    _: KW_ONLY
    label: str | None = None  #: the true class
    also: tuple[str, ...] = ()  #: other classes that are right too
    labels: tuple[str, ...] = ()
    background: str | None = None  #: the label, if any, that means "none of the others"
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    question: str | None = None
    choices: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()  #: the correct choices
    references: tuple[str, ...] = ()  #: reference answers or captions, as free text
    regions: tuple[Region, ...] = ()  #: the objects to locate
    meta: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Message, ...] = ()  #: a whole conversation, for fine-tuning
    shots: tuple[Message, ...] = ()  #: examples to show before each question, with their answers


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: texts and images, in the order in which the model sees them."""

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

    def identity(self) -> dict[str, Any]:
        """Return the role, the texts, and the hashes of the images, as JSON."""
        parts = [{"text": p} if isinstance(p, str) else {"image": p.sha256} for p in self.content]
        return {"role": self.role, "content": parts}


@dataclass(frozen=True, slots=True)
class Decoding:
    """Decoding parameters. Temperature 0 is greedy; ``draw`` numbers repeated samples."""

    max_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    draw: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a model. If the last message is the assistant's, the model continues it."""

    messages: tuple[Message, ...]
    kind: Kind = Kind.GENERATE
    decoding: Decoding = field(default_factory=Decoding)
    #: For SCORE, the texts to score; for GENERATE, if any, the only texts allowed.
    continuations: tuple[str, ...] = ()
    #: The sample, set by the engine for models that answer from the data (replay:). Not part of the
    #: question, so not part of the cache key either.
    sample: Sample | None = field(default=None, compare=False, repr=False)

    @property
    def images(self) -> tuple[Image, ...]:
        """All images, in order."""
        return tuple(image for message in self.messages for image in message.images)

    @property
    def shown(self) -> tuple[Image, ...]:
        """The images that it asks about: those of the last message that has any, such as a video's frames."""
        return next((message.images for message in reversed(self.messages) if message.images), ())


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a continuation: its log-likelihood in nats, summed over ``tokens`` tokens; or, if
    ``tokens`` is 0, a similarity or logit, to which no length normalization applies.
    """

    value: float
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """A model's answer to one request."""

    text: str = ""  #: without the reasoning, if the model separates it
    _: KW_ONLY
    scores: tuple[Score, ...] = ()  #: one for each continuation
    outcome: Outcome = Outcome.OK  #: OK, REFUSED, TRUNCATED or ERROR
    reason: str = ""  #: why the outcome is not OK
    latency: float = 0.0  #: seconds from request to response, of its whole batch
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt: str = ""  #: as sent, with the chat template applied, if the model reports it
    thinking: str = ""  #: the reasoning before the answer
    #: Further facts from the server, as JSON: the model that it served, detailed usage, attempts …
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cached_tokens(self) -> int:
        """The prompt's tokens that the server had cached, and bills at its price for those."""
        count = self.meta.get("cached_tokens", 0)
        return count if isinstance(count, int) else 0


class Usage(NamedTuple):
    """What is billed: the number of requests, and their tokens; ``cached_tokens`` are a part of
    ``prompt_tokens``.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @classmethod
    def of(cls, responses: Sequence[Response]) -> Self:
        """Sum over responses."""
        names = cls._fields[1:]
        return cls(len(responses), *(sum(getattr(r, name) for r in responses) for name in names))


@dataclass(frozen=True, slots=True)
class Prediction:
    """The result for one sample. ``label`` is the class, or the answer as text. It is empty unless the
    outcome is OK, and may be empty even then. (Truncated free text is kept, with outcome TRUNCATED.)
    """

    sample_id: str
    label: str = ""
    _: KW_ONLY
    outcome: Outcome = Outcome.OK
    reason: str = ""
    questions: int = 0  #: answers that the stop rule needed
    ranking: tuple[str, ...] = ()  #: labels by rank, best first, if they were ranked
    details: Mapping[str, Any] = field(default_factory=dict)


#: A protocol's evaluation of a sample: yields batches of requests, and is sent their responses.
Examination = Generator[Sequence[Request], Sequence[Response], Prediction]


def ask(
    images: Iterable[Image],
    text: str,
    *,
    kind: Kind = Kind.GENERATE,
    max_tokens: int = 32,
    **more: Any,
) -> Request:
    """Build a user's turn: images first, then the text. An image that the text names, as in <image 1>, is
    placed there; so are all of them where the text has as many ``<image>`` as there are images. Any other
    ``<image>`` is text, for every model.
    """
    message = Message("user", placed(tuple(images), text))
    return Request((message,), kind, Decoding(max_tokens=max_tokens), **more)


#: Where LLaVA's prompts have an image.
MARK = "<image>"


def placed(images: tuple[Image, ...], text: str) -> tuple[str | Image, ...]:
    """Return a message's content: images where the text says, else before it, as in :func:`ask`."""
    if MARK in text:
        between = text.split(MARK)
        if len(between) == len(images) + 1:
            places = [part for pair in zip(between, images, strict=False) for part in pair]
            return tuple(part for part in (*places, between[-1]) if part != "")
    parts = re.split(r"<image (\d+)>", text)
    named = [int(number) - 1 for number in parts[1::2]]
    if not named or max(named) >= len(images):
        return (*images, text)
    content: list[str | Image] = [image for i, image in enumerate(images) if i not in named]
    for i, part in enumerate(parts):
        content.append(images[int(part) - 1] if i % 2 else part)
    return tuple(part for part in content if part != "")
