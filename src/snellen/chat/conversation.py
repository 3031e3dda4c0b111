"""Chat about an image with one model, or with several side by side."""

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
from snellen.types import Decoding, Kind, Message, Outcome, Request, Response, placed

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
#: The most questions per conversation, characters per question, and conversations kept.
MAX_TURNS, MAX_QUESTION, MOST = 20, 4000, 200


def check_talker(model: Model) -> None:
    """Refuse a model that does not generate text.

    Raises:
        Unsupported: it does not.
        ModelError, MissingExtra: the model's requirements are missing.
    """
    if Kind.GENERATE not in model.kinds or model.fixed:
        raise Unsupported(f"{model.name} does not generate text, so it cannot chat.")
    model.check()


def checked(question: str) -> str:
    """Return a question ready to send.

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
    """Build the request for the next answer: images, first or where the first question marks their places,
    then the conversation so far.
    """
    messages: list[Message] = []
    for asked, answer in [*said, (question, "")]:
        messages.append(Message("user", placed(tuple(images) if not messages else (), asked)))
        if answer:
            messages.append(Message("assistant", (answer,)))
    return Request(tuple(messages), decoding=Decoding(max_tokens=max_tokens))


class StreamingAnswer:
    """An answer that streams in from another thread. Any number of readers can watch it."""

    def __init__(self) -> None:
        self.text = ""
        self.response: Response | None = None
        self._news = threading.Condition()

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self.response is not None

    def take(self, stream: Generator[str, None, Response], stop: Callable[[], bool]) -> None:
        """Consume the stream to its end, or until stopped."""
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
        except Exception as error:  # any error: readers must not wait forever
            log.warning("an answer failed: %s", error)
            reply = failure(error)
        self.complete(reply or Response(self.text, outcome=Outcome.TRUNCATED, reason="stopped"))

    def complete(self, response: Response) -> None:
        """Take the complete answer, for those that come in one piece."""
        with self._news:
            self.response = response
            if response.outcome is not Outcome.ERROR:
                self.text = response.text
            self._news.notify_all()

    def watch(self, start: int = 0, patience: float = 15.0) -> Iterator[str]:
        """Yield pieces as they arrive, and an empty one after this many seconds of silence."""
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
        """Whether all answers are complete."""
        return all(answer.done for answer in self.answers)


@dataclass
class Conversation:
    """A conversation with all models about one image, or none."""

    id: str
    images: tuple[str, ...]
    turns: list[ChatTurn] = field(default_factory=list)


class Playground:
    """Models to chat with, side by side. Conversations live as long as the process; the oldest are dropped
    first.

    Args:
        models: one or more that generate text.
        image_path: returns the path of the image with a hash.
        max_tokens: per answer.

    Raises:
        Unsupported: a model that does not generate text.
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
        """The models' names."""
        return [model.name for model in self.models]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Load the models; questions are accepted inside this context."""
        # A local model answers one question at a time.
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
        """Return a conversation by its id.

        Raises:
            UnknownName: it does not exist, or was dropped.
        """
        with self._lock:
            conversation = self._talks.get(id)
            if conversation is None:
                raise UnknownName("This conversation no longer exists. Start a new one.")
            self._talks.move_to_end(id)
            return conversation

    def begin(self, images: Sequence[str], question: str) -> Conversation:
        """Start a conversation with its first question.

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
        """Ask all models a further question.

        Raises:
            BadOption: the question is empty or too long, or the conversation has enough of them.
            Conflict: an answer is still streaming.
        """
        question = checked(question)
        with self._lock:
            if talk.turns and not talk.turns[-1].done:
                raise Conflict("An answer is still streaming. Wait for it.")
            if len(talk.turns) >= MAX_TURNS:
                raise BadOption(f"A conversation has at most {MAX_TURNS} questions. Start a new one.")
            said = list(talk.turns)
            turn = ChatTurn(question, [StreamingAnswer() for _ in self.models])
            talk.turns.append(turn)
        images = [Image.from_path(self._image_path(sha256)) for sha256 in talk.images]
        for place, (model, worker) in enumerate(zip(self.models, self._workers, strict=True)):
            before = [(earlier.question, earlier.answers[place].text) for earlier in said]
            request = continued(images, before, question, self.max_tokens)
            worker.submit(turn.answers[place].take, model.stream(request), self._ends.is_set)
