"""Talk with models about an image: one, or one beside another."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from snellen._util.redaction import storable
from snellen.errors import BadOption, Conflict, UnknownName, Unsupported
from snellen.images import Image
from snellen.models.base import Model, failure
from snellen.types import Decoding, Kind, Message, Outcome, Request, Response

__all__ = [
    "MAX_QUESTION",
    "MAX_TURNS",
    "ChatTurn",
    "Conversation",
    "Playground",
    "StreamingAnswer",
    "check_talker",
    "checked",
    "continued",
]

log = logging.getLogger(__name__)
#: Questions that a talk takes, characters that one may have, and talks that are kept.
MAX_TURNS, MAX_QUESTION, MOST = 20, 4000, 200


def check_talker(model: Model) -> None:
    """Refuse a model that does not answer in words.

    Raises:
        Unsupported: as said.
        ModelError, MissingExtra: what it needs is not there.
    """
    if Kind.GENERATE not in model.kinds or model.fixed:
        raise Unsupported(
            f"{model.name} does not answer questions in words, so there is nothing to talk with."
        )
    model.check()


def checked(question: str) -> str:
    """A question as it is asked.

    Raises:
        BadOption: it is empty or too long.
    """
    question = question.replace("\r\n", "\n").strip()
    if not question:
        raise BadOption("The question is empty. Ask something about the image.")
    if len(question) > MAX_QUESTION:
        raise BadOption(
            f"The question has {len(question):,} characters; at most {MAX_QUESTION:,} are allowed."
        )
    return storable(question)


def continued(
    images: Sequence[Image], said: Sequence[tuple[str, str]], question: str, max_tokens: int
) -> Request:
    """The request for the next answer of a talk: images first, then what was said so far."""
    messages: list[Message] = []
    for asked, answer in [*said, (question, "")]:
        before = tuple(images) if not messages else ()
        messages.append(Message("user", (*before, asked)))
        if answer:
            messages.append(Message("assistant", (answer,)))
    return Request(tuple(messages), decoding=Decoding(max_tokens=max_tokens))


class StreamingAnswer:
    """An answer that comes piece by piece, in another thread. Any number may watch it."""

    def __init__(self) -> None:
        self.text = ""
        self.response: Response | None = None
        self._news = threading.Condition()

    @property
    def done(self) -> bool:
        """Whether nothing more comes."""
        return self.response is not None

    def take(self, stream: Generator[str, None, Response], stop: Callable[[], bool]) -> None:
        """Let it grow to its end, or until it is to stop."""
        reply: Response | None = None
        try:
            while not stop():
                piece = next(stream)
                with self._news:
                    self.text += piece
                    self._news.notify_all()
            stream.close()
        except StopIteration as end:
            reply = end.value
        except Exception as error:  # of whatever sort: whoever watches must not wait for ever
            log.warning("an answer failed: %s", error)
            reply = failure(error)
        with self._news:
            self.response = reply or Response(self.text, outcome=Outcome.TRUNCATED, reason="stopped")
            if self.response.outcome is not Outcome.ERROR:
                self.text = self.response.text
            self._news.notify_all()

    def watch(self, start: int = 0, patience: float = 15.0) -> Iterator[str]:
        """Pieces as they come; an empty one where nothing came for so many seconds."""
        while True:
            with self._news:
                if len(self.text) <= start and not self.done:
                    self._news.wait(patience)
                piece, over = self.text[start:], self.done
            start += len(piece)
            if piece or not over:
                yield piece
            if over:
                return


@dataclass
class ChatTurn:
    """A question, and each model's answer."""

    question: str
    answers: list[StreamingAnswer]

    @property
    def done(self) -> bool:
        """Whether all answers are there."""
        return all(answer.done for answer in self.answers)


@dataclass
class Conversation:
    """A conversation with all models about one image, or none."""

    id: str
    images: tuple[str, ...]
    turns: list[ChatTurn] = field(default_factory=list)


class Playground:
    """Models to be talked with, side by side. Talks live as long as the process, the oldest go first.

    Args:
        models: one or more that generate text.
        image_path: where the image of a hash lies.
        max_tokens: of an answer.

    Raises:
        Unsupported: a model that does not answer in words.
    """

    def __init__(
        self, models: Sequence[Model], *, image_path: Callable[[str], Path], max_tokens: int = 512
    ) -> None:
        for model in models:
            check_talker(model)
        if max_tokens < 1:
            raise BadOption(f"--max-tokens {max_tokens} is not allowed; allowed: 1 or more.")
        self.models = list(models)
        self.max_tokens = max_tokens
        self._image_path = image_path
        self._talks: OrderedDict[str, Conversation] = OrderedDict()
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._workers: list[ThreadPoolExecutor] = []

    @property
    def names(self) -> list[str]:
        """What the models are called."""
        return [model.name for model in self.models]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Load the models; questions come within it."""
        # A model in this process answers one question after the other.
        self._workers = [ThreadPoolExecutor(4 if model.remote else 1) for model in self.models]
        try:
            for model in self.models:
                model.load()
            yield
        finally:
            self._ends.set()
            for worker in self._workers:
                worker.shutdown(cancel_futures=True)
            for model in self.models:
                model.close()

    def talk(self, id: str) -> Conversation:
        """A talk by its id.

        Raises:
            UnknownName: there is none, or it was long ago.
        """
        with self._lock:
            conversation = self._talks.get(id)
            if conversation is None:
                raise UnknownName("There is no such talk any more. Begin another one.")
            self._talks.move_to_end(id)
            return conversation

    def begin(self, images: Sequence[str], question: str) -> Conversation:
        """Begin a talk with its first question.

        Raises:
            BadOption: the question is empty or too long.
        """
        conversation = Conversation(secrets.token_urlsafe(16), tuple(images))
        self.ask(conversation, question)
        with self._lock:
            self._talks[conversation.id] = conversation
            while len(self._talks) > MOST:
                self._talks.popitem(last=False)
        return conversation

    def ask(self, talk: Conversation, question: str) -> None:
        """Ask all models something more.

        Raises:
            BadOption: the question is empty or too long, or there were enough.
            Conflict: an answer is still coming.
        """
        question = checked(question)
        with self._lock:
            if talk.turns and not talk.turns[-1].done:
                raise Conflict("An answer is still coming. Wait for it.")
            if len(talk.turns) >= MAX_TURNS:
                raise BadOption(f"A talk has {MAX_TURNS} questions at most. Begin another one.")
            said = list(talk.turns)
            turn = ChatTurn(question, [StreamingAnswer() for _ in self.models])
            talk.turns.append(turn)
        images = [Image.from_path(self._image_path(sha256)) for sha256 in talk.images]
        for place, (model, worker) in enumerate(zip(self.models, self._workers, strict=True)):
            before = [(earlier.question, earlier.answers[place].text) for earlier in said]
            request = continued(images, before, question, self.max_tokens)
            worker.submit(turn.answers[place].take, model.stream(request), self._ends.is_set)
