"""A PostgreSQL server to test against."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
import warnings
from pathlib import Path
from typing import Any


class Postgres:
    """A server that listens on a socket in its own folder; it starts when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = None
        self._made = 0
        self._controlled = threading.Lock()

    def _started(self) -> Any:
        if self._server is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a package of the server's
                import pgserver

            self._server = pgserver.get_server(self._folder, cleanup_mode="stop")
        return self._server

    def database(self) -> str:
        """The address of a new, empty database."""
        self._made += 1
        name = f"test{self._made}"
        self._started().psql(f"CREATE DATABASE {name};")
        return str(self._started().get_uri(name))

    def control(self, *words: str) -> None:
        """Run pg_ctl with these words, such as ``restart -m immediate``. One waits for another."""
        with self._controlled:
            self._control(*words)

    def _control(self, *words: str) -> None:
        from pgserver._commands import pg_ctl

        server = self._started()
        for tries_left in reversed(range(5)):
            try:
                pg_ctl([*words, "-t", "30"], pgdata=server.pgdata, user=server.system_user)
                return
            # A postmaster that forks may miss the signal; what an ended one left may hold its memory a while.
            except subprocess.CalledProcessError:
                if not tries_left:
                    raise
                time.sleep(0.5)

    def stop(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)
