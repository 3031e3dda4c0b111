"""What goes over the wire, whatever is spoken: which images, how much of an answer, JSON, patience."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from snellen.models.remote.retry import RequestError

__all__ = ["FORMATS", "MAX_ANSWER", "MAX_IMAGE", "at_most", "parse", "retry_after"]

#: What an answer may hold, in bytes: a server that sends more is not answering.
MAX_ANSWER = 8 * 2**20
#: What every server takes (Pillow's names), and how large an image may be before it is shrunk.
FORMATS = frozenset({"JPEG", "PNG", "WEBP", "GIF"})
MAX_IMAGE = 4_500_000  # base64 makes it 6 MB, and Anthropic refuses more than 5 MB of bytes


async def at_most(chunks: AsyncIterator[bytes], most: int) -> bytes:
    """All bytes of an answer.

    Raises:
        RequestError: there are more.
    """
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        if len(data) > most:
            raise RequestError(f"an answer of more than {most:,} bytes", again=False, billed=True)
    return bytes(data)


def parse(text: bytes) -> Any:
    """The JSON that an answer is.

    Raises:
        RequestError: it is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        shown = text[:80].decode("utf-8", "replace")
        raise RequestError(f"an answer that is no JSON: {shown!r}", billed=True) from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of patience that a server asks for (RFC 9110, 10.2.3: a number or a date; and milliseconds
    in a header of OpenAI's).
    """
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(milliseconds) / 1000)
        if (value := headers.get("retry-after")) is None:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
