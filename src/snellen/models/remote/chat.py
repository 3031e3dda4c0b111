"""Models that speak the OpenAI chat protocol."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

from snellen._util.tokens import image_tokens, text_tokens
from snellen.errors import Stopped
from snellen.images import Image
from snellen.images.sending import as_sent
from snellen.models.marks import literal
from snellen.models.remote.base import RemoteModel
from snellen.models.remote.connection import check_connection
from snellen.models.remote.faults import Filtered, error_in, fault
from snellen.models.remote.guided import guide, unguided
from snellen.models.remote.prices import Prices
from snellen.models.remote.providers import ANYWHERE
from snellen.models.remote.reasoning import FirstReplies, Refused
from snellen.models.remote.replies import (
    continuation_scores,
    next_token_scores,
    others_are_negligible,
    prompt_tokens,
    read_reply,
)
from snellen.models.remote.retry import RequestError, RetryPolicy
from snellen.models.remote.transport import ChatTransport, Payload
from snellen.models.remote.walk import Walks, continued, scores_of, started
from snellen.models.remote.wire import exhausted, in_base64, parse
from snellen.types import Kind, Message, Outcome, Request, Response, Score, Usage

__all__ = ["ChatModel", "Settings", "completed"]

log = logging.getLogger(__name__)

#: The number of top next tokens to request: OpenAI's maximum.
TOP = 20
#: The most characters of an answer that may be a single token: yes, no, letters.
SHORT = 3
#: The most seconds to wait for what a server says of its tokenizer.
LONGEST_LOOK = 20.0
#: Tokens of an image at low detail, for GPT-4o.
LOW_DETAIL = 85

#: The prefix of image placeholders, which no text can guess.
_NONCE = f"image-{secrets.token_hex(16)}-"

Scores = Literal["none", "top", "prompt"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that can change an answer, in addition to the request: see the options of ``openai:``."""

    system: str | None = None
    temperature: float | None = 0.0
    max_tokens: int | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    detail: str | None = None
    max_side: int | None = None
    max_bytes: int = ANYWHERE.max_bytes
    formats: tuple[str, ...] = ANYWHERE.formats
    scores: Scores = "none"
    guided: Literal["none", "choice", "schema"] = "none"
    max_tokens_as: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"


def _mark(place: int) -> str:
    return f"{_NONCE}{place}."


