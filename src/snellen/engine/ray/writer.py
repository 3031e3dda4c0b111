"""The single writing process, and the sinks through which workers reach it."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from snellen._util.redaction import redact
from snellen.engine.pending import missing
from snellen.errors import ModelError, SnellenError, Stopped
from snellen.images import Image
from snellen.storage.parquet_run import ParquetShard
from snellen.storage.rows import CacheEntry, RunRows, SampleResult, written
from snellen.storage.store import Store
from snellen.types import Response

__all__ = ["RemoteSink", "ShardSink", "WriterActor", "wait_for"]

#: Seconds after which an unfinished shard is written: the most that is lost with a replica.
EVERY = 60.0
#: How many replicas may die while loading the model.
LOADS = 3


class WriterActor:
    """The single writer, which also tracks what every replica has in flight. An actor on the machine that
    started the run.

    Args:
        where: the workspace to open.
        folder: for previews and logs.
    """

    def __init__(self, where: str, folder: str) -> None:
        os.environ["SNELLEN_FILES"] = folder
        self._store = Store(where)
        self._folder = Path(folder)
        self._lock = threading.Lock()
        #: How often samples were started, with others and alone, and not finished.
        self._together: Counter[tuple[str, str]] = Counter()
        self._alone: Counter[tuple[str, str]] = Counter()
        self._given_up: set[tuple[str, str]] = set()
        #: Shards in progress, and how often each actor failed to load the model.
        self._busy: set[tuple[str, int]] = set()
        self._loads: Counter[str] = Counter()
        self._stopped = False
        self._day = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")

    def get(self, keys: list[str]) -> dict[str, Response]:
        """See :meth:`snellen.storage.store.Store.recall`."""
        return self._store.get(keys)

    def put(self, rows: list[CacheEntry]) -> dict[str, Response]:
        """See :meth:`snellen.storage.store.Store.remember`."""
        return self._store.put(rows)

    def write(self, run: str, rows: RunRows) -> None:
        """Commit results of samples, which are then no longer in flight."""
        self._store.write(run, rows)
        self.ended(run, [row["id"] for row in rows.samples])

    def without_preview(self, hashes: list[str]) -> list[str]:
        """Return the images that have no preview yet."""
        return [sha256 for sha256 in hashes if not self._store.preview_path(sha256).exists()]

    def keep_previews(self, previews: Mapping[str, bytes]) -> None:
        """Store previews of images by their hash."""
        for sha256, data in previews.items():
            self._store.keep_preview(sha256, data)

    def begin(self, run: str, ids: list[str], alone: bool = False) -> dict[str, tuple[int, int] | None]:
        """Record that samples are started; return how often each was started before, with others and alone,
        and never finished because its replica died. None for one that was given up.

        Raises:
            Stopped: nothing more is to be started.
        """
        if self._stopped:
            raise Stopped("The run was stopped.")
        with self._lock:
            before = {
                id: None if (run, id) in self._given_up else (self._together[run, id], self._alone[run, id])
                for id in ids
            }
            (self._alone if alone else self._together).update((run, id) for id in ids)
        return before

    def begin_missing(self, run: str, ids: list[str]) -> dict[str, tuple[int, int] | None]:
        """Record the start of those samples that have no prediction (see :meth:`begin`)."""
        return self.begin(run, missing(ids, partial(self._store.examined, run)))

    def ended(self, run: str, ids: list[str]) -> None:
        """Record that samples are no longer in flight."""
        with self._lock:
            for id in ids:
                self._together.pop((run, id), None)
                self._alone.pop((run, id), None)

    def give_up(self, run: str, id: str) -> None:
        """Record that a sample ended as an error, so that others skip it."""
        self._given_up.add((run, id))

    def loading(self, actor: str) -> None:
        """Record that a replica loads the model. A restarted actor of Ray keeps its id.

        Raises:
            ModelError: too many died while loading.
        """
        with self._lock:
            # The other latest one may still be loading.
            died = sum(begun - (other != actor) for other, begun in self._loads.items())
            self._loads[actor] += died < LOADS
        if died >= LOADS:
            raise ModelError(
                f"--engine ray: {died} replicas died while loading the model, perhaps for lack of "
                "memory. Try fewer: --replicas 1. Their last output is in /tmp/ray/session_latest/logs "
                "on their node."
            )

    def loaded(self, actor: str) -> None:
        """Record that a replica has loaded the model or reported why it cannot."""
        with self._lock:
            self._loads.pop(actor, None)

    def log(self, name: str, text: str) -> None:
        """Write a line to a replica's log, with secrets redacted."""
        folder = self._folder / "logs" / self._day
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.log").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {redact(text)}\n")

    def enter(self, run: str, start: int) -> None:
        """Record that a replica works on a shard.

        Raises:
            Stopped: nothing more is to be started.
        """
        if self._stopped:
            self._busy.discard((run, start))  # its previous replica died
            raise Stopped("The run was stopped.")
        self._busy.add((run, start))

    def leave(self, run: str, start: int) -> None:
        """Record that a replica is done with a shard."""
        self._busy.discard((run, start))

    def busy(self) -> bool:
        """Whether any replica works on a shard."""
        return bool(self._busy)

    def stop(self) -> None:
        """Start nothing more."""
        self._stopped = True


