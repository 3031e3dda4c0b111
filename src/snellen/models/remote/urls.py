"""Addresses that may be stored, and keys that may not."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from snellen._util.redaction import guard, redact
from snellen.errors import BadOption, ModelError

__all__ = ["ApiKey", "address_of", "storable_option"]


def address_of(option: str, address: str) -> str:
    """An address of a server that may be stored with a run, without the slash at its end.

    Raises:
        BadOption: it is none, or holds a user's name, a password or a query: nothing for a store.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise BadOption(f"{option}: not an address ({redact(str(error))}).") from error
    if parts.username is not None or parts.password is not None:
        raise BadOption(
            f"{option}: the address holds a user's name or a password, and addresses are stored with runs. "
            "Put the key into an environment variable and name it: -M api_key_env=NAME"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        shown = redact(address.partition("?")[0])
        raise BadOption(f"{option}={shown} is not allowed; allowed: http://HOST/PATH or https://HOST/PATH.")
    return address.rstrip("/")


def storable_option(option: str, text: str | None) -> str | None:
    """An option's text, which is stored with runs.

    Raises:
        BadOption: it holds what looks like a secret.
    """
    if text is not None and redact(text) != text:
        raise BadOption(
            f"{option} holds what looks like a key or a password (so it is not shown), and options are "
            "stored with runs. Put the key into an environment variable and name it: -M api_key_env=NAME"
        )
    return text


class ApiKey:
    """A key in the environment. Its value is redacted from everything once it is known, and stands in no
    representation of this.

    Args:
        variable: the environment variable's name.
        needed: whether there must be one.

    Raises:
        BadOption: the name of the variable is none; perhaps it is the key itself, so it is not shown.
    """

    def __init__(self, variable: str, *, needed: bool) -> None:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", variable):
            raise BadOption(
                "api_key_env is the NAME of an environment variable, in capitals, such as MY_PROVIDER_KEY; "
                "what was given is no such name (and is not shown, for it may be a key)."
            )
        self.variable, self.needed = variable, needed
        guard(self.value)

    @property
    def value(self) -> str:
        """The key, or an empty text."""
        return os.environ.get(self.variable, "").strip()

    def check(self) -> None:
        """Refuse where there is none and must be one, and one that no request can carry.

        Raises:
            ModelError: as said.
        """
        if not (self.value.isascii() and self.value.isprintable()):
            raise ModelError(
                f"The key in the environment variable {self.variable} holds characters that no key has (it "
                "is not shown). Set it again."
            )
        if self.needed and not self.value:
            raise ModelError(
                f"No key: the environment variable {self.variable} is not set. "
                f"Set it: export {self.variable}=…"
            )
