"""Models that think before they answer, and servers that refuse a parameter: found from the first replies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from snellen.types import Outcome, Response

__all__ = ["MAX_TOKENS", "FirstReplies", "Refused", "fixed_temperature", "thinks"]

#: Tokens for reasoning and answer, where a model thinks.
MAX_TOKENS = 4096
#: Names of models that think unless told otherwise (providers' documentation, November 2026).
_THINKING = re.compile(
    r"(^|/)(o[134](-|$)|gpt-5(?!.*chat)|deepseek-reasoner|gemini-(2\.5-(pro|flash(?!-lite))|3)|grok-(3-mini|4)"
    r"|magistral|qwq|qvq|glm-4\.[156]v|glm-z1|step-3|apriel.*thinker)|(^|[-_/])thinking|[-_/]r1(-|$)",
    re.IGNORECASE,
)
#: Those that accept no temperature but their own.
_FIXED = re.compile(r"(^|/)(o[134](-|$)|gpt-5(?!.*chat))", re.IGNORECASE)


def thinks(model: str) -> bool:
    """Return whether a model of this name is known to think before it answers."""
    return _THINKING.search(model) is not None


def fixed_temperature(model: str) -> bool:
    """Return whether a model of this name is known to accept no temperature."""
    return _FIXED.search(model) is not None


class Refused:
    """Parameters that a server refused, and how a body does without them."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def learn(self, status: int | None, said: str, body: Mapping[str, Any]) -> str | None:
        """Return the parameter that an error is about, if requests can do without it.

        Args:
            status: of the error.
            said: its message.
            body: the request.
        """
        if status not in (400, 422) or not _NOT_TAKEN.search(said):
            return None
        for name in ("temperature", "max_tokens", "max_completion_tokens"):
            if name in body and re.search(rf"\b{name}\b", said):
                self.names.add(name)
                return name
        return None

    def apply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a body without what was refused; the two names of ``max_tokens`` replace each other."""
        other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
        kept = {name: value for name, value in body.items() if name not in self.names}
        moved = {other[name]: body[name] for name in self.names & other.keys() if name in body}
        return kept | {name: value for name, value in moved.items() if name not in self.names}


_NOT_TAKEN = re.compile(
    r"(un|not |n't )support|not (allowed|permitted)|only .{0,60}(allowed|supported)|deprecated|invalid"
    r"|unrecognized|unknown (parameter|field)",
    re.IGNORECASE,
)


class FirstReplies:
    """Looks at a run's first replies: a model that thinks up to ``max_tokens`` answers nothing."""

    #: So many replies are looked at, and so many are enough.
    MOST, ENOUGH = 32, 8

    def __init__(self) -> None:
        self._seen = self._empty = self._cut = 0

    def trouble(self, reply: Response, max_tokens: Any) -> str | None:
        """Return what is wrong with most replies so far, and the option to set; None if nothing is."""
        if self._seen >= self.MOST:
            return None
        self._seen += 1
        cut = reply.outcome is Outcome.TRUNCATED
        self._cut += cut
        self._empty += not reply.text.strip() and (cut or reply.outcome is Outcome.UNPARSED)
        if self._seen < self.ENOUGH or self._empty <= self._seen / 2:
            return None
        if self._cut <= self._empty / 2:
            return (
                f"{self._empty} of the first {self._seen} answers are empty. Look at them (snellen show "
                "@last), and at the server's log"
            )
        return (
            f"{self._empty} of the first {self._seen} answers end at max_tokens={max_tokens} before they "
            f"begin: the model thinks first. Give it room: -M max_tokens={MAX_TOKENS}, or ask for less "
            "thinking: -M reasoning_effort=low"
        )