def wait_for(reference: Any) -> Any:
    """Return the writer's answer.

    Raises:
        SnellenError: an error that it raised.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, SnellenError):
            raise cause from error
        lines = str(error).strip().splitlines()[-1:]  # the first lines say where it failed, the last ones why
        raise SnellenError(f"--engine ray: the writer failed ({' '.join(lines)[:300]}).") from error


class RemoteSink:
    """A sink (see :class:`snellen.engine.recorder.ResultSink`) backed by the writer."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def get(self, keys: Sequence[str]) -> dict[str, Response]:
        known: dict[str, Response] = wait_for(self._writer.get.remote(list(keys)))
        return known

    def put(self, rows: Sequence[CacheEntry]) -> dict[str, Response]:
        known: dict[str, Response] = wait_for(self._writer.put.remote(list(rows)))
        return known

    def begin(self, run: str, ids: Sequence[str]) -> Mapping[str, tuple[int, int] | None]:
        """See :meth:`WriterActor.begin_missing`."""
        before: Mapping[str, tuple[int, int] | None] = wait_for(
            self._writer.begin_missing.remote(run, list(ids))
        )
        return before

    def record(
        self, run: str, findings: Sequence[SampleResult], *, n_new: int = 0, seconds: float = 0.0
    ) -> None:
        """Record results; the time is counted centrally, over all replicas."""
        wait_for(self._writer.write.remote(run, written(run, findings)))

    #: No file.
    file = None

    def flush(self) -> None:
        """Do nothing: everything is written immediately."""

    def keep_previews(self, images: Sequence[Image]) -> None:
        by_hash = {image.sha256: image for image in images}
        if not by_hash:
            return
        if lacking := wait_for(self._writer.without_preview.remote(list(by_hash))):
            wait_for(
                self._writer.keep_previews.remote({sha256: by_hash[sha256].preview() for sha256 in lacking})
            )


class ShardSink:
    """A sink that writes one file per shard; images get no previews."""

    def __init__(self, shard: ParquetShard, writer: Any) -> None:
        self._shard, self._writer = shard, writer
        self.get, self.put = shard.get, shard.put

    def begin(self, run: str, ids: Sequence[str]) -> Mapping[str, tuple[int, int] | None]:
        """See :meth:`WriterActor.begin_missing`."""
        todo = missing(ids, self._shard.examined)
        before: Mapping[str, tuple[int, int] | None] = wait_for(self._writer.begin.remote(run, todo))
        return before

    def record(
        self, run: str, findings: Sequence[SampleResult], *, n_new: int = 0, seconds: float = 0.0
    ) -> None:
        rows = written(run, findings)
        self._shard.record(rows)
        self._shard.write(EVERY)
        wait_for(self._writer.ended.remote(run, [row["id"] for row in rows.samples]))

    @property
    def file(self) -> str | None:
        """The name of the shard's file; None while it is empty."""
        return self._shard.file

    def flush(self) -> None:
        """Write pending results."""
        self._shard.write()

    def keep_previews(self, images: Sequence[Image]) -> None:
        """Do nothing: no previews are stored."""
