"""The database of a workspace: SQLite in its folder, or PostgreSQL."""

from __future__ import annotations

import os
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from snellen.errors import BadOption, StoreError, require
from snellen.storage.schema import SCHEMA_VERSION, metadata

__all__ = ["PATIENCE", "Database", "Postgres", "Sqlite"]

T = TypeVar("T")
#: Seconds for which to retry a server that disappeared during a run.
PATIENCE = 300.0


class Database(ABC):
    """An open database.

    Attributes:
        name: its name in messages: a path, or a URL without a password.
        insert: the dialect's ``INSERT``, with ``ON CONFLICT``.
    """

    insert: Callable[[sa.Table], Any]

    def __init__(self, name: str, engine: sa.Engine) -> None:
        self.name, self.engine = name, engine
        weakref.finalize(self, engine.dispose)  # servers limit connections; SQLite warns of open ones

    def transact(self, work: Callable[[sa.Connection], T]) -> T:
        """Run and commit a transaction. It is retried if the connection is lost, possibly after the commit,
        so it must be idempotent.
        """
        with self.engine.begin() as connection:
            return work(connection)

    @abstractmethod
    def version(self, connection: sa.Connection) -> int:
        """Return the stored schema version; 0 if there is none."""

    @abstractmethod
    def set_version(self, connection: sa.Connection, version: int) -> None:
        """Store the schema version."""

    @abstractmethod
    def make(self) -> None:
        """Create missing tables. If several processes start at once, one of them does."""

    def _make(self, connection: sa.Connection) -> None:
        """Create them within an exclusive transaction."""
        if self.version(connection) == 0:
            metadata.create_all(connection)
            self.set_version(connection, SCHEMA_VERSION)

    def check(self) -> None:
        """Refuse a database written by another version of Snellen.

        Raises:
            StoreError: it was.
        """
        with self.engine.connect() as connection:
            version = self.version(connection)
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.name}: written by another version of Snellen (layout {version}; this one reads "
                f"{SCHEMA_VERSION}). Use that version, or another --workspace."
            )


class Sqlite(Database):
    """A file in the workspace's folder, readable by its owner only.

    Args:
        path: created if necessary.
    """

    insert = staticmethod(sqlite.insert)

    def __init__(self, path: Path) -> None:
        self._readonly = path.exists() and not os.access(path.parent, os.W_OK)
        if not self._readonly:
            path.touch(mode=0o600)
        # A read-only database without a write-ahead log has no writer.
        log = path.with_name(f"{path.name}-wal")
        alone = {} if log.exists() and log.stat().st_size else {"immutable": "1"}
        where = sa.URL.create("sqlite", database=str(path))
        if self._readonly:
            query = {"uri": "true", "mode": "ro", **alone}
            where = sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)
        super().__init__(str(path), sa.create_engine(where, connect_args={"timeout": 60}))
        sa.event.listen(self.engine, "connect", _configure)

    def version(self, connection: sa.Connection) -> int:
        return int(connection.execute(sa.text("PRAGMA user_version")).scalar_one())

    def set_version(self, connection: sa.Connection, version: int) -> None:
        connection.execute(sa.text(f"PRAGMA user_version = {version:d}"))

    def make(self) -> None:
        if self._readonly:
            return
        for patience in range(50, -1, -1):
            try:
                with self.engine.connect() as connection:
                    if self.version(connection) >= SCHEMA_VERSION:
                        return
                    connection.execute(sa.text("PRAGMA journal_mode = WAL"))
                    connection.commit()
                    connection.execute(sa.text("BEGIN IMMEDIATE"))
                    self._make(connection)
                    connection.commit()
                return
            except sa.exc.OperationalError:
                if not patience:
                    raise
                time.sleep(0.1)


def _configure(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = NORMAL")  # with WAL: a killed process loses no commit
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
    # SQLite's own LIKE knows the case of ASCII letters only.
    connection.create_function("snellen_contains", 2, lambda text, sought: sought in text.lower())


class Postgres(Database):
    """A database on a PostgreSQL server, ``postgresql://user@host/name``.

    The password comes from the URL, ``PGPASSWORD`` or ``~/.pgpass``; it is never shown.

    Raises:
        MissingExtra: psycopg is not installed.
        BadOption: an invalid URL.
    """

    insert = staticmethod(postgresql.insert)

    #: SQLSTATEs worth a retry: connection errors (class 08), the server stopping or starting
    #: (57P), deadlocks and serialization failures (40). A connection that was never made has none.
    _GONE = ("08", "57P", "40P01", "40001")

    def __init__(self, address: str) -> None:
        require("psycopg", "postgres", "A workspace in PostgreSQL")
        try:
            url = sa.make_url(address).set(drivername="postgresql+psycopg")
        except (sa.exc.ArgumentError, ValueError) as error:
            raise BadOption(
                "--workspace: not a URL of a PostgreSQL database; write postgresql://USER@HOST/NAME."
            ) from error
        shown = url.set(drivername="postgresql", query={})._replace(password=None).render_as_string()
        super().__init__(shown, sa.create_engine(url, pool_pre_ping=True, pool_size=2, max_overflow=8))

    def transact(self, work: Callable[[sa.Connection], T]) -> T:
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

        retrying = Retrying(
            retry=retry_if_exception(self._lost),
            stop=stop_after_delay(PATIENCE),
            wait=wait_random_exponential(0.2, 5),
            reraise=True,
        )
        result: T = retrying(super().transact, work)
        return result

    def _lost(self, error: BaseException) -> bool:
        """Return whether an error means that the server is currently unreachable."""
        if not isinstance(error, sa.exc.DBAPIError):
            return False
        state = getattr(error.orig, "sqlstate", None)
        if error.connection_invalidated or (state or "").startswith(self._GONE):
            return True
        return isinstance(error, sa.exc.OperationalError) and state is None

    def version(self, connection: sa.Connection) -> int:
        if not sa.inspect(connection).has_table("snellen_layout"):
            return 0
        return int(connection.execute(sa.text("SELECT max(version) FROM snellen_layout")).scalar_one())

    def set_version(self, connection: sa.Connection, version: int) -> None:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS snellen_layout (version integer NOT NULL)"))
        connection.execute(sa.text("DELETE FROM snellen_layout"))
        connection.execute(sa.text("INSERT INTO snellen_layout VALUES (:version)"), {"version": version})

    def make(self) -> None:
        with self.engine.begin() as connection:
            # Held until the transaction ends; an arbitrary number that is unlikely to be used elsewhere.
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(20260719)"))
            self._make(connection)
