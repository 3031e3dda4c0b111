"""A run's samples, predictions and answers in its own Parquet files, for runs too large for a database. Each
shard is written atomically by the worker that evaluated it, and read page by page.

``URL/RUN/000000000000-000000000256.parquet`` holds the samples at positions 0 to 255 of the data set, in
order, one row each. Other tools can read them directly: ``SELECT outcome, count(*) FROM
'URL/RUN/*.parquet'``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen._util.files import write_atomic
from snellen._util.redaction import redact
from snellen.errors import BadOption, MissingExtra, StoreError, UnknownName, reason_of, require
from snellen.storage.rows import RETRIED, CacheEntry, RunRows, response_of, response_row
from snellen.types import Response

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetRun", "ParquetShard", "file_size", "parquet_url", "shard_size"]

#: The least number of shards per replica, so that none waits long for the last one.
SHARDS = 8
#: The most batches per shard, since progress is reported per shard …
BATCHES = 16
#: … unless there would be more shards than Ray Data handles well.
MOST = 10_000
#: Rows of a file in memory at a time.
PAGE = 500
#: Columns of a sample.
_SAMPLE = ("id", "position", "label", "images", "content")
#: Columns of a row, and of an answer, stored as JSON because their keys vary between data sets.
_JSON = ("content", "details", "metrics")
_REPLY_JSON = ("request", "scores", "meta")


def shard_size(n: int, batch: int, replicas: int) -> int:
    """Return the number of samples per shard: whole batches.

    >>> shard_size(300, 16, 4), shard_size(50_000, 16, 4), shard_size(10_000_000, 16, 4)
    (16, 256, 1008)
    """
    wanted = min(n / (SHARDS * replicas), batch * BATCHES)
    return max(1, ceil(max(wanted, n / MOST) / batch)) * batch


def file_size(n: int) -> int:
    """Return the number of samples per file, independent of the writer, since another may resume."""
    return shard_size(n, 16, 4)


def parquet_url(sink: str) -> str:
    """Return the folder in ``parquet:URL``, as an absolute path if it is local.

    Raises:
        BadOption: it is missing, has an unknown scheme, or contains a key.
        MissingExtra: a required package is not installed.
    """
    scheme, _, url = sink.partition(":")
    if scheme != "parquet" or not url:
        raise BadOption(
            f"--sink {sink!r} is not allowed; allowed: parquet:URL, such as parquet:./shards or "
            "parquet:s3://BUCKET/FOLDER."
        )
    if redact(url) != url:
        raise BadOption(
            f"--sink parquet:{redact(url)} is not allowed: URLs must not contain keys. Provide keys as "
            "the storage's own client expects them, in its environment variables or files."
        )
    files, path = _opened(url)
    return str(Path(path).resolve()) if _is_here(files) else url


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path on it.

    Raises:
        BadOption: a URL of an unknown kind.
        MissingExtra: a required package is not installed.
    """
    require("pyarrow", "ray", "A run in Parquet files")
    fsspec: Any = require("fsspec", "ray", "A run in Parquet files")
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingExtra(
            f"{redact(url)} needs a package that is not installed ({reason_of(error)}). Install it with: pip "
            "install s3fs (for s3://), or gcsfs (for gs://)"
        ) from error
    except ValueError as error:
        raise BadOption(f"{redact(url)} cannot be used ({reason_of(error)}).") from error
    return files, str(path)


def _is_here(files: Any) -> bool:
    """Return whether a file system is local."""
    return "file" in ([files.protocol] if isinstance(files.protocol, str) else files.protocol)


