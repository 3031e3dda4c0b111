"""URLs that may be stored, and keys that may not."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from snellen._util.redaction import guard, redact
from snellen.errors import BadOption, ModelError

__all__ = ["ApiKey", "address_of", "storable_option"]


def address_of(option: str, address: str) -> str:
    """Return a server's URL in a form that may be stored with a run, without a trailing slash.

    Raises:
        BadOption: it is invalid, or contains a user name, a password or a query, which must not be stored.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise BadOption(f"{option}: not a URL ({redact(str(error))}).") from error
    if parts.username is not None or parts.password is not None:
        raise BadOption(
            f"{option}: the URL contains a user name or a password, and URLs are stored with runs. "
            "Put the key into an environment variable and pass its name: -M api_key_env=NAME"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        shown = redact(address.partition("?")[0])
        raise BadOption(f"{option}={shown} is not allowed; allowed: http://HOST/PATH or https://HOST/PATH.")
    return address.rstrip("/")


def storable_option(option: str, text: str | None) -> str | None:
    """Return an option's text, which is stored with runs.

    Raises:
        BadOption: it looks like a secret.
    """
    if text is not None and redact(text) != text:
        raise BadOption(
            f"{option} looks like a key or a password (so it is not shown), and options are "
            "stored with runs. Put the key into an environment variable and pass its name: -M "
            "api_key_env=NAME"
        )
    return text


class ApiKey:
    """A key in the environment. Its value is redacted everywhere once it is known, and never part of this
    object's representation.

    Args:
        variable: the environment variable's name.
        needed: whether a key is required.

    Raises:
        BadOption: the variable's name is invalid; it may be the key itself, so it is not shown.
    """

    def __init__(self, variable: str, *, needed: bool) -> None:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", variable):
            raise BadOption(
                "api_key_env is the NAME of an environment variable, in capitals, such as MY_PROVIDER_KEY; "
                "the value is not such a name (and is not shown, since it may be a key)."
            )
        self.variable, self.needed = variable, needed
        guard(self.value)

    @property
    def value(self) -> str:
        """The key, or an empty text."""
        return os.environ.get(self.variable, "").strip()

    def check(self) -> None:
        """Refuse a missing key if one is required, and a key that no request can carry.

        Raises:
            ModelError: as stated.
        """
        if not (self.value.isascii() and self.value.isprintable()):
            raise ModelError(
                f"The key in the environment variable {self.variable} contains characters that no key has "
                "(it "
                "is not shown). Set it again."
            )
        if self.needed and not self.value:
            raise ModelError(
                f"No key: the environment variable {self.variable} is not set. "
                f"Set it: export {self.variable}=…"
            )
