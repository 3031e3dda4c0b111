"""A vLLM server of this process's own, and the model that asks it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from snellen._util.redaction import guard
from snellen.errors import MissingExtra, ModelError
from snellen.models.huggingface.checkpoint import hash_folder
from snellen.models.remote.chat import ChatModel
from snellen.models.remote.urls import ApiKey

__all__ = ["LocalServer", "VllmLocal"]

log = logging.getLogger("snellen")
#: Seconds between looks at a server that starts.
BEAT = 0.2
#: Errors in its log; the most of them that a message shows, and characters of each.
_ERROR = re.compile(r"\b(?:\w*Error|Exception): .+")
ERRORS, LONGEST = 3, 400
#: What ends a program with this process.
LEASH = (sys.executable, "-m", "snellen._util.leash")


class OwnKey(ApiKey):
    """The key of a server of this process's own: drawn at random, and known to nobody else."""

    def __init__(self) -> None:
        super().__init__("VLLM_API_KEY", needed=False)
        self._own = secrets.token_urlsafe(24)
        guard(self._own)

    @property
    def value(self) -> str:
        return self._own

    def expired(self, sent: str) -> bool:
        return False


class LocalServer:
    """A server that is started on loopback, and ends with this process, even if that is killed.

    Args:
        name: in messages.
        command: starts it, without its host and port.
        key: that it takes.
        patience: seconds until it must answer.
    """

    def __init__(self, name: str, command: Sequence[str], key: str, patience: float) -> None:
        self.name, self.command, self.patience = name, command, patience
        self.address = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._key, self._until = key, 0.0

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it. It answers later (see :meth:`answers`)."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        handle, name = tempfile.mkstemp(prefix="snellen-vllm-", suffix=".log")
        self._log, self.address = Path(name), f"http://127.0.0.1:{port}/v1"
        log.info("%s: starting vLLM; its log: %s", self.name, name)
        with os.fdopen(handle, "wb") as out:
            self._process = subprocess.Popen(
                [*LEASH, *self.command, "--host", "127.0.0.1", "--port", str(port)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={**os.environ, "VLLM_API_KEY": self._key},
                start_new_session=True,  # signals to this process and all with it do not end the leash first
            )
        self._until = time.monotonic() + self.patience

    def answers(self) -> bool:
        """Look once whether it answers yet.

        Raises:
            ModelError: it ended, or takes too long; the message has the errors of its log, which is kept
                then. Or it takes another key.
        """
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            self._end()
            raise ModelError(f"{self.name}: vLLM ended with status {status}. {self._said()}")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
        request = urllib.request.Request(  # noqa: S310  # an address on loopback
            f"{self.address}/models", headers={"Authorization": f"Bearer {self._key}"}
        )
        try:
            direct.open(request, timeout=5).close()
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                self._end()
                raise ModelError(
                    f"{self.name}: vLLM refuses the key that it was started with. {self._said()}"
                ) from error
        except (urllib.error.URLError, OSError):
            pass
        else:
            return True
        if time.monotonic() > self._until:
            self._end()
            late = f"vLLM did not answer within {self.patience:g} seconds (-M start_timeout=)"
            raise ModelError(f"{self.name}: {late}. {self._said()}")
        return False

    def _said(self) -> str:
        """Return what went wrong, by the server's log: its first errors, which cause the others."""
        assert self._log is not None
        text = self._log.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip() and "WARNING" not in line]
        known = [found[0] for line in lines if (found := _ERROR.search(line))]
        errors = list(dict.fromkeys(known))[:ERRORS] or lines[-ERRORS:]
        said = "says" if errors else "is empty"
        return "\n".join([f"Its log, {self._log}, {said}:", *(line[:LONGEST] for line in errors)]).rstrip(":")

    def _end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it with all its processes, and wait for them."""
        self._end()
        if self._log is not None:
            self._log.unlink(missing_ok=True)
            self._log = None


class VllmLocal(ChatModel):
    """See :mod:`.vllm_local`. The server starts on first use, and serves until the model is closed."""

    def __init__(
        self,
        *,
        path: str,
        arguments: Sequence[str],
        program: str,
        patience: float,
        known_as: str,
        **settings: Any,
    ) -> None:
        super().__init__(**{**settings, "name": known_as})
        self.path, self.arguments, self.program = path, tuple(arguments), program
        self.transport.key = OwnKey()
        command = [self._command() or program, "serve", path, "--served-model-name", self.model, *arguments]
        self.server = LocalServer(self.name, command, self.transport.key.value, patience)

    def identity(self) -> Mapping[str, Any]:
        known = {name: value for name, value in super().identity().items() if name != "address"}
        return {**known, "kind": "vllm-local", "weights": self._weights, "serve": list(self.arguments)}

    @cached_property
    def _weights(self) -> str:
        """A hash of the checkpoint's files; empty for one on the Hub."""
        folder = Path(self.path)
        return hash_folder(folder) if folder.is_dir() else ""

    def metadata(self) -> Mapping[str, Any]:
        return {**super().metadata(), "address": "a server started for it"}

    def check(self) -> None:
        super().check()
        command = self._command()
        if command is None or not os.access(command, os.X_OK):
            raise MissingExtra(
                f"{self.name}: the command {self.program} was not found, or cannot be run. Install vLLM: "
                "pip install 'snellen[vllm]', or name its command in another environment: "
                "-M program=/PATH/bin/vllm"
            )

    def _command(self) -> str | None:
        """Return where vLLM's command is: next to this Python, or on the path."""
        own = Path(sys.executable).parent / self.program  # a path that begins at the root stays as it is
        return str(own) if own.is_file() else shutil.which(self.program)

    def load(self) -> None:
        """Start the server, unless it runs, and wait until it answers. Within an event loop,
        :meth:`connect` waits instead, so that Ctrl-C is obeyed meanwhile.

        Raises:
            ModelError: as for :meth:`LocalServer.answers`.
        """
        if not self.server.runs:
            self.server.stop()
            self.server.start()
            self.transport.address = self.server.address
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            while not self.server.answers():
                time.sleep(BEAT)

    def close(self) -> None:
        self.server.stop()
        super().close()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[None]:
        self.load()
        try:
            while not await asyncio.to_thread(self.server.answers):
                await asyncio.sleep(BEAT)
        except asyncio.CancelledError:
            self.server.stop()
            raise
        async with super().connect():
            yield
