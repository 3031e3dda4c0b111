"""Secrets are taken out of whatever is stored, logged or shown."""

from __future__ import annotations

import re

__all__ = ["guard", "redact", "storable"]

#: What stands in a secret's place.
MASK = "[redacted]"
#: Values that are secret in this process: keys that were read from the environment.
_secrets: set[str] = set()

#: What looks like a secret, whoever wrote it: the user's part of an address, a bearer's token, keys as the
#: providers make them, and parameters of such names.
_PATTERNS = (
    (re.compile(r"(?<=://)[^/\s@\"'<>]+@"), ""),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"\b(?:sk-[\w-]{16,}|(?:hf|gsk)_\w{16,}|xai-\w{16,}|AIza[\w-]{20,})"), MASK),
    (re.compile(r"(?i)\b(api[-_]?key|access[-_]?token|token|secret|password)=[^&\s\"']+"), rf"\1={MASK}"),
)


def guard(secret: str) -> None:
    """Take this value out of everything that is redacted from now on. Words that servers of one's own are
    given for a key ("none", "EMPTY", "ollama") are none, and to mask them would change answers.
    """
    mixed = any(c.isdigit() for c in secret) and any(c.isalpha() for c in secret)
    if len(secret) >= (8 if mixed else 16):
        _secrets.add(secret)


def redact(text: str) -> str:
    """The text without guarded values and without what looks like a secret.

    >>> redact("https://me:hunter2@example.com/v1?api_key=abc")
    'https://example.com/v1?api_key=[redacted]'
    """
    text = _masked(text)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def storable(text: str) -> str:
    r"""The text as every database takes it: NUL and lone surrogates, which are no text, replaced. Guarded
    values are masked; what only looks like a secret stays as the model wrote it.

    >>> storable("a\0b")
    'a\ufffdb'
    """
    return _masked(text).replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _masked(text: str) -> str:
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
