"""The workspace: a database and small previews of images.

Tables: ``runs`` (a manifest each), ``samples`` and ``predictions`` (of runs), ``responses`` (shared by
all runs, under a key of everything that can change an answer). Written as it goes: what was answered
stays, whatever happens next.

Long: one class is all that others see of a workspace; its back ends, rows and files have their
own modules.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from snellen._util.files import write_atomic
from snellen._util.redaction import redact
from snellen.errors import BadOption, StoreError, UnknownName, did_you_mean
from snellen.storage.backends import Database, Postgres, Sqlite
from snellen.storage.parquet_run import ParquetRun
from snellen.storage.rows import (
    RETRIED,
    CacheEntry,
    RunRows,
    SampleResult,
    response_of,
    response_row,
    written,
)
from snellen.storage.schema import COLUMNS, predictions, responses, runs, samples
from snellen.storage.sql_run import RunStorage, SqlRun
from snellen.types import Response

if TYPE_CHECKING:
    import pandas as pd

    from snellen.images import Image

__all__ = ["Store", "default_workspace", "is_address", "timestamp"]

T = TypeVar("T")


FOLDER = "snellen-workspace"


def default_workspace() -> str:
    """``$SNELLEN_DB`` (an address), ``$SNELLEN_WORKSPACE`` (a folder or an address), or
    ``./snellen-workspace``.
    """
    return os.environ.get("SNELLEN_DB") or os.environ.get("SNELLEN_WORKSPACE") or FOLDER


def is_address(where: Path | str) -> bool:
    """Whether a workspace is a database elsewhere.

    Raises:
        BadOption: an address of something else.
    """
    scheme, separator, _ = str(where).partition("://")
    if not separator or not isinstance(where, str):
        return False
    if scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise BadOption(
            f"--workspace {scheme}://… is not allowed; allowed: a folder, or postgresql://USER@HOST/NAME."
        )
    return True


class Store:
    """An open workspace.

    Args:
        where: a folder, which is made when it is not there; or ``postgresql://USER@HOST/NAME``, whose
            previews lie in the folder ``$SNELLEN_FILES`` (by default ``./snellen-workspace``).
        create: if False, a folder that is no workspace is refused instead.

    Raises:
        StoreError: the folder or its database cannot be used.
    """

    def __init__(self, where: Path | str | None = None, *, create: bool = True) -> None:
        where = where if where is not None else default_workspace()
        address = is_address(where)
        if not str(where):
            raise BadOption(
                "--workspace '' is not allowed; allowed: a folder, or postgresql://USER@HOST/NAME."
            )
        files = os.environ.get("SNELLEN_FILES") or FOLDER
        self.folder = Path(files if address else where).expanduser()
        path = self.folder / "snellen.db"
        if not create and not address and not path.exists():
            raise UnknownName(
                f"{self.folder}: no workspace here, so no runs. Examine something first "
                "(snellen demo), or name another folder with --workspace."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: no workspace can be made here ({error.strerror}). "
                "Choose another folder with --workspace."
            ) from error
        self.database: Database = Postgres(str(where)) if address else Sqlite(path)
        self._sinks: dict[str, ParquetRun | None] = {}
        #: What opens the same workspace again.
        self.where = str(where) if address else str(self.folder.resolve())
        #: What the workspace is called in messages.
        self.name = self.database.name if address else str(self.folder)
        with self._explained():
            self.database.make()
            self.database.check()

    @property
    def option(self) -> str:
        """What a command takes besides to find this workspace: nothing where it is the usual one."""
        usual = default_workspace()
        if self.where == (usual if is_address(usual) else str(Path(usual).expanduser().resolve())):
            return ""
        return f" --workspace {shlex.quote(self.name)}"

    def do(self, work: Callable[[sa.Connection], T]) -> T:
        """Do work in a transaction (see :meth:`snellen.storage.backends.Database.transact`).

        Raises:
            StoreError: the database refused.
        """
        with self._explained():
            return self.database.transact(work)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DatabaseError, sa.exc.InterfaceError) as error:
            raise StoreError(
                f"{self.name}: the workspace's database refused ({redact(str(error.orig)).strip()}). What "
                "was answered before is kept; mend the cause and run the same command again."
            ) from error

    def close(self) -> None:
        """Let go of the database."""
        self.database.engine.dispose()

    # ── memory ──────────────────────────────────────────────────────────────────────────────────────

    def get(self, keys: Sequence[str]) -> dict[str, Response]:
        """The responses that are remembered under these keys."""
        return self.do(lambda connection: _recall(connection, keys))

    def put(self, rows: Sequence[CacheEntry]) -> dict[str, Response]:
        """Commit responses. One that is there already (another process was faster) stays as it is, and is
        returned.
        """
        if not rows:
            return {}
        now = timestamp()
        # In one order everywhere: two that write the same in different orders would wait for each other.
        unique = sorted({row.key: row for row in rows}.values(), key=lambda row: row.key)
        values = [{**response_row(row), "created": now} for row in unique]
        new = self.database.insert(responses).on_conflict_do_nothing().returning(responses.c.key)

        def write(connection: sa.Connection) -> dict[str, Response]:
            kept = set(connection.execute(new, values).scalars())
            return _recall(connection, [row["key"] for row in values if row["key"] not in kept])

        return self.do(write)

    # ── runs ────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, name: str, digest: str, manifest: Mapping[str, Any]) -> str:
        """The id of the run of this digest: the one that is there, or a new one ``name-xxxxxx``."""
        now = timestamp()
        query = sa.select(runs.c.id).where(runs.c.digest == digest)
        row = {"digest": digest, "created": now, "updated": now, "status": "running"}
        new = self.database.insert(runs).on_conflict_do_nothing().returning(runs.c.id)

        def write(connection: sa.Connection) -> str | None:
            if (known := connection.execute(query).scalar_one_or_none()) is not None:
                return str(known)
            for length in (6, 12, 64):  # longer only where two digests begin alike
                run = f"{name}-{digest[:length]}"
                values = new.values(id=run, manifest=manifest, **row)
                if connection.execute(values).scalar_one_or_none() is not None:
                    return run
                # Another process may have begun the same run this very moment.
                if (known := connection.execute(query).scalar_one_or_none()) is not None:
                    return str(known)
            return None

        if (begun := self.do(write)) is None:
            raise StoreError(f"{self.name}: no free id for a run of {name}.")
        return begun

    def unfinished(self, specification: str, sink: str | None = None) -> str | None:
        """The cache salt of the newest fresh run of a specification, and a sink, that is not finished."""
        query = sa.select(runs.c.manifest).where(runs.c.status != "finished").order_by(runs.c.updated.desc())
        for manifest in self.do(lambda connection: connection.execute(query).scalars().all()):
            same = manifest.get("specification") == specification and manifest.get("sink") == sink
            if same and manifest.get("cache_salt"):
                return str(manifest["cache_salt"])
        return None

    def shards(self, run: str) -> ParquetRun | None:
        """Where a run's samples, predictions and answers lie that are not in the database."""
        if run not in self._sinks:
            manifest = self.run(run)["manifest"]
            sink, count = manifest.get("sink"), manifest.get("shards", 0)
            self._sinks[run] = None if sink is None else ParquetRun(sink, run, count)
        return self._sinks[run]

    def examined(self, run: str, ids: Sequence[str]) -> set[str]:
        """Which of these samples have a prediction already (one with an error does not count)."""
        query = sa.select(predictions.c.sample).where(
            predictions.c.run == run,
            predictions.c.sample.in_(ids),
            predictions.c.outcome.not_in(RETRIED),
        )
        return self.do(lambda connection: set(connection.execute(query).scalars()))

    def record(
        self, run: str, findings: Sequence[SampleResult], *, n_new: int = 0, seconds: float = 0.0
    ) -> None:
        """Commit what came of some samples, and how long it took; a finding replaces an older one."""
        self.write(run, written(run, findings), n_new=n_new, seconds=seconds)

    def write(self, run: str, rows: RunRows, *, n_new: int = 0, seconds: float = 0.0) -> None:
        """Commit what came of some samples, as rows (see :meth:`record`)."""
        insert = self.database.insert
        new = insert(predictions)
        replaced = [c.name for c in predictions.columns if not c.primary_key]
        replace = new.on_conflict_do_update(
            index_elements=["run", "sample"], set_={name: new.excluded[name] for name in replaced}
        )
        began = sa.update(runs).where(runs.c.id == run)
        change = began.values(
            n_new=runs.c.n_new + n_new, seconds=runs.c.seconds + seconds, updated=timestamp()
        )

        def write(connection: sa.Connection) -> None:
            if rows.samples:
                connection.execute(insert(samples).on_conflict_do_nothing(), rows.samples)
                connection.execute(replace, rows.predictions)
            connection.execute(change)

        self.do(write)

    def keep_metrics(self, run: str, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Commit the scores of samples, in place of those that they had."""
        self.records(run).keep_metrics(metrics)

    def move(self, run: str, sink: str | None) -> None:
        """Have a run that holds nothing yet put its samples elsewhere."""
        manifest = {**self.run(run)["manifest"], "sink": sink}
        change = sa.update(runs).where(runs.c.id == run).values(manifest=manifest, updated=timestamp())
        self.do(lambda connection: connection.execute(change))
        self._sinks.pop(run, None)

    def forget(self, run: str) -> None:
        """Take back a run that came to nothing; one that is finished stays."""
        query = sa.delete(runs).where(runs.c.id == run, runs.c.status != "finished")
        self.do(lambda connection: connection.execute(query))

    def finish(
        self, run: str, metrics: Mapping[str, Any], manifest: Mapping[str, Any], status: str = "finished"
    ) -> None:
        """Commit a run's figures; ``manifest`` replaces the one it began with."""
        change = sa.update(runs).where(runs.c.id == run)
        values = change.values(
            status=status, metrics=_jsonable(metrics), manifest=manifest, updated=timestamp()
        )
        self.do(lambda connection: connection.execute(values))

    def run(self, run: str) -> dict[str, Any]:
        """A run's row, by its full id."""
        query = sa.select(runs).where(runs.c.id == run)
        return self.do(lambda connection: dict(connection.execute(query).mappings().one()))

    def stamps(self) -> dict[str, str]:
        """When each run was changed last, by id, the newest run last."""
        query = sa.select(runs.c.id, runs.c.updated).order_by(runs.c.created, runs.c.id)
        return self.do(lambda connection: {row.id: row.updated for row in connection.execute(query)})

    def list_runs(self, ids: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """All runs, or those of these ids, the newest last."""
        query = sa.select(runs).order_by(runs.c.created, runs.c.id)
        if ids is not None:
            pages = [query.where(runs.c.id.in_(ids[i : i + 500])) for i in range(0, len(ids), 500)]
            rows = self.do(lambda c: [dict(row) for page in pages for row in c.execute(page).mappings()])
            return sorted(rows, key=lambda row: (row["created"], row["id"]))
        return self.do(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    def find(self, name: str) -> str:
        """The full id that a unique prefix, or ``@last``, stands for.

        Raises:
            UnknownName: none, or several.
        """
        newest = sa.select(runs.c.id).order_by(runs.c.updated.desc())
        ids: list[str] = self.do(lambda connection: list(connection.execute(newest).scalars()))
        if name == "@last" and ids:
            return ids[0]
        if name in ids:
            return name
        matches = [run for run in ids if name and run.startswith(name)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UnknownName(
                f"{name!r} begins the ids of {len(matches)} runs: {', '.join(matches[:5])}"
                f"{' …' if len(matches) > 5 else ''}. Give more of one."
            )
        known = f"The newest: {', '.join(ids[:5])}." if ids else "There are no runs yet."
        raise UnknownName(
            f"No run {name!r} in {self.name}.{did_you_mean(name, ids)} {known} See: snellen ls runs"
        )

    # ── what a run holds ────────────────────────────────────────────────────────────────────────────

    def records(self, run: str) -> RunStorage:
        """A run's samples with what came of them, wherever they lie."""
        return self.shards(run) or SqlRun(self, run)

    def sample_rows(self, run: str) -> Generator[dict[str, Any], None, None]:
        """Rows of a run's samples, in the order of the data set."""
        yield from self.records(run).samples()

    def sample_row(self, run: str, sample: str) -> dict[str, Any]:
        """The row of one sample.

        Raises:
            UnknownName: the run has no such sample.
        """
        return self.records(run).sample(sample)

    def findings(self, run: str, position: int | None = None) -> Generator[dict[str, Any], None, None]:
        """Rows of samples with their predictions, in the order of the data set; or the one at a position."""
        yield from self.records(run).findings(position)

    def neighbours(self, run: str, position: int) -> tuple[int | None, int | None]:
        """The positions of the samples before and after one."""
        return self.records(run).neighbours(position)

    def stream(self, query: sa.Select[Any]) -> Generator[dict[str, Any], None, None]:
        """Rows, a page in memory at a time.

        Raises:
            StoreError: the database refused.
        """
        with (
            self._explained(),
            self.database.engine.connect() as connection,
            connection.execution_options(yield_per=500).execute(query) as result,
        ):
            for row in result.mappings():
                yield dict(row)

    def frame(self, run: str) -> pd.DataFrame:
        """One row a sample: id, label, prediction, outcome, reason, answers, questions, ranking,
        latencies (seconds, one a request), prompt_tokens, completion_tokens, images (sha256), marks (scores
        by name), and one column for each of the protocol's details.
        """
        import pandas as pd

        return pd.DataFrame(self.rows(run))

    def rows(self, run: str) -> Iterator[dict[str, Any]]:
        """The rows of :meth:`frame`, a page in memory at a time."""
        for row, replies in self.answered(run):
            yield {
                "id": row["id"],
                "label": row["label"],
                "prediction": row["prediction"],
                "outcome": row["outcome"],
                "reason": row["reason"],
                "answers": [reply.text for reply in replies if not reply.scores],
                "questions": row["questions"],
                "ranking": row["ranking"],
                "latencies": [reply.latency for reply in replies],
                "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
                "completion_tokens": sum(reply.completion_tokens for reply in replies),
                "images": row["images"],
                "metrics": row["metrics"],
                # A protocol's detail never takes the place of a column.
                **{k if k not in COLUMNS else f"details_{k}": v for k, v in row["details"].items()},
            }

    def answered(self, run: str) -> Iterator[tuple[dict[str, Any], list[Response]]]:
        """Findings with the responses behind them, a page in memory at a time."""
        yield from self.records(run).answered()

    def replies(self, run: str, sample: str) -> list[Response]:
        """The responses behind one sample's prediction, in the order of asking."""
        return self.records(run).replies(sample)

    # ── previews ────────────────────────────────────────────────────────────────────────────────────

    def preview_path(self, sha256: str) -> Path:
        """Where the preview of the image of this hash is kept."""
        return self.folder / "previews" / sha256[:2] / f"{sha256}.jpg"

    def keep_previews(self, images: Sequence[Image]) -> None:
        """Keep previews of those images that have none yet.

        Raises:
            ImageError: one cannot be decoded.
            StoreError: one cannot be written.
        """
        for image in images:
            if not self.preview_path(image.sha256).exists():
                self.keep_preview(image.sha256, image.preview())

    def keep_preview(self, sha256: str, data: bytes) -> None:
        """Keep a preview; it appears whole or not at all.

        Raises:
            StoreError: it cannot be written.
        """
        path = self.preview_path(sha256)
        try:
            write_atomic(path, data)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: the workspace cannot be written ({error.strerror}). What was answered "
                "before is kept; mend the cause and run the same command again."
            ) from error


def timestamp() -> str:
    """The time, as it stands in the database."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _jsonable(value: Any) -> Any:
    """The value with NaN as None: JSON has no word for it."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def _recall(connection: sa.Connection, keys: Sequence[str]) -> dict[str, Response]:
    responses_by_key = {}
    for start in range(0, len(keys), 500):
        query = sa.select(responses).where(responses.c.key.in_(keys[start : start + 500]))
        for row in connection.execute(query).mappings():
            responses_by_key[row["key"]] = response_of(row)
    return responses_by_key
