"""Log-likelihoods of answers by single next tokens: one request for each beginning that answers share. All of
them find the prompt in vLLM's prefix cache, which ``prompt_logprobs`` bypasses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from snellen.models.remote.replies import top_tokens
from snellen.models.remote.retry import RequestError
from snellen.types import Message, Request, Score

if TYPE_CHECKING:
    from snellen.models.remote.transport import ChatTransport, Payload

__all__ = ["Walk", "Walks", "continued", "next_tokens", "plan", "scores_of", "started"]

log = logging.getLogger(__name__)

#: The most tokens whose log-probabilities vLLM returns for one position.
WIDEST = 128
#: The most plans that are kept.
KEPT = 64
#: The fields of a request that make the prompt.
PROMPT = ("model", "messages", "add_special_tokens", "add_generation_prompt", "continue_final_message")
#: Requests to the server's tokenizer at a time.
AT_ONCE = 16
T = TypeVar("T")
R = TypeVar("R")
#: A beginning of answers, as tokens.
Path: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Walk:
    """What to ask for.

    Attributes:
        steps: a beginning, the text that is tokenized as it, and the tokens that may follow; the empty
            beginning comes first.
        answers: the tokens of each answer; None for one of which a beginning cannot be written so that it
            is tokenized as it is within the answer.
    """

    steps: tuple[tuple[Path, str, tuple[int, ...]], ...]
    answers: tuple[Path | None, ...]


async def plan(
    continuations: Sequence[str],
    begun: str,
    tokenize: Callable[[str], Awaitable[list[int]]],
    detokenize: Callable[[Path], Awaitable[str]],
) -> Walk | None:
    """Plan the requests. Returns None if they would not be exact, since an answer changes how the prompt is
    tokenized.

    Args:
        continuations: the answers.
        begun: the start of the answer that the prompt has already; may be empty.
        tokenize: returns the tokens of the prompt and a started answer.
        detokenize: returns the text of tokens.

    Raises:
        RequestError: the tokenizer could not be asked.
    """
    prompt = tuple(await tokenize(begun))
    whole = await _gather(tokenize, [continued(begun, name) for name in continuations])
    if any(tuple(tokens[: len(prompt)]) != prompt for tokens in whole):
        return None
    answers = [tuple(tokens[len(prompt) :]) for tokens in whole]
    beginnings = [path for path in next_tokens(answers) if path]
    texts: dict[Path, str] = {(): begun}
    # Templates may add the space before an answer, and tokenizers may drop it.
    for space in (" ", "") if begun else ("", " "):
        missing = [path for path in beginnings if path not in texts]
        written = [begun + space + text.lstrip() for text in await _gather(detokenize, missing)]
        tokenized = await _gather(tokenize, written)
        texts |= {
            path: text
            for path, text, tokens in zip(missing, written, tokenized, strict=True)
            if tuple(tokens) == prompt + path
        }
    possible = [
        answer if all(answer[:i] in texts for i in range(len(answer))) else None for answer in answers
    ]
    steps = (
        (path, texts[path], tokens[i : i + WIDEST])
        for path, tokens in next_tokens([answer for answer in possible if answer is not None]).items()
        for i in range(0, len(tokens), WIDEST)
    )
    return Walk(tuple(sorted(steps, key=lambda step: len(step[0]))), tuple(possible))


class Walks:
    """Plans for a server, each made once for all images.

    Args:
        transport: the connection to it.
        build: builds a request from messages and a started answer.
    """

    def __init__(self, transport: ChatTransport, build: Callable[[Sequence[Message], str], Payload]) -> None:
        self._transport, self._build = transport, build
        self._known: dict[tuple[Any, ...], Walk | None] = {}
        self._lock = asyncio.Lock()

    async def plan(self, request: Request) -> Walk | None:
        """Return what to ask for; None if the server or its tokenizer cannot."""
        asked, begun = started(request)
        words = tuple(replace(message, content=(message.text,)) for message in asked)
        key = (words, begun, request.continuations)
        async with self._lock:
            if key not in self._known:
                if len(self._known) >= KEPT:
                    self._known.pop(next(iter(self._known)))
                self._known[key] = await self._plan(*key)
            return self._known[key]

    async def _plan(self, words: tuple[Message, ...], begun: str, names: tuple[str, ...]) -> Walk | None:
        model = self._build(words, begun).body["model"]

        def tokenize(text: str) -> Awaitable[list[int]]:
            body = self._build(words, text).body
            return self._transport.tokenize({name: body[name] for name in PROMPT if name in body})

        def detokenize(tokens: Path) -> Awaitable[str]:
            return self._transport.detokenize({"model": model, "tokens": tokens})

        try:
            return await plan(names, begun, tokenize, detokenize)
        except RequestError as error:
            log.info("the server's tokenizer could not be asked (%s)", error)
            return None


def started(request: Request) -> tuple[tuple[Message, ...], str]:
    """Return a request's messages without a started answer, and that answer."""
    *messages, last = request.messages
    return (tuple(messages), last.text) if last.role == "assistant" else (request.messages, "")


def continued(begun: str, name: str) -> str:
    """Return a started answer with a name as its end."""
    return f"{begun} {name}" if begun else name


def next_tokens(answers: Sequence[Path]) -> dict[Path, tuple[int, ...]]:
    """Return the tokens that follow each beginning in some answer.

    >>> next_tokens([(7, 8), (7, 9), (5,)])
    {(): (5, 7), (7,): (8, 9)}
    """
    following: dict[Path, set[int]] = {}
    for answer in answers:
        for i, token in enumerate(answer):
            following.setdefault(answer[:i], set()).add(token)
    return {path: tuple(sorted(tokens)) for path, tokens in following.items()}


def scores_of(walk: Walk, replies: Sequence[Mapping[str, Any]]) -> list[Score | None] | None:
    """Return the score of each answer with tokens from the completions to the steps; None if a server did not
    list the tokens that it was asked for, as older ones do not.

    Raises:
        RequestError: a broken answer.
    """
    known: dict[Path, float] = {}
    for (path, _, wanted), data in zip(walk.steps, replies, strict=True):
        listed = _listed(data)
        if any(token not in listed for token in wanted):
            return None
        known |= {(*path, token): listed[token] for token in wanted}
    return [
        None
        if answer is None
        else Score(sum(known[answer[:i]] for i in range(1, len(answer) + 1)), len(answer))
        for answer in walk.answers
    ]


def _listed(data: Mapping[str, Any]) -> dict[int, float]:
    """Return the log-probabilities of an answer's first token by the numbers of tokens."""
    numbered = ((token.removeprefix("token_id:"), value) for token, value in top_tokens(data) or [])
    return {int(number): value for number, value in numbered if number.isdecimal()}


async def _gather(ask: Callable[[T], Awaitable[R]], given: Sequence[T]) -> list[R]:
    free = asyncio.Semaphore(AT_ONCE)

    async def one(value: T) -> R:
        async with free:
            return await ask(value)

    return list(await asyncio.gather(*map(one, given)))
