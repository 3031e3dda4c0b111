"""The workspace: a database and small previews of images.

Tables: ``runs`` (with a manifest each), ``samples`` and ``predictions`` (of runs), ``responses`` (shared
by all runs, under a key of everything that can change an answer). Results are written as they arrive, so
that answers survive whatever happens next.

Long: a single class is the interface of a workspace; its back ends, rows and files have their own modules.
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
    """Return ``$SNELLEN_DB`` (a URL), ``$SNELLEN_WORKSPACE`` (a folder or a URL), or
    ``./snellen-workspace``.
    """
    return os.environ.get("SNELLEN_DB") or os.environ.get("SNELLEN_WORKSPACE") or FOLDER


def is_address(where: Path | str) -> bool:
    """Return whether a workspace is a remote database.

    Raises:
        BadOption: a URL of another kind.
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
        where: a folder, created if necessary; or ``postgresql://USER@HOST/NAME``, whose previews are in
            the folder ``$SNELLEN_FILES`` (default: ``./snellen-workspace``).
        create: if False, refuse a folder that is not a workspace.

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
                f"{self.folder}: not a workspace, so it has no runs. Evaluate something first "
                "(snellen demo), or set another folder with --workspace."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: a workspace cannot be created here ({error.strerror}). "
                "Choose another folder with --workspace."
            ) from error
        self.database: Database = Postgres(str(where)) if address else Sqlite(path)
        self._sinks: dict[str, ParquetRun | None] = {}
        #: The argument that opens the same workspace again.
        self.where = str(where) if address else str(self.folder.resolve())
        #: The workspace's name in messages.
        self.name = self.database.name if address else str(self.folder)
        with self._explained():
            self.database.make()
            self.database.check()

    @property
    def option(self) -> str:
        """Return the option that tells a command this workspace; empty for the default one."""
        usual = default_workspace()
        if self.where == (usual if is_address(usual) else str(Path(usual).expanduser().resolve())):
            return ""
        return f" --workspace {shlex.quote(self.name)}"

    def do(self, work: Callable[[sa.Connection], T]) -> T:
        """Run a transaction (see :meth:`snellen.storage.backends.Database.transact`).

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
                f"{self.name}: the workspace's database reported an error "
                f"({redact(str(error.orig)).strip()}). "
                "Answers so far are saved; fix this and rerun the same command."
            ) from error

    def close(self) -> None:
        """Close the database."""
        self.database.engine.dispose()

    # ── memory ──────────────────────────────────────────────────────────────────────────────────────

    def get(self, keys: Sequence[str]) -> dict[str, Response]:
        """Return the cached responses with these keys."""
        return self.do(lambda connection: _recall(connection, keys))

    def put(self, rows: Sequence[CacheEntry]) -> dict[str, Response]:
        """Commit responses. An existing one (another process was faster) is kept and returned."""
        if not rows:
            return {}
        now = timestamp()
        # Always in the same order: two writers with different orders would wait for each other.
        unique = sorted({row.key: row for row in rows}.values(), key=lambda row: row.key)
        values = [{**response_row(row), "created": now} for row in unique]
        new = self.database.insert(responses).on_conflict_do_nothing().returning(responses.c.key)

        def write(connection: sa.Connection) -> dict[str, Response]:
            kept = set(connection.execute(new, values).scalars())
            return _recall(connection, [row["key"] for row in values if row["key"] not in kept])

        return self.do(write)

    # ── runs ────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, name: str, digest: str, manifest: Mapping[str, Any]) -> str:
        """Return the id of the run with this digest: the existing one, or a new one ``name-xxxxxx``."""
        now = timestamp()
        query = sa.select(runs.c.id).where(runs.c.digest == digest)
        row = {"digest": digest, "created": now, "updated": now, "status": "running"}
        new = self.database.insert(runs).on_conflict_do_nothing().returning(runs.c.id)

        def write(connection: sa.Connection) -> str | None:
            if (known := connection.execute(query).scalar_one_or_none()) is not None:
                return str(known)
            for length in (6, 12, 64):  # longer only if two digests start alike
                run = f"{name}-{digest[:length]}"
                values = new.values(id=run, manifest=manifest, **row)
                if connection.execute(values).scalar_one_or_none() is not None:
                    return run
                # Another process may have started the same run at this moment.
                if (known := connection.execute(query).scalar_one_or_none()) is not None:
                    return str(known)
            return None

        if (begun := self.do(write)) is None:
            raise StoreError(f"{self.name}: no free id for a run of {name}.")
        return begun

    def unfinished(self, specification: str, sink: str | None = None) -> str | None:
        """Return the cache salt and sink of the newest unfinished fresh run of a specification."""
        query = sa.select(runs.c.manifest).where(runs.c.status != "finished").order_by(runs.c.updated.desc())
        for manifest in self.do(lambda connection: connection.execute(query).scalars().all()):
            same = manifest.get("specification") == specification and manifest.get("sink") == sink
            if same and manifest.get("cache_salt"):
                return str(manifest["cache_salt"])
        return None

    def shards(self, run: str) -> ParquetRun | None:
        """Return the location of a run's samples, predictions and answers, if they are not in the
        database.
        """
        if run not in self._sinks:
            manifest = self.run(run)["manifest"]
            sink, count = manifest.get("sink"), manifest.get("shards", 0)
            self._sinks[run] = None if sink is None else ParquetRun(sink, run, count)
        return self._sinks[run]

    def examined(self, run: str, ids: Sequence[str]) -> set[str]:
        """Return those of these samples that have a prediction (errors do not count)."""
        query = sa.select(predictions.c.sample).where(
            predictions.c.run == run,
            predictions.c.sample.in_(ids),
            predictions.c.outcome.not_in(RETRIED),
        )
        return self.do(lambda connection: set(connection.execute(query).scalars()))

    def record(
        self, run: str, findings: Sequence[SampleResult], *, n_new: int = 0, seconds: float = 0.0
    ) -> None:
        """Commit results of samples, and how long they took; a new result replaces an older one."""
        self.write(run, written(run, findings), n_new=n_new, seconds=seconds)

    def write(self, run: str, rows: RunRows, *, n_new: int = 0, seconds: float = 0.0) -> None:
        """Commit results of samples as rows (see :meth:`record`)."""
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

    def keep_metrics(
        self,
        run: str,
        metrics: Mapping[str, Mapping[str, float]],
        details: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Replace the scores of samples, and the details of some."""
        self.records(run).keep_metrics(metrics, details)

    def move(self, run: str, sink: str | None) -> None:
        """Relocate the samples of a run that is still empty."""
        self._amend(run, {"sink": sink}, updated=timestamp())
        self._sinks.pop(run, None)

    def start(self, run: str, process: Mapping[str, Any]) -> None:
        """Mark a run as running in a process; figures of an earlier start no longer apply."""
        self._amend(run, {"process": dict(process)}, status="running", metrics=None, updated=timestamp())

    def name_data(self, run: str, title: str) -> None:
        """Store the name to publish a run's data set by."""
        self._amend(run, {"data": {**self.run(run)["manifest"]["data"], "title": title}})

    def _amend(self, run: str, facts: Mapping[str, Any], **values: Any) -> None:
        """Replace parts of a run's manifest, and other columns of its row."""
        manifest = {**self.run(run)["manifest"], **facts}
        change = sa.update(runs).where(runs.c.id == run).values(manifest=manifest, **values)
        self.do(lambda connection: connection.execute(change))

    def forget(self, run: str) -> None:
        """Delete a run without results; a finished one is kept."""
        query = sa.delete(runs).where(runs.c.id == run, runs.c.status != "finished")
        self.do(lambda connection: connection.execute(query))

    def finish(
        self, run: str, metrics: Mapping[str, Any], manifest: Mapping[str, Any], status: str = "finished"
    ) -> None:
        """Commit a run's metrics; ``manifest`` replaces its initial one."""
        change = sa.update(runs).where(runs.c.id == run)
        values = change.values(
            status=status, metrics=_jsonable(metrics), manifest=manifest, updated=timestamp()
        )
        self.do(lambda connection: connection.execute(values))

    def run(self, run: str) -> dict[str, Any]:
        """Return a run's row, by its full id."""
        query = sa.select(runs).where(runs.c.id == run)
        return self.do(lambda connection: dict(connection.execute(query).mappings().one()))

    def stamps(self) -> dict[str, str]:
        """Return the time of each run's last change by id, newest run last."""
        query = sa.select(runs.c.id, runs.c.updated).order_by(runs.c.created, runs.c.id)
        return self.do(lambda connection: {row.id: row.updated for row in connection.execute(query)})

    def list_runs(self, ids: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return all runs, or those with these ids, newest last."""
        query = sa.select(runs).order_by(runs.c.created, runs.c.id)
        if ids is not None:
            pages = [query.where(runs.c.id.in_(ids[i : i + 500])) for i in range(0, len(ids), 500)]
            rows = self.do(lambda c: [dict(row) for page in pages for row in c.execute(page).mappings()])
            return sorted(rows, key=lambda row: (row["created"], row["id"]))
        return self.do(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    def find(self, name: str) -> str:
        """Return the full id for a unique prefix, or for ``PREFIX@last``: the latest that begins so.

        Raises:
            UnknownName: none, or several.
        """
        newest = sa.select(runs.c.id).order_by(runs.c.updated.desc())
        ids: list[str] = self.do(lambda connection: list(connection.execute(newest).scalars()))
        if name in ids:
            return name
        prefix = name.removesuffix("@last")
        matches = [run for run in ids if name and run.startswith(prefix)]
        if len(matches) == 1 or (matches and name != prefix):
            return matches[0]
        if matches:
            raise UnknownName(
                f"{name!r} matches {len(matches)} runs: {', '.join(matches[:5])}"
                f"{' …' if len(matches) > 5 else ''}. Give a longer prefix, or {name}@last for "
                "the latest."
            )
        known = f"The newest: {', '.join(ids[:5])}." if ids else "There are no runs yet."
        raise UnknownName(
            f"No run {name!r} in {self.name}.{did_you_mean(name, ids)} {known} List them with: snellen ls "
            "runs"
        )

    # ── what a run holds ────────────────────────────────────────────────────────────────────────────

    def records(self, run: str) -> RunStorage:
        """Return a run's samples with their results, wherever they are stored."""
        return self.shards(run) or SqlRun(self, run)

    def sample_rows(self, run: str) -> Generator[dict[str, Any], None, None]:
        """Yield rows of a run's samples, in the order of the data set."""
        yield from self.records(run).samples()

    def sample_row(self, run: str, sample: str) -> dict[str, Any]:
        """Return the row of one sample.

        Raises:
            UnknownName: the run has no such sample.
        """
        return self.records(run).sample(sample)

    def findings(self, run: str, position: int | None = None) -> Generator[dict[str, Any], None, None]:
        """Yield rows of samples with their predictions, in the order of the data set; or only the one at a
        position.
        """
        yield from self.records(run).findings(position)

    def stream(self, query: sa.Select[Any]) -> Generator[dict[str, Any], None, None]:
        """Yield rows, with one page in memory at a time.

        Raises:
            StoreError: the database refused.
        """
        with (
            self._explained(),
            self.database.engine.connect() as connection,
            connection.execution_options(yield_per=500).execute(query) as result,
        ):
            names = tuple(result.keys())
            for row in result:  # a mapping of each would take three times as long
                yield dict(zip(names, row, strict=True))

    def frame(self, run: str) -> pd.DataFrame:
        """Return one row per sample: id, label, prediction, outcome, reason, answers, questions, ranking,
        latencies (seconds, one per request), prompt_tokens, completion_tokens, cached_tokens (of the
        prompt), images (SHA-256), metrics (scores by name), and one column for each of
        the protocol's details.
        """
        import pandas as pd

        return pd.DataFrame(self.rows(run))

    def rows(self, run: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of :meth:`frame`, with one page in memory at a time."""
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
                "cached_tokens": sum(reply.cached_tokens for reply in replies),
                "images": row["images"],
                "metrics": row["metrics"],
                # A protocol's detail must not replace a column.
                **{k if k not in COLUMNS else f"details_{k}": v for k, v in row["details"].items()},
            }

    def answered(self, run: str) -> Iterator[tuple[dict[str, Any], list[Response]]]:
        """Yield rows with predictions and the underlying responses, with one page in memory at a time."""
        yield from self.records(run).answered()

    def replies(self, run: str, sample: str) -> list[Response]:
        """Return the responses behind a sample's prediction, in the order of the requests."""
        return self.records(run).replies(sample)

    # ── previews ────────────────────────────────────────────────────────────────────────────────────

    def preview_path(self, sha256: str) -> Path:
        """Return the path of the preview of the image with this hash."""
        return self.folder / "previews" / sha256[:2] / f"{sha256}.jpg"

    def keep_previews(self, images: Sequence[Image]) -> None:
        """Store previews of images that have none yet.

        Raises:
            ImageError: one cannot be decoded.
            StoreError: one cannot be written.
        """
        for image in images:
            if not self.preview_path(image.sha256).exists():
                self.keep_preview(image.sha256, image.preview())

    def keep_preview(self, sha256: str, data: bytes) -> None:
        """Store a preview atomically.

        Raises:
            StoreError: it cannot be written.
        """
        path = self.preview_path(sha256)
        try:
            write_atomic(path, data)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: the workspace cannot be written ({error.strerror}). Answers "
                "so far are saved; fix this and rerun the same command."
            ) from error


def timestamp() -> str:
    """Return the time in the database's format."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _jsonable(value: Any) -> Any:
    """Return the value with NaN as None, since JSON has no NaN."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def _recall(connection: sa.Connection, keys: Sequence[str]) -> dict[str, Response]:
    responses_by_key = {}
    for start in range(0, len(keys), 500):
        query = sa.select(responses).where(responses.c.key.in_(keys[start : start + 500]))
        for row in connection.execute(query).mappings():
            responses_by_key[row["key"]] = response_of(row)
    return responses_by_key
