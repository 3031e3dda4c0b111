"""Remove secrets from everything that is stored, logged or shown."""

from __future__ import annotations

import re

__all__ = ["guard", "redact", "storable"]

#: Replaces a secret.
MASK = "[redacted]"
#: Secret values of this process: keys read from the environment.
_secrets: set[str] = set()

#: Patterns of secrets: the user part of a URL, bearer tokens, keys in the formats of the providers,
#: and parameters with such names.
_PATTERNS = (
    (re.compile(r"(?<=://)[^/\s@\"'<>]+@"), ""),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"\b(?:sk-[\w-]{16,}|(?:hf|gsk)_\w{16,}|xai-\w{16,}|AIza[\w-]{20,})"), MASK),
    (re.compile(r"(?i)\b(api[-_]?key|access[-_]?token|token|secret|password)=[^&\s\"']+"), rf"\1={MASK}"),
)


def guard(secret: str) -> None:
    """Register a secret value to redact from now on. Placeholders that local servers accept as a key
    ("none", "EMPTY", "ollama") are not secrets, and masking them would change answers.
    """
    mixed = any(c.isdigit() for c in secret) and any(c.isalpha() for c in secret)
    if len(secret) >= (8 if mixed else 16):
        _secrets.add(secret)


def redact(text: str) -> str:
    """Return the text without registered secrets and without anything that looks like a secret.

    >>> redact("https://me:hunter2@example.com/v1?api_key=abc")
    'https://example.com/v1?api_key=[redacted]'
    """
    text = _masked(text)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def storable(text: str) -> str:
    r"""Return the text in a form that every database accepts: NUL and lone surrogates are replaced, and
    registered secrets are masked. Text that only looks like a secret stays as the model wrote it.

    >>> storable("a\0b")
    'a\ufffdb'
    """
    return _masked(text).replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _masked(text: str) -> str:
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
