"""Transport helpers for all protocols: size limits, JSON, refusals, Retry-After."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from snellen.errors import require
from snellen.models.remote.faults import error_in, fault
from snellen.models.remote.retry import RequestError

__all__ = ["MAX_ANSWER", "at_most", "exhausted", "in_base64", "parse", "refusal", "retry_after"]

#: The most bytes in an answer; more is not an answer.
MAX_ANSWER = 8 * 2**20


def in_base64(data: bytes) -> bytes:
    """Encode bytes in base64. Python's own takes as long for an image as reading and hashing it.

    Raises:
        MissingExtra: pybase64 is not installed.
    """
    text: bytes = require("pybase64", "api", "A model behind an address").b64encode(data)
    return text


async def at_most(chunks: AsyncIterator[bytes], most: int) -> bytes:
    """Read an answer up to a limit.

    Raises:
        RequestError: it is larger.
    """
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        if len(data) > most:
            raise RequestError(f"an answer of more than {most:,} bytes", again=False, billed=True)
    return bytes(data)


def parse(text: bytes) -> Any:
    """Parse an answer as JSON: in UTF-8 or Latin-1, also as a stream of events.

    Raises:
        RequestError: it is not JSON.
    """
    try:
        told = text.decode("utf-8-sig")
    except UnicodeDecodeError:
        told = text.decode("latin-1")
    try:
        if re.match(r"\s*(data|event|id|retry)?:", told):
            return _whole([json.loads(data) for data in _events(told)])
        return json.loads(told)
    except ValueError as error:
        raise RequestError(f"the answer is not JSON: {told[:80]!r}", billed=True) from error


def refusal(status: int, body: bytes, plain: str, headers: Mapping[str, str]) -> RequestError:
    """Explain a status other than 200.

    Args:
        status: the status.
        body: what came with it.
        plain: its words, if they are not JSON.
        headers: with Retry-After.
    """
    try:
        found = error_in(json.loads(body))
    except ValueError:
        found = None
    said, codes = found or (plain, [])
    return fault(status, said, codes, after=retry_after(headers))


def _events(text: str) -> Iterator[str]:
    """Return the data of server-sent events (WHATWG HTML, 9.2), without the end mark."""
    for block in re.split(r"\r?\n\r?\n", text):
        lines = [line[5:].removeprefix(" ") for line in block.splitlines() if line.startswith("data:")]
        if lines and (data := "\n".join(lines)).strip() != "[DONE]":
            yield data


def _whole(events: Sequence[Any]) -> Any:
    """Return the answer that a stream's events add up to: a whole completion, or pieces of its first
    choice.
    """
    pieces = [event for event in events if isinstance(event, dict)]
    whole: dict[str, Any] = {}
    message: dict[str, str] = {}
    finish = None
    for piece in pieces:
        whole |= {name: value for name, value in piece.items() if value is not None and name != "choices"}
        for choice in piece.get("choices") or []:
            if "message" in choice:
                return piece
            if choice.get("index", 0) == 0:
                finish = choice.get("finish_reason") or finish
                for name, value in (choice.get("delta") or {}).items():
                    if isinstance(value, str) and name != "role":
                        message[name] = message.get(name, "") + value
    if not message and finish is None:
        return pieces[-1] if pieces else {}
    return {**whole, "choices": [{"index": 0, "message": message, "finish_reason": finish}]}


#: Headers of how many requests or tokens are left, and when there will be more: OpenAI's (also those of
#: Groq, Mistral, xAI and OpenRouter) and Anthropic's.
_LIMITS = [
    *((f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}") for what in ("requests", "tokens")),
    *(
        (f"anthropic-ratelimit-{what}-remaining", f"anthropic-ratelimit-{what}-reset")
        for what in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
]
#: The longest pause for such a header; beyond, the server may say so itself.
LONGEST_PAUSE = 120.0


def exhausted(headers: Mapping[str, str]) -> float:
    """Return the seconds until a server takes requests again, as its rate-limit headers say; 0 at once."""
    waits = [
        _until(headers.get(reset, "")) for left, reset in _LIMITS if headers.get(left, "").strip() == "0"
    ]
    return min(max(waits, default=0.0), LONGEST_PAUSE)


def _until(text: str) -> float:
    """Return the seconds of a reset: ``1s``, ``6m0s``, ``20ms``, seconds, or a moment (RFC 3339)."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
    if re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h|d)?)+", text):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", text)
        seconds = sum(float(number) * units[unit] for number, unit in parts)
        return seconds if seconds < 10 * units["d"] else 0.0  # else a moment, in another unit
    try:
        return max(0.0, (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in Retry-After (RFC 9110, 10.2.3: a number or a date), the milliseconds in
    OpenAI's own header, or what the rate-limit headers say.
    """
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(milliseconds) / 1000)
        if (value := headers.get("retry-after")) is None:
            return exhausted(headers) or None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
