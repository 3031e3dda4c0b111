"""Battles between models that answer while someone waits."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from snellen.arena.leaks import leak
from snellen.arena.pairing import draw
from snellen.arena.streaming import PacedAnswers
from snellen.chat.conversation import StreamingAnswer, checked
from snellen.engine.cache import CachedModel
from snellen.errors import BadOption, Conflict, Unsupported, UsageError
from snellen.images import Image
from snellen.models.base import Model, failure
from snellen.storage.vote_rows import SIDES, Answer, Battle, Turn
from snellen.storage.votes import VoteStore
from snellen.types import Decoding, Kind, Message, Outcome, Request, Response, Sample, placed

if TYPE_CHECKING:
    from snellen.datasets.base import Selection

__all__ = ["MAX_TURNS", "Live"]

log = logging.getLogger(__name__)
#: The most questions per battle.
MAX_TURNS = 8
#: The most battles with new answers to one question, and the temperature at which these are drawn.
MAX_DRAWS, WARM = 4, 0.7
#: Seconds to wait for pending answers when the arena closes.
PATIENCE = 10.0


class Live:
    """An arena of models that answer people's questions.

    Both answers are released together, so that speed reveals nothing.

    Args:
        vote_store: battles are stored here immediately, so that a restart resumes them.
        models: two or more that generate text.
        data: the source of random images, if any.
        image_path: returns the path of the image with a hash (uploads, and images drawn from the data).
        max_tokens: per answer.
        seconds: how long to wait for an answer; later it counts as an error.
        stream: show answers while they are written, both at one pace. Otherwise both appear at once.

    Raises:
        UsageError: fewer than two models, or one that does not generate text.
    """

    source = "live"

    def __init__(
        self,
        vote_store: VoteStore,
        models: Sequence[Model],
        *,
        image_path: Callable[[str], Path],
        data: Selection | None = None,
        max_tokens: int = 512,
        seconds: float = 300.0,
        stream: bool = False,
        rng: Random | None = None,
    ) -> None:
        if len({model.name for model in models}) < 2:
            raise UsageError("An arena needs at least two models: --model A --model B")
        for model in models:
            if Kind.GENERATE not in model.kinds or model.fixed:
                raise Unsupported(
                    f"{model.name} does not answer questions in words, so it cannot enter an arena. Its "
                    "stored predictions can: snellen arena --runs RUN RUN"
                )
            model.check()
        if max_tokens < 1:
            raise BadOption(f"--max-tokens {max_tokens} is not allowed; allowed: 1 or more.")
        self.vote_store, self.data = vote_store, data
        self.models = {model.name: model for model in models}
        self.players = tuple(sorted(self.models))
        self.max_tokens, self.seconds, self.stream = max_tokens, seconds, stream
        self._image_path = image_path
        self.rng = rng or Random()
        self._memory: dict[str, CachedModel] = {}
        #: A local model answers one request at a time; waiting requests hold no thread.
        self._turns = {name: asyncio.Semaphore(16 if m.remote else 1) for name, m in self.models.items()}
        self._under_way: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._late: set[asyncio.Task[Response]] = set()
        self._ends = threading.Event()
        self._streams: dict[tuple[str, int], PacedAnswers] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Load the models; questions are accepted inside this context."""
        async with AsyncExitStack() as stack:
            for name, model in self.models.items():
                log.info("loading %s", name)
                await asyncio.to_thread(model.load)
                stack.callback(model.close)
                await stack.enter_async_context(model.connected())
                self._memory[name] = CachedModel(model, self.vote_store.store)
            try:
                yield
            finally:
                self._ends.set()
                tasks: list[asyncio.Task[Any]] = [*self._under_way.values(), *self._late]
                for task in tasks:
                    task.cancel()
                if tasks:  # pending answers may finish, but not take forever
                    await asyncio.wait(tasks, timeout=PATIENCE)

    def random_image(self) -> tuple[Image, str, str | None]:
        """Draw an image from the data, with its sample's id and question.

        Raises:
            UsageError: there is no data, or none of a hundred samples has an image.
        """
        if self.data is None:
            raise UsageError("There is no data to draw an image from. Start the arena with --data.")
        for _ in range(100):
            sample = self.data[self.rng.randrange(len(self.data))]
            if sample.images:
                return sample.images[0], sample.id, sample.question
        raise UsageError(f"{self.data.name}: none of a hundred samples has an image. Upload one.")

    def sample(self, id: str) -> Sample | None:
        """Return a sample of the data; None if there is no data or no such sample."""
        data = self.data
        places = (i for i in range(len(data)) if data.id(i) == id) if data is not None else iter(())
        place = next(places, None)
        return None if data is None or place is None else data[place]

    def begin(
        self, voter: str, images: Sequence[str], question: str, more: Mapping[str, Any] | None = None
    ) -> Battle:
        """Store a new battle with its first question, not yet answered.

        Args:
            images: their hashes.
            more: known facts about them (``sample``).

        Raises:
            BadOption: the question is empty or too long.
        """
        question = checked(question)
        drawn = draw(self.players, self.vote_store.met(), self.rng)
        assert drawn is not None  # no pair is excluded
        pair = sorted((drawn.left, drawn.right))
        item = hashlib.sha256("\0".join([*pair, *images, question]).encode()).hexdigest()[:24]
        turns = (Turn(0, question),)
        battle = Battle(
            id="",
            voter=voter,
            source=self.source,
            item=item,
            left=drawn.left,
            right=drawn.right,
            propensity=drawn.propensity,
            images=tuple(images),
            content=dict(more or {}),
            turns=turns,
        )
        return self.vote_store.keep(battle)

    def regenerate(self, battle: Battle) -> Battle:
        """Store a battle of the same models on the same question, whose answers are drawn anew. The earlier
        one is passed over: it does not count, and does not come back.

        Raises:
            BadOption: the battle has further questions, repeats another, or has been drawn often enough.
            Conflict: it was voted on or passed over, or is not answered yet.
        """
        if len(battle.turns) > 1 or battle.repeats:
            raise BadOption("Only answers to a first question can be drawn anew. Vote, or skip the battle.")
        if battle.draw + 1 >= MAX_DRAWS:
            raise BadOption(f"A question is answered at most {MAX_DRAWS} times. Vote, or skip the battle.")
        if not battle.answered:
            raise Conflict("Both models are still answering. Wait for them.")
        if not self.vote_store.skip(battle.id, battle.voter):
            raise Conflict("New answers were asked for already, or this battle was passed over. See: /arena")
        draw = battle.draw + 1
        content = {**battle.content, "draw": draw}
        item = hashlib.sha256(f"{battle.item} {draw}".encode()).hexdigest()[:24]
        turns = (Turn(0, battle.turns[0].question),)
        return self.vote_store.keep(
            replace(battle, id="", created="", item=item, content=content, turns=turns)
        )

    def takes_new_answers(self, battle: Battle) -> bool:
        """Whether :meth:`regenerate` would take a battle."""
        once = len(battle.turns) == 1 and not battle.repeats
        return once and battle.answered and battle.vote is None and battle.draw + 1 < MAX_DRAWS

    def watch(self, battle: Battle, turn: int, side: str) -> AsyncIterator[str] | None:
        """Yield an answer as far as it may be shown; None if it is not being written."""
        key = (battle.id, turn)
        if side not in SIDES or key not in self._streams or key not in self._under_way:
            return None
        return self._streams[key].watch(side, self._under_way[key])

    def ask(self, battle: Battle, question: str) -> None:
        """Store a further question.

        Raises:
            BadOption: it is empty or too long, the battle has enough questions, or the battle repeats
                another.
            Conflict: another question is still unanswered.
        """
        if battle.repeats:
            raise BadOption("This battle repeats an earlier one and takes no new questions. Vote now.")
        if len(battle.turns) >= MAX_TURNS:
            raise BadOption(f"A battle has at most {MAX_TURNS} questions. Vote now.")
        self.vote_store.ask(battle, checked(question))

    def attend(self, battle: Battle) -> None:
        """Make sure that the last question is being answered. Call it in the event loop; questions left
        unanswered when a server stopped are resumed.
        """
        if not battle.turns or battle.answered:
            return
        key = (battle.id, battle.turns[-1].number)
        if key not in self._under_way:
            if self.stream:
                self._streams[key] = paced = PacedAnswers()
                for side in SIDES:  # one may have answered before a server stopped
                    if (said := getattr(battle.turns[-1], side)) is not None:
                        paced.answers[side].complete(_response(said))
            task = asyncio.create_task(self._answer(battle))
            self._under_way[key] = task
            task.add_done_callback(lambda _: (self._under_way.pop(key, None), self._streams.pop(key, None)))

    async def _answer(self, battle: Battle) -> None:
        """Ask both models, and store both answers when both have arrived."""
        turn = battle.turns[-1]
        waiting = [side for side in SIDES if getattr(turn, side) is None]
        answers = await asyncio.gather(*(self._one(battle, side) for side in waiting))
        for side, answer in zip(waiting, answers, strict=True):
            await asyncio.to_thread(self.vote_store.answer, battle.id, turn.number, side, answer)

    async def _one(self, battle: Battle, side: str) -> Answer:
        streams = self._streams.get((battle.id, battle.turns[-1].number))
        growing = None if streams is None else streams.answers[side]
        answer = await self._answer_of(battle, side, growing)
        if growing is not None:
            growing.complete(_response(answer))
        return answer

    async def _answer_of(self, battle: Battle, side: str, growing: StreamingAnswer | None) -> Answer:
        name = getattr(battle, side)
        began = time.perf_counter()
        if name not in self._memory:
            return Answer("", Outcome.ERROR, "this model is no longer in the arena")
        try:
            request = self._request(battle, side)
            asking = asyncio.create_task(self._ask(name, request, growing))
            self._late.add(asking)
            asking.add_done_callback(self._late.discard)
            # A late answer is not cancelled: others may wait for it, and it will be cached.
            done, _ = await asyncio.wait({asking}, timeout=self.seconds)
            if not done:
                return Answer("", Outcome.ERROR, "the answer timed out", time.perf_counter() - began)
            reply = asking.result()
        except Exception as error:  # any error: the other side's answer must not be lost
            reply = failure(error)
        if reply.outcome is Outcome.ERROR:
            log.warning("%s failed: %s", name, reply.reason)
        given_away = leak(reply.text, self.players)
        return Answer(reply.text, reply.outcome, reply.reason, time.perf_counter() - began, given_away)

    async def _ask(self, name: str, request: Request, growing: StreamingAnswer | None) -> Response:
        """Get one answer, from the cache if possible, when it is this request's turn."""
        model = self.models[name]
        async with self._turns[name]:
            # Hosted models answer in one piece, through the event loop.
            if growing is not None and not model.remote and not await self._memory[name].knows(request):
                await asyncio.to_thread(growing.take, model.stream(request), self._ends.is_set)
                assert growing.response is not None
                return growing.response
            (response,) = await self._memory[name].respond([request])
        return response.response

    def _request(self, battle: Battle, side: str) -> Request:
        """Build the conversation as this side knows it."""
        images = [Image.from_path(self._image_path(sha256)) for sha256 in battle.images]
        messages: list[Message] = []
        for turn in battle.turns:
            content = placed(tuple(images) if turn.number == 0 else (), turn.question)
            messages.append(Message("user", content))
            if (said := getattr(turn, side)) is not None:
                messages.append(Message("assistant", (said.text,)))
        warmth = WARM if battle.draw else 0.0
        decoding = Decoding(max_tokens=self.max_tokens, temperature=warmth, draw=battle.draw)
        return Request(tuple(messages), decoding=decoding)


def _response(answer: Answer) -> Response:
    return Response(answer.text, outcome=answer.outcome, reason=answer.reason)
