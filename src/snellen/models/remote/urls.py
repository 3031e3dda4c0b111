"""URLs that may be stored, and keys that may not."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
import subprocess
import threading
import time
from urllib.parse import urlsplit

from snellen._util.redaction import guard, redact
from snellen.errors import BadOption, ModelError

__all__ = ["ApiKey", "address_of", "chat_address", "storable_option"]


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
    odd = any(sign.isspace() or sign in "?#" for sign in address)
    if parts.scheme not in ("http", "https") or not parts.hostname or odd:
        shown = redact(address.partition("?")[0])
        raise BadOption(f"{option}={shown} is not allowed; allowed: http://HOST/PATH or https://HOST/PATH.")
    return address.rstrip("/")


def chat_address(option: str, address: str) -> str:
    """Return the base URL of a chat server, under which ``/chat/completions`` lies.

    Raises:
        BadOption: as for :func:`address_of`; or it is the whole address of an endpoint, or has a query.
    """
    head, _, query = address.partition("?")
    version = re.search(r"(?:^|&)api-version=([\w.-]+)", query)
    for tail in ("/chat/completions", "/completions", "/responses", "/models"):
        if head.rstrip("/").endswith(tail):
            more = f" -M api_version={version[1]}" if version else ""
            raise BadOption(
                f"{option} is the address before {tail}; set -M "
                f"{option}={redact(head.rstrip('/').removesuffix(tail))}{more}"
            )
    if version:
        raise BadOption(f"{option} has no query; set -M {option}={redact(head)} -M api_version={version[1]}")
    return address_of(option, address)


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


#: Seconds after which a command is asked for the key again, and after which one that failed is.
FRESH, PATIENCE = 300.0, 5.0


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
        self._printed, self._told, self._refused = "", -math.inf, ""
        self._failed, self._problem = -math.inf, ""
        self._asking = threading.Lock()
        guard(os.environ.get(variable, "").strip())

    async def current(self) -> str:
        """Return :attr:`value`; a command is run in a thread.

        Raises:
            ModelError: the command fails.
        """
        return await asyncio.to_thread(lambda: self.value) if self._stale else self.value

    @property
    def _stale(self) -> bool:
        return bool(self._command) and time.monotonic() - self._told > FRESH

    @property
    def _command(self) -> str:
        return os.environ.get(f"{self.variable}_COMMAND", "").strip()

    @property
    def value(self) -> str:
        """The key, or an empty text; if the variable ``…_COMMAND`` is set, what that command prints, which
        is asked again after five minutes. Commands come from the environment alone: files travel.

        Raises:
            ModelError: the command fails, and no earlier value is known that the server has not refused.
        """
        if not self._command:
            return os.environ.get(self.variable, "").strip()
        with self._asking:  # requests that find it stale at once need one answer
            if self._stale:
                self._refresh()
            return self._printed

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._failed > PATIENCE:
            try:
                self._printed, self._told = self._run(self._command), now
                guard(self._printed)
                return
            except ModelError as error:
                self._failed, self._problem = time.monotonic(), str(error)
        if not self._printed:
            raise ModelError(self._problem)

    def expired(self, sent: str) -> bool:
        """Take note that the server refused a value; return whether a command may print another."""
        if not self._command:
            return False
        with self._asking:
            if self._printed == sent:
                if sent == self._refused:  # the command prints it again
                    return False
                self._refused, self._printed, self._told = sent, "", -math.inf
            return True

    def _run(self, command: str) -> str:
        try:
            done = subprocess.run(  # the user's own command, without a shell
                shlex.split(command), capture_output=True, text=True, timeout=60, check=True
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise ModelError(
                f"The command in the environment variable {self.variable}_COMMAND failed "
                f"({type(error).__name__}). Run it by hand: it must print a key, and nothing else."
            ) from None
        value = done.stdout.strip()
        self._refuse_odd(value)
        return value

    def _refuse_odd(self, value: str) -> None:
        if not (value.isascii() and value.isprintable()):
            raise ModelError(
                f"The key in the environment variable {self.variable} contains characters that no key has "
                "(it is not shown). Set it again."
            )

    def check(self) -> None:
        """Refuse a missing key if one is required, and a key that no request can carry.

        Raises:
            ModelError: as stated.
        """
        self._refuse_odd(self.value)
        if self.needed and not self.value:
            raise ModelError(
                f"No key: the environment variable {self.variable} is not set. "
                f"Set it: export {self.variable}=… (or {self.variable}_COMMAND, a command that prints it)"
            )