class ChatModel(RemoteModel):
    """See :func:`snellen.models.remote.openai.openai`.

    Args:
        model: the server's name for it.
        transport: the connection to the server.
        max_images: the most in a request.
    """

    def __init__(
        self,
        *,
        name: str,
        model: str,
        transport: ChatTransport,
        settings: Settings,
        retry_policy: RetryPolicy,
        prices: Prices | None = None,
        max_images: int | None = None,
    ) -> None:
        super().__init__(name, transport.address, retry_policy, prices)
        self.model, self.settings = model, settings
        self._refused = Refused()
        self._special: bool | None = None
        self._walks: Walks | None = None
        self._max_images = max_images
        self.transport = transport
        if settings.scores != "prompt":
            self.hint = "vLLM servers provide likelihoods: vllm:NAME, or -M scores=prompt."
        more = {"none": set(), "top": {Kind.CHOOSE}, "prompt": {Kind.CHOOSE, Kind.SCORE}}[settings.scores]
        constrain = {Kind.CONSTRAIN} if settings.guided != "none" else set()
        self.kinds = frozenset({Kind.GENERATE, *more, *constrain})

    def identity(self) -> Mapping[str, Any]:
        settings = {k: v for k, v in vars(self.settings).items() if v not in (None, {})}
        if self.transport.api_version:
            settings["api_version"] = self.transport.api_version
        return {"kind": "openai", "model": self.model, "address": self.address, **settings}

    def check(self) -> None:
        self.transport.check()
        check_connection(self.transport.address, "A model behind an address")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[None]:
        self._first = FirstReplies()
        async with self.transport.connect(self.retry_policy.timeout, self.max_concurrency):
            self._special = await self._needs_special_tokens() if self.settings.scores == "prompt" else None
            self._walks = None if self._special is None else Walks(self.transport, self._started)
            yield

    async def _needs_special_tokens(self) -> bool | None:
        """Return whether vLLM must add the tokenizer's first special token: its template has none, but the
        tokenizer adds one, and so does transformers; vLLM leaves it out of chats. None if it does not say.
        """
        body = {"model": self.model, "messages": [{"role": "user", "content": "?"}]}
        try:
            async with asyncio.timeout(min(self.retry_policy.timeout, LONGEST_LOOK)):
                bare = await self.transport.tokenize({**body, "add_special_tokens": False})
                special = await self.transport.tokenize({**body, "add_special_tokens": True})
        except (RequestError, TimeoutError) as error:
            log.info("%s: whether prompts begin with a special token is not known (%s)", self.name, error)
            return None
        return special[1:] == bare and special[:1] != bare[:1]

    def advice(self, error: RequestError) -> str:
        if error.status in (401, 403) and not error.stop:
            return f"Check the key in the environment variable {self.transport.key.variable}."
        if error.status == 404:
            hint = "" if re.search(r"/(v\d|openai)", self.address) else "; most addresses end in /v1"
            return f"Check that {self.address} is correct and serves the model {self.model!r}{hint}."
        return ""

    def metadata(self) -> Mapping[str, Any]:
        facts: dict[str, Any] = {}
        if self._refused.names:
            facts["refused_parameters"] = sorted(self._refused.names)
        if self._special is not None:
            facts["add_special_tokens"] = self._special
        return {**super().metadata(), **facts}

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────

    async def ask(self, request: Request) -> Response:
        if self._max_images is not None and len(request.images) > self._max_images:
            raise RequestError(
                f"{len(request.images)} images, but the server takes at most {self._max_images}", again=False
            )
        if request.kind is Kind.SCORE:
            if self.settings.scores != "prompt":
                return await self._choose(request)
            walked = await self._walk(request)
            return walked or await self._choose_exactly(request) or await self._score(request)
        try:
            data = await self.send(self.payload(request))
        except Filtered as error:
            return Response(outcome=Outcome.REFUSED, reason=str(error), prompt=self._shown(request))
        reply = read_reply(data)
        if said := self._first.trouble(reply, self.settings.max_tokens or request.decoding.max_tokens):
            self._give_up(Stopped(f"{self.name} stopped: {said}."))
        if request.continuations and self.settings.guided == "schema":
            reply = replace(reply, text=unguided(reply.text))
        return replace(reply, prompt=self._shown(request))

    async def _choose(self, request: Request) -> Response:
        """Score short answers by the top next tokens."""
        data = await self.send(self.payload(request, max_tokens=1, logprobs=True, top_logprobs=TOP))
        scores = next_token_scores(data, request.continuations)
        return replace(_scored([read_reply(data)], scores), prompt=self._shown(request))

    async def _choose_exactly(self, request: Request) -> Response | None:
        """Score short answers by the next token: one request instead of one each. None if answers that are
        not among the top tokens may matter.
        """
        names = request.continuations
        if (
            not 0 < len(names) <= TOP
            or max(map(len, names)) > SHORT
            or request.messages[-1].role == "assistant"
        ):
            return None
        data = await self.send(self.payload(request, max_tokens=1, logprobs=True, top_logprobs=TOP))
        scores = next_token_scores(data, names, merge=max)
        if not others_are_negligible(data, names, scores):
            return None
        return replace(_scored([read_reply(data)], scores), prompt=self._shown(request))

    async def _walk(self, request: Request) -> Response | None:
        """Score continuations by the next tokens of what they share (see :mod:`.walk`). None if the server
        cannot.
        """
        if self._walks is None or (walk := await self._walks.plan(request)) is None:
            return None
        asked, _ = started(request)
        payloads = [
            self._started(
                asked, text, logprobs=True, logprob_token_ids=wanted, return_tokens_as_token_ids=True
            )
            for _, text, wanted in walk.steps
        ]
        # The first puts the prompt and its images into the server's cache.
        given = [await self.send(payload) for payload in payloads[:1]]
        given += await self._send_all(payloads[1:])
        if (scores := scores_of(walk, given)) is None:
            log.info(
                "%s: no log-probabilities of tokens by their numbers; prompt_logprobs are used", self.name
            )
            self._walks = None
            return None
        replies = [read_reply(data) for data in given]
        if unknown := [name for name, score in zip(request.continuations, scores, strict=True) if not score]:
            whole = await self._score(replace(request, continuations=tuple(unknown)))
            replies.append(whole)
            others = iter(whole.scores)
            scores = [score or next(others) for score in scores]
        return replace(_scored(replies, tuple(filter(None, scores))), prompt=self._shown(request))

    async def _score(self, request: Request) -> Response:
        """Score continuations by vLLM's ``prompt_logprobs``: of the prompt alone, and of the prompt with
        each continuation.
        """
        asked, begun = started(request)
        said = [begun, *(continued(begun, name) for name in request.continuations)]
        given = await self._send_all([self._started(asked, text, prompt_logprobs=0) for text in said])
        bare, *tokens = map(prompt_tokens, given)
        scores = continuation_scores(bare, tokens)
        return replace(_scored([read_reply(data) for data in given], scores), prompt=self._shown(request))

    async def _send_all(self, payloads: Sequence[Payload]) -> list[Mapping[str, Any]]:
        """Return the responses to all; if one fails for good, the others are useless."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.send(payload)) for payload in payloads]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    def _started(self, messages: Sequence[Message], said: str, **more: Any) -> Payload:
        """Build a request for one token, with these words as the start of the answer."""
        turns = (*messages, Message("assistant", (said,))) if said else messages
        return self.payload(Request(tuple(turns)), max_tokens=1, **more)

    def payload(self, request: Request, **more: Any) -> Payload:
        """Build the request in the protocol's form."""
        settings, decoding = self.settings, request.decoding
        places = count()
        messages = [self._turn(message, places) for message in request.messages]
        if settings.system is not None:
            messages.insert(0, {"role": "system", "content": settings.system})
        body: dict[str, Any] = {"model": self.model, "messages": messages}
        body[settings.max_tokens_as] = more.pop("max_tokens", settings.max_tokens or decoding.max_tokens)
        temperature = decoding.temperature or settings.temperature
        if temperature is not None:
            body["temperature"] = temperature
        if decoding.top_p != 1:
            body["top_p"] = decoding.top_p
        if settings.seed is not None or decoding.draw:
            body["seed"] = (settings.seed or 0) + decoding.draw
        if settings.reasoning_effort is not None:
            body["reasoning_effort"] = settings.reasoning_effort
        if request.kind is Kind.GENERATE and request.continuations:
            body |= guide(settings.guided, request.continuations)
        if self._special:
            body["add_special_tokens"] = True
        body |= settings.extra
        if request.messages[-1].role == "assistant":
            if settings.scores != "prompt":
                raise RequestError("only vLLM can continue a started answer (-P prefix=)", again=False)
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return Payload(body | more, request.images)

    def _turn(self, message: Message, places: Iterator[int]) -> dict[str, Any]:
        if not message.images:
            return {"role": message.role, "content": literal(message.text)}
        return {"role": message.role, "content": [self._part(part, places) for part in message.content]}

    def _part(self, part: str | Image, places: Iterator[int]) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": literal(part)}
        image = {"url": _mark(next(places))}
        if self.settings.detail is not None:
            image["detail"] = self.settings.detail
        return {"type": "image_url", "image_url": image}

    def encode(self, image: Image) -> bytes:
        settings = self.settings
        media, data = as_sent(image, settings.formats, settings.max_side, settings.max_bytes * 3 // 4)
        return b"data:%s;base64,%s" % (media.encode(), in_base64(data))

    async def render(self, payload: Payload) -> bytes:
        """Serialize the payload as JSON. Images are inserted as bytes, since encoding their base64 as text
        and scanning it for JSON escapes would dominate the cost.
        """
        text = json.dumps(self._refused.apply(payload.body)).encode()
        for place, image in enumerate(payload.images):
            text = text.replace(_mark(place).encode(), await self.encoded(image), 1)
        return text

    def _shown(self, request: Request) -> str:
        """Return the prompt as a person reads it; the request holds its images."""
        system = [f"system: {self.settings.system}"] if self.settings.system is not None else []
        turns = [
            f"{m.role}: " + "".join(literal(p) if isinstance(p, str) else "<image>\n" for p in m.content)
            for m in request.messages
        ]
        return "\n".join([*system, *turns])

    def estimate_tokens(self, payload: Payload) -> tuple[float, float]:
        text = len(str(payload.body["messages"]))
        into = text_tokens(text) + sum(image_tokens(image.size) for image in payload.images)
        limits = [payload.body.get(name) for name in ("max_tokens", "max_completion_tokens")]
        return into, max((float(n) for n in limits if isinstance(n, int | float)), default=0.0)

    def expects(self, request: Request) -> tuple[int, float, float]:
        _, into, out = super().expects(request)
        into += text_tokens(len(self.settings.system or ""))
        if self.settings.detail == "low":
            into += sum(LOW_DETAIL - image_tokens(image.size) for image in request.images)
        if request.kind is Kind.GENERATE:
            return 1, into, self.settings.max_tokens or out
        if self.settings.scores != "prompt":
            return 1, into, 1
        calls = 1 + len(request.continuations)
        return calls, calls * into + text_tokens(sum(map(len, request.continuations))), calls

    # ── one try ─────────────────────────────────────────────────────────────────────────────────────

    async def send_once(self, payload: Payload) -> Mapping[str, Any]:
        try:
            answer = await self.transport.post(await self.render(payload))
        except RequestError as error:
            raise self.learned(error, payload) from error
        if wait := exhausted(answer.headers):
            self._pace.pause(wait)
        return completed(parse(answer.text))

    def learned(self, error: RequestError, payload: Payload) -> RequestError:
        """Return the error, to be retried if a parameter was refused that can be left out."""
        if name := self._refused.learn(error.status, str(error), payload.body):
            log.warning("%s: the server refuses %s; it is left out", self.name, name)
            return RequestError(str(error), error.status, again=True)
        return error


def completed(data: Any) -> dict[str, Any]:
    """Return an answer's JSON as a chat completion.

    Raises:
        RequestError: it is none. Without choices, or with an error in one, it is worth a retry.
    """
    if not isinstance(data, dict):
        if found := error_in(data):
            raise fault(None, *found)
        raise RequestError(f"the answer is not a JSON object: {str(data)[:80]!r}")
    read_reply(data)
    return data


def _scored(replies: Sequence[Response], scores: tuple[Score, ...]) -> Response:
    """Merge the responses to the requests of one question."""
    usage = Usage.of(replies)
    return replace(
        replies[0],
        text="",
        scores=scores,
        outcome=Outcome.OK,  # a single token is intended
        reason="",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        meta={**replies[0].meta, **({"cached_tokens": usage.cached_tokens} if usage.cached_tokens else {})},
    )