def _packed(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the row with these columns encoded as JSON."""
    return {**row, **{name: json.dumps(row[name]) for name in names}}


def _unpacked(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the row with these columns decoded from JSON."""
    return {**row, **{name: json.loads(row[name]) for name in names if name in row}}


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    reply = pa.struct(
        {
            **dict.fromkeys(("key", "model", "request", "prompt", "text", "scores"), text),
            **dict.fromkeys(("outcome", "reason", "thinking", "meta"), text),
            **{name: pa.int64() for name in ("prompt_tokens", "completion_tokens")},
            "latency": pa.float64(),
        }
    )
    return pa.schema(
        {
            "id": text,
            "position": pa.int64(),
            "label": text,
            "images": texts,
            "content": text,
            "prediction": text,
            "outcome": text,
            "reason": text,
            "questions": pa.int64(),
            "ranking": texts,
            "details": text,
            "responses": texts,
            "metrics": text,
            "replies": pa.list_(reply),
        }
    )


class ParquetRun:
    """The shards of a run.

    Args:
        url: the parent folder, in fsspec's notation: a path, ``s3://…``, ``gs://…``.
        run: the run's id.
        count: the least number of shards, if the run is finished.

    Raises:
        MissingExtra: pyarrow, or the client for such a URL, is not installed.
    """

    def __init__(self, url: str, run: str, count: int = 0) -> None:
        self.url, self.run, self.count = url, run, count
        self._files, path = _opened(url)
        self._folder = f"{path.rstrip('/')}/{run}"

    def has(self, name: str) -> bool:
        """Return whether a shard with this name exists."""
        with self._explained("read"):
            self._files.invalidate_cache()  # others write here too
            return bool(self._files.exists(f"{self._folder}/{name}"))

    def names(self) -> list[str]:
        """Return the existing shards in the order of the data set; other files are ignored.

        Raises:
            StoreError: they cannot be read, or some of a finished run's are missing.
        """
        with self._explained("read"):
            self._files.invalidate_cache()  # others write here too
            there = self._files.exists(self._folder)
            paths = self._files.ls(self._folder, detail=False) if there else []
        names = (name.rsplit("/", 1)[-1] for name in paths)
        known = sorted(name for name in names if re.fullmatch(r"\d{12}-\d{12}\.parquet", name))
        if len(known) < self.count:
            raise StoreError(
                f"{redact(self.url)}: {self.count - len(known)} of {self.count} shards of {self.run} are not "
                "here, so the run cannot be read. Put them back."
            )
        return known

    @staticmethod
    def name(start: int, stop: int) -> str:
        """Return the name of the shard with these positions."""
        return f"{start:012d}-{stop:012d}.parquet"

    def write(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a shard atomically.

        Raises:
            StoreError: it cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist([_packed(row, _JSON) for row in rows], schema=_schema())
        buffer = BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        path = f"{self._folder}/{name}"
        with self._explained("written"):
            # Object stores show a file only when it is complete; a file system shows partial writes.
            if _is_here(self._files):
                write_atomic(Path(path), buffer.getvalue())
            else:
                self._files.makedirs(self._folder, exist_ok=True)
                self._files.pipe_file(path, buffer.getvalue())

    def read(self, name: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of a shard, with one page in memory at a time."""
        import pyarrow.parquet as pq

        with self._explained("read"), self._files.open(f"{self._folder}/{name}", "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(PAGE, columns=columns and list(columns)):
                for row in batch.to_pylist():
                    yield _unpacked(row, _JSON)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows with their responses, in the order of the data set."""
        for name in self.names():
            yield from self.read(name)

    def answers(self) -> Iterator[CacheEntry]:
        """Yield all responses, for the cache."""
        for row in self.rows():
            for packed in row["replies"]:
                reply = _unpacked(packed, _REPLY_JSON)
                yield CacheEntry(reply["key"], reply["model"], reply["request"], response_of(reply))

    # ── what a store asks of a run (see snellen.storage.sql_run.RunStorage) ───────────────────

    def findings(self, position: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield rows without responses, in the order of the data set; or only the one at a position."""
        columns = [name for name in _schema().names if name not in ("content", "replies")]
        for name in self.names():
            start, stop = map(int, name.partition(".")[0].split("-"))
            if position is None or start <= position < stop:
                rows = self.read(name, columns)
                yield from (row for row in rows if position is None or row["position"] == position)

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """Yield id, label, images, prediction, outcome and metrics of samples, which is faster."""
        for name in self.names():
            yield from self.read(name, ("id", "label", "images", "prediction", "outcome", "metrics"))

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield rows of samples only."""
        for name in self.names():
            for row in self.read(name, _SAMPLE):
                yield {"run": self.run, **row}

    def sample(self, id: str) -> dict[str, Any]:
        """Return the row of one sample.

        Raises:
            UnknownName: no such id.
        """
        if (row := self._of(id)) is None:
            raise UnknownName(f"{self.run} has no sample {id!r}.")
        return {"run": self.run, **{name: row[name] for name in _SAMPLE}}

    def answered(self) -> Iterator[tuple[dict[str, Any], list[Response]]]:
        """Yield complete rows with their responses."""
        for row in self.rows():
            yield row, _replies_of(row)

    def search(self, text: str) -> set[str]:
        """Return the ids of samples with a response that contains a text, whatever its case."""
        sought = text.lower()
        return {
            row["id"]
            for row, replies in self.answered()
            if any(sought in reply.text.lower() for reply in replies)
        }

    def replies(self, id: str) -> list[Response]:
        """Return the responses behind a sample's prediction, in the order of the requests."""
        row = self._of(id)
        return [] if row is None else _replies_of(row)

    def _of(self, id: str) -> dict[str, Any] | None:
        """Return the complete row of a sample, reading only ids until it is found."""
        for name in self.names():
            if any(row["id"] == id for row in self.read(name, ["id"])):
                return next(row for row in self.read(name) if row["id"] == id)
        return None

    def keep_metrics(
        self, metrics: Mapping[str, Mapping[str, float]], details: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Replace the scores of samples, and the details of some, shard by shard."""
        for name in self.names():
            rows = list(self.read(name))
            if any(row["id"] in metrics for row in rows):
                for row in rows:
                    row["metrics"] = dict(metrics.get(row["id"], row["metrics"]))
                    row["details"] = dict(details.get(row["id"], row["details"]))
                self.write(name, rows)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn any error of a file system into one of ours."""
        try:
            yield
        except Exception as error:
            raise StoreError(
                f"{redact(self.url)}: the shards of {self.run} cannot be {what} ({reason_of(error)}). "
                "Everything "
                "written before is saved; fix this and rerun the same command."
            ) from error


class ParquetShard:
    """A sink in memory (see :class:`snellen.engine.recorder.ResultSink`) for the samples of one shard,
    initialized from its file.
    """

    def __init__(self, shards: ParquetRun, start: int, stop: int) -> None:
        self._shards, self._name = shards, shards.name(start, stop)
        self._answers: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        self._written = time.monotonic()
        self._news = False
        for row in shards.read(self._name) if shards.has(self._name) else ():
            self._answers |= {reply["key"]: reply for reply in row["replies"]}
            self._rows[row["id"]] = row

    def get(self, keys: Sequence[str]) -> dict[str, Response]:
        return {key: _reply(self._answers[key]) for key in keys if key in self._answers}

    def put(self, rows: Sequence[CacheEntry]) -> dict[str, Response]:
        kept = {row.key: _reply(self._answers[row.key]) for row in rows if row.key in self._answers}
        for row in rows:
            if row.key not in kept:
                self._answers[row.key] = _packed(response_row(row), _REPLY_JSON)
        return kept

    def examined(self, ids: Sequence[str]) -> set[str]:
        """Return those of these samples that have a prediction (errors do not count)."""
        return {id for id in ids if id in self._rows and self._rows[id]["outcome"] not in RETRIED}

    def record(self, rows: RunRows) -> None:
        """Add results of samples."""
        self._news = True
        about = {row["id"]: row for row in rows.samples}
        for row in rows.predictions:
            sample = about[row["sample"]]
            self._rows[row["sample"]] = {
                **{name: sample[name] for name in _SAMPLE},
                **{name: row[name] for name in ("outcome", "reason", "questions", "ranking", "details")},
                "prediction": row["label"],
                "metrics": row["metrics"],
                "responses": row["responses"],
                "replies": [self._answers[key] for key in dict.fromkeys(row["responses"])],
            }

    @property
    def file(self) -> str | None:
        """The name of its file; None while it is empty."""
        return self._name if self._rows else None

    def write(self, after: float = 0.0) -> None:
        """Write everything to the file if there is anything new and the last write was this many seconds ago.

        Raises:
            StoreError: it cannot be written.
        """
        if self._news and time.monotonic() - self._written >= after:
            rows = sorted(self._rows.values(), key=lambda row: row["position"])
            self._shards.write(self._name, rows)
            self._written, self._news = time.monotonic(), False


def _reply(row: Mapping[str, Any]) -> Response:
    return response_of(_unpacked(row, _REPLY_JSON))


def _replies_of(row: Mapping[str, Any]) -> list[Response]:
    """Return the responses behind the prediction of a row, in the order of the requests."""
    known = {reply["key"]: _reply(reply) for reply in row["replies"]}
    return [known[key] for key in row["responses"] if key in known]
