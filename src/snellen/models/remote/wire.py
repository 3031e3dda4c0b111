"""Transport helpers for all protocols: image formats, size limits, JSON, Retry-After."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from snellen.models.remote.retry import RequestError

__all__ = ["FORMATS", "MAX_ANSWER", "MAX_IMAGE", "at_most", "parse", "retry_after"]

#: The most bytes in an answer; more is not an answer.
MAX_ANSWER = 8 * 2**20
#: Formats that every server accepts (Pillow's names), and the size above which images are shrunk.
FORMATS = frozenset({"JPEG", "PNG", "WEBP", "GIF"})
MAX_IMAGE = 4_500_000  # 6 MB as base64, and Anthropic rejects more than 5 MB of bytes


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
    """Parse an answer as JSON.

    Raises:
        RequestError: it is not JSON.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        shown = text[:80].decode("utf-8", "replace")
        raise RequestError(f"the answer is not JSON: {shown!r}", billed=True) from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in Retry-After (RFC 9110, 10.2.3: a number or a date), or the milliseconds in
    OpenAI's own header.
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
