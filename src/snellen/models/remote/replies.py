"""Convert answers of an OpenAI-compatible server to responses. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from snellen.metrics.stats import log_sum
from snellen.models.remote.faults import error_in, fault
from snellen.models.remote.retry import RequestError
from snellen.parsing import split_thinking
from snellen.types import Outcome, Response, Score, Usage

__all__ = [
    "choices",
    "continuation_scores",
    "next_token_scores",
    "others_are_negligible",
    "prompt_tokens",
    "read_reply",
    "top_tokens",
    "usage_of",
]

#: Finish reasons of whole answers, of those that were cut off, and of filtered ones. All others are errors:
#: ``error`` (OpenRouter), ``abort`` (vLLM), ``insufficient_system_resource`` (DeepSeek).
WHOLE = frozenset({"", "stop", "end_turn", "stop_sequence", "eos", "eos_token", "completed", "tool_calls"})
CUT_OFF = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})
FILTERED = frozenset(
    {
        *("content_filter", "content_filtered", "safety", "image_safety", "recitation", "prohibited_content"),
        *("blocklist", "spii", "refusal", "sensitive"),
    }
)


def choices(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the choices of a chat completion.

    Raises:
        RequestError: there are none: an error object instead, or a broken answer.
    """
    if found := error_in(data):
        raise fault(None, *found)
    listed = data.get("choices")
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], Mapping):
        raise RequestError("the answer has no choices")
    given = [choice for choice in listed if isinstance(choice, Mapping)]
    first = min(given, key=lambda choice: _natural(choice.get("index")))
    if found := error_in({"error": first.get("error")} if first.get("error") else None):
        raise fault(None, *found, billed=True)
    return [first, *(choice for choice in given if choice is not first)]


def read_reply(data: Mapping[str, Any]) -> Response:
    """Convert a chat completion to a response: refusals, content filters and truncation become outcomes;
    reasoning is separated.

    Raises:
        RequestError: it is not one.
    """
    choice = choices(data)[0]
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise RequestError("the answer has no message")
    text, thinking = _texts(message)
    finish = str(choice.get("finish_reason") or "").lower()[:50]
    outcome, reason = Outcome.OK, ""
    if refusal := message.get("refusal"):
        outcome, reason = Outcome.REFUSED, str(refusal)
    elif re.split(r"[:\s]", finish)[0] in FILTERED:
        outcome, reason = Outcome.REFUSED, finish
    elif finish in CUT_OFF:
        outcome, reason = Outcome.TRUNCATED, "cut off at max_tokens"
    elif finish not in WHOLE:
        raise RequestError(f"the answer ended by {finish!r}", billed=True)
    elif not text.strip():
        outcome, reason = Outcome.UNPARSED, "an empty answer" + (" after reasoning" if thinking else "")
    _, into, out, _ = usage_of(data)
    return Response(
        text,
        outcome=outcome,
        reason=reason,
        prompt_tokens=into,
        completion_tokens=out,
        thinking=thinking,
        meta=_meta(data, finish),
    )


