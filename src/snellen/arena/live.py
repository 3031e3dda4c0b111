"""Battles between models that answer while somebody waits."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from snellen.arena.leaks import leak
from snellen.arena.pairing import draw
from snellen.chat.conversation import checked
from snellen.engine.cache import CachedModel
from snellen.errors import BadOption, Unsupported, UsageError
from snellen.images import Image
from snellen.models.base import Model, failure
from snellen.storage.vote_rows import SIDES, Answer, Battle, Turn
from snellen.storage.votes import VoteStore
from snellen.types import Decoding, Kind, Message, Outcome, Request, Response, Sample

if TYPE_CHECKING:
    from snellen.datasets.base import Selection

__all__ = ["MAX_TURNS", "Live"]

log = logging.getLogger(__name__)
#: Questions that a battle takes.
MAX_TURNS = 8
#: Seconds for which answers under way are awaited when the arena closes.
PATIENCE = 10.0


class Live:
    """An arena of models that are asked as people ask them.

    Both answers are released together: nobody sees one before the other, so that speed betrays nobody.

    Args:
        vote_store: where battles are written down, at once, so that a restart goes on with them.
        models: two or more that generate text.
        data: where random images come from, if anywhere.
        image_path: where the image of a hash lies (uploads, and what was drawn from the data).
        max_tokens: of an answer.
        seconds: for which an answer is awaited; later it counts as an error.

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
        self.max_tokens, self.seconds = max_tokens, seconds
        self._image_path = image_path
        self.rng = rng or Random()
        self._memory: dict[str, CachedModel] = {}
        #: A model in this process answers one request after the other; whoever waits holds no thread.
        self._turns = {name: asyncio.Semaphore(16 if m.remote else 1) for name, m in self.models.items()}
        self._under_way: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._late: set[asyncio.Task[Response]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Load the models; questions come within it."""
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
                tasks: list[asyncio.Task[Any]] = [*self._under_way.values(), *self._late]
                for task in tasks:
                    task.cancel()
                if tasks:  # what a model is in the middle of is seen through, but not for ever
                    await asyncio.wait(tasks, timeout=PATIENCE)

    def random_image(self) -> tuple[Image, str, str | None]:
        """An image of the data with its sample's id and question.

        Raises:
            UsageError: there are no data, or none of a hundred samples has an image.
        """
        if self.data is None:
            raise UsageError("There are no data to take an image from; start the arena with --data.")
        for _ in range(100):
            sample = self.data[self.rng.randrange(len(self.data))]
            if sample.images:
                return sample.images[0], sample.id, sample.question
        raise UsageError(f"{self.data.name}: of a hundred samples, none has an image. Upload one.")

    def sample(self, id: str) -> Sample | None:
        """A sample of the data; None where there are none, or no such."""
        data = self.data
        places = (i for i in range(len(data)) if data.id(i) == id) if data is not None else iter(())
        place = next(places, None)
        return None if data is None or place is None else data[place]

    def begin(
        self, voter: str, images: Sequence[str], question: str, more: Mapping[str, Any] | None = None
    ) -> Battle:
        """Write down a new battle with its first question, yet unanswered.

        Args:
            images: their hashes.
            more: what is known of them (``sample``).

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

    def ask(self, battle: Battle, question: str) -> None:
        """Write down a further question.

        Raises:
            BadOption: it is empty or too long, or there were enough, or the battle repeats another.
            Conflict: another one waits for its answers.
        """
        if battle.repeats:
            raise BadOption("This battle was fought before; it is only to be judged again. Vote now.")
        if len(battle.turns) >= MAX_TURNS:
            raise BadOption(f"A battle has {MAX_TURNS} questions at most. Vote now.")
        self.vote_store.ask(battle, checked(question))

    def attend(self, battle: Battle) -> None:
        """See to it that the last question is being answered. To be called where the event loop runs; what
        was left unanswered when a server ended is taken up again.
        """
        if not battle.turns or battle.answered:
            return
        key = (battle.id, battle.turns[-1].number)
        if key not in self._under_way:
            task = asyncio.create_task(self._answer(battle))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))

    async def _answer(self, battle: Battle) -> None:
        """Ask both, and write down both answers once both are there."""
        turn = battle.turns[-1]
        waiting = [side for side in SIDES if getattr(turn, side) is None]
        answers = await asyncio.gather(*(self._one(battle, side) for side in waiting))
        for side, answer in zip(waiting, answers, strict=True):
            await asyncio.to_thread(self.vote_store.answer, battle.id, turn.number, side, answer)

    async def _one(self, battle: Battle, side: str) -> Answer:
        name = getattr(battle, side)
        began = time.perf_counter()
        if name not in self._memory:
            return Answer("", Outcome.ERROR, "this model is not in the arena any more")
        try:
            request = self._request(battle, side)
            asking = asyncio.create_task(self._ask(name, request))
            self._late.add(asking)
            asking.add_done_callback(self._late.discard)
            # Whoever is late is not cut off: others may wait for the same answer, and it is remembered.
            done, _ = await asyncio.wait({asking}, timeout=self.seconds)
            if not done:
                return Answer("", Outcome.ERROR, "no answer came in time", time.perf_counter() - began)
            reply = asking.result()
        except Exception as error:  # of whatever sort: the other side's answer must not be lost with it
            reply = failure(error)
        if reply.outcome is Outcome.ERROR:
            log.warning("%s failed: %s", name, reply.reason)
        given_away = leak(reply.text, self.players)
        return Answer(reply.text, reply.outcome, reply.reason, time.perf_counter() - began, given_away)

    async def _ask(self, name: str, request: Request) -> Response:
        """One answer, by memory where it can, once it is this request's turn."""
        async with self._turns[name]:
            (response,) = await self._memory[name].respond([request])
        return response.response

    def _request(self, battle: Battle, side: str) -> Request:
        """The conversation so far as this side knows it."""
        images = [Image.from_path(self._image_path(sha256)) for sha256 in battle.images]
        messages: list[Message] = []
        for turn in battle.turns:
            content = (*(images if turn.number == 0 else ()), turn.question)
            messages.append(Message("user", content))
            if (said := getattr(turn, side)) is not None:
                messages.append(Message("assistant", (said.text,)))
        return Request(tuple(messages), decoding=Decoding(max_tokens=self.max_tokens))
