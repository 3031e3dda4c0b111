"""Two answers that stream in, shown at one pace, so that a model's speed does not reveal it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from snellen.chat.conversation import StreamingAnswer
from snellen.storage.vote_rows import SIDES

__all__ = ["PacedAnswers", "revealed"]

#: Seconds between looks at what has arrived.
BEAT = 0.1


def revealed(own: int, other: int, ended: float | None, pace: float) -> int:
    """Return how many characters of an answer may be shown.

    Both answers are shown as far as the shorter one has come; once that one is complete, the other goes on
    at the pace of before, until it is complete too.

    Args:
        own, other: the characters of both answers that have arrived.
        ended: the seconds since the other one was complete; None while it is being written.
        pace: characters a second until then.

    >>> revealed(50, 20, None, 10.0), revealed(50, 20, 1.0, 10.0), revealed(50, 20, 9.0, 10.0)
    (20, 30, 50)
    """
    if ended is None:
        return min(own, other)
    return min(own, max(other, int(other + pace * ended)))


@dataclass
class PacedAnswers:
    """Both sides' answers to one question, as they arrive."""

    answers: dict[str, StreamingAnswer] = field(
        default_factory=lambda: {side: StreamingAnswer() for side in SIDES}
    )
    began: float = field(default_factory=time.monotonic)
    #: When each side was seen to be complete.
    _ended: dict[str, float] = field(default_factory=dict)

    def shown(self, side: str, now: float) -> tuple[str, bool]:
        """Return what a side may show at this time, and whether that is all of it."""
        (far,) = (name for name in SIDES if name != side)
        for name in SIDES:
            if self.answers[name].done:
                self._ended.setdefault(name, now)
        own, other = self.answers[side].text, self.answers[far].text
        if len(self._ended) == len(SIDES):
            return own, True
        ended = self._ended.get(far)
        pace = len(other) / max(BEAT, ended - self.began) if ended is not None else 0.0
        text = own[: revealed(len(own), len(other), None if ended is None else now - ended, pace)]
        return text, self.answers[side].done and len(text) == len(own)

    async def watch(self, side: str, stored: asyncio.Task[None]) -> AsyncIterator[str]:
        """Yield pieces of a side's answer at the common pace; the end waits until both are stored."""
        sent = 0
        over = False
        while not over:
            text, over = self.shown(side, time.monotonic())
            if len(text) > sent:
                yield text[sent:]
                sent = len(text)
            else:
                yield "\u200b"  # shows whether the reader is still there; not part of the answer
            if not over:
                await asyncio.sleep(BEAT)
        await asyncio.wait({stored})