def _texts(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return answer and reasoning, wherever a server puts the latter: a field, a part, or tags in the
    text.
    """
    content = message.get("content")
    thoughts = [message.get(field) for field in ("reasoning_content", "reasoning", "thinking")]
    thinking = [text for text in thoughts if isinstance(text, str) and text][:1]
    parts = content if isinstance(content, list) else [content]
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
        elif isinstance(part, Mapping) and part.get("type") == "thinking":
            inner = part.get("thinking")
            thinking += [inner] if isinstance(inner, str) else [_texts({"content": inner})[0]]
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            text += part["text"]
    thought, answer = split_thinking(text)
    return (answer if thought else text), "\n".join([*thinking, *([thought] if thought else [])])


def _meta(data: Mapping[str, Any], finish: str) -> dict[str, Any]:
    """Return the facts worth keeping from a server's answer."""
    meta = {name: data[name] for name in ("model", "id", "system_fingerprint") if data.get(name)}
    details = data.get("usage")
    if isinstance(details, Mapping):
        numbers = {
            f"{group.removesuffix('_details')}.{name}": value
            for group, values in details.items()
            if isinstance(values, Mapping)
            for name, value in values.items()
            if isinstance(value, int | float) and value and math.isfinite(value)
            if re.fullmatch(r"[a-z_]{1,80}", f"{group}{name}")
        }
        meta |= {"usage": numbers} if numbers else {}
    kept = {k: v if k == "usage" else str(v)[:200] for k, v in meta.items()}
    cached = usage_of(data).cached_tokens
    return {**kept, **({"cached_tokens": cached} if cached else {}), "finish": finish}


def next_token_scores(
    data: Mapping[str, Any],
    continuations: Sequence[str],
    merge: Callable[[Sequence[float]], float] = log_sum,
) -> tuple[Score, ...]:
    """Return the log-probability that the answer starts with each continuation, among the top next tokens
    (``top_logprobs``);
    -inf for others. Tokens that differ only in spaces are the same answer.

    Args:
        data: the completion.
        continuations: the answers.
        merge: combines the log-probabilities of such tokens.

    Raises:
        RequestError: the server returned none.
    """
    if (top := top_tokens(data)) is None:
        raise RequestError(
            "the server returned no logprobs for the answer; parse its text (-P read=text) or set "
            "scores=none",
            again=False,
        )
    likely = _likely(top)
    if not likely:
        raise RequestError("the server returned no logprobs for the answer's first token", again=False)
    found = (likely.get(name.strip()) for name in continuations)
    return tuple(Score(merge(values) if values else -math.inf, 1) for values in found)


def top_tokens(data: Mapping[str, Any]) -> list[tuple[str, float]] | None:
    """Return the tokens that are listed for an answer's first position, with their log-probabilities; None if
    the server returned no position.
    """
    given = choices(data)[0].get("logprobs")
    content = given.get("content") if isinstance(given, Mapping) else None
    if not isinstance(content, list) or not content:
        return None
    return [
        (str(entry.get("token", "")), float(value))
        for entry in content[0].get("top_logprobs") or []
        if isinstance(value := entry.get("logprob"), int | float)
    ]


def _likely(top: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    """Return log-probabilities by their tokens' text without spaces."""
    likely: dict[str, list[float]] = {}
    for token, value in top:
        likely.setdefault(token.strip(), []).append(value)
    return likely


#: The part of the probability of all answers that those not seen may have.
NEGLIGIBLE = 1e-4


def others_are_negligible(
    data: Mapping[str, Any], continuations: Sequence[str], scores: Sequence[Score]
) -> bool:
    """Return whether answers without a token among the top next tokens have hardly any probability: at most
    that of tokens that they begin with, and of all that are not listed.
    """
    likely = _likely(top_tokens(data) or [])
    seen = sum(math.exp(score.value) for score in scores)
    missing = [
        name.strip() for name, score in zip(continuations, scores, strict=True) if math.isinf(score.value)
    ]
    listed = {token: sum(map(math.exp, values)) for token, values in likely.items()}
    begun = sum(p for token, p in listed.items() if any(name.startswith(token) for name in missing))
    rest = max(0.0, 1 - sum(listed.values()))
    return not missing or begun + rest <= NEGLIGIBLE * seen


def prompt_tokens(data: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the tokens of a prompt with their log-probabilities (vLLM's ``prompt_logprobs``); NaN for the
    first.

    Raises:
        RequestError: the server returned none.
    """
    given = data.get("prompt_logprobs")
    if not isinstance(given, list) or not given:
        raise RequestError(
            "the server returned no prompt_logprobs, as vLLM does; protocols without them: closed-set, "
            "binary, open-world",
            again=False,
        )
    tokens = []
    for entry in given:
        if not entry:
            tokens.append(("", math.nan))
            continue
        token, value = next(iter(entry.items()))  # the prompt's own token comes first
        if not isinstance(value.get("logprob"), int | float):
            raise RequestError(f"the server returned no log-probability of token {token}", again=False)
        tokens.append((str(token), float(value["logprob"])))
    return tokens


def continuation_scores(
    bare: Sequence[tuple[str, float]], continued: Sequence[Sequence[tuple[str, float]]]
) -> tuple[Score, ...]:
    """Return log-likelihoods of continuations. Each starts where its prompt's tokens diverge from the prompt
    alone; since a template may insert something in between, the earliest such position is used for all.
    """
    ends = []
    for tokens in continued:
        pairs = zip(bare, tokens, strict=False)
        ends.append(next((i for i, (a, b) in enumerate(pairs) if a[0] != b[0]), min(len(bare), len(tokens))))
    begin = min(ends, default=0)
    return tuple(
        Score(sum(value for _, value in tokens[begin:]), len(tokens) - begin) for tokens in continued
    )


def usage_of(data: Mapping[str, Any]) -> Usage:
    """Return the tokens in an answer's usage; 0 if absent. The number of cached ones is OpenAI's
    ``prompt_tokens_details.cached_tokens``, DeepSeek's ``prompt_cache_hit_tokens``, or Moonshot's
    ``cached_tokens``.
    """
    usage = data.get("usage")
    if not isinstance(usage, Mapping):
        return Usage(1, 0, 0)
    details = usage.get("prompt_tokens_details")
    nested = details.get("cached_tokens") if isinstance(details, Mapping) else None
    cached = max(map(_natural, (nested, usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens"))))
    into = _natural(usage.get("prompt_tokens"))
    return Usage(1, into, _natural(usage.get("completion_tokens")), min(cached, into))


def _natural(count: Any) -> int:
    """Return a number of tokens, or a position, as far as it can be read."""
    return count if type(count) is int and 0 <= count < 2**31 else 0
