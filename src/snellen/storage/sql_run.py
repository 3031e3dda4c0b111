"""The contents of a run: samples, predictions and answers, in the workspace's database or in the run's own
files (:class:`snellen.storage.parquet_run.ParquetRun`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from snellen.errors import UnknownName
from snellen.storage.schema import predictions, samples
from snellen.types import Response

__all__ = ["RunStorage", "SqlRun"]

T = TypeVar("T")


class RunStorage(Protocol):
    """The interface of a run's contents. Rows come in the order of the data set, with one page in memory
    at a time.
    """

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield rows of samples only."""
        ...

    def sample(self, id: str) -> dict[str, Any]:
        """Return the row of one sample.

        Raises:
            UnknownName: no such id.
        """
        ...

    def findings(self, position: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield rows of samples with their predictions; or only the one at a position."""
        ...

    def answered(self) -> Iterator[tuple[dict[str, Any], list[Response]]]:
        """Yield rows with predictions and the underlying responses."""
        ...

    def replies(self, id: str) -> list[Response]:
        """Return the responses behind a sample's prediction, in the order of the requests."""
        ...

    def neighbors(self, position: int) -> tuple[int | None, int | None]:
        """Return the positions of the previous and next sample."""
        ...

    def keep_metrics(
        self, metrics: Mapping[str, Mapping[str, float]], details: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Replace the scores of samples, and the details of some."""
        ...


class Queryable(Protocol):
    """What reading a run needs from its store."""

    def do(self, work: Callable[[sa.Connection], T]) -> T:
        """Run a transaction, retrying if that may help."""
        ...

    def stream(self, query: sa.Select[Any]) -> Iterator[dict[str, Any]]:
        """Yield rows of a query, with one page in memory at a time."""
        ...

    def get(self, keys: Sequence[str]) -> dict[str, Response]:
        """Return cached responses by key."""
        ...


class SqlRun:
    """The :class:`RunStorage` of a run in the database of its store."""

    def __init__(self, store: Queryable, run: str) -> None:
        self._store, self.run = store, run

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield rows of samples only."""
        return self._store.stream(
            sa.select(samples).where(samples.c.run == self.run).order_by(samples.c.position)
        )

    def sample(self, id: str) -> dict[str, Any]:
        """Return the row of one sample.

        Raises:
            UnknownName: no such id.
        """
        query = sa.select(samples).where(samples.c.run == self.run, samples.c.id == id)
        row = self._store.do(lambda connection: connection.execute(query).mappings().one_or_none())
        if row is None:
            raise UnknownName(f"{self.run} has no sample {id!r}.")
        return dict(row)

    def findings(self, position: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield rows of samples with their predictions; or only the one at a position."""
        query = (
            sa.select(
                samples.c.id,
                samples.c.position,
                samples.c.label,
                samples.c.images,
                predictions.c.label.label("prediction"),
                *[predictions.c[name] for name in ("outcome", "reason", "questions")],
                *[predictions.c[name] for name in ("ranking", "details", "responses")],
                predictions.c.metrics.label("metrics"),
            )
            .join(
                predictions,
                (predictions.c.run == samples.c.run) & (predictions.c.sample == samples.c.id),
            )
            .where(samples.c.run == self.run)
            .order_by(samples.c.position)
        )
        if position is not None:
            query = query.where(samples.c.position == position)
        return self._store.stream(query)

    def answered(self) -> Iterator[tuple[dict[str, Any], list[Response]]]:
        """Yield rows with predictions and the underlying responses."""
        findings = self.findings()
        while page := list(islice(findings, 200)):
            known = self._store.get([key for row in page for key in row["responses"]])
            for row in page:
                yield row, [known[key] for key in row["responses"] if key in known]

    def replies(self, id: str) -> list[Response]:
        """Return the responses behind a sample's prediction, in the order of the requests."""
        query = sa.select(predictions.c.responses).where(
            predictions.c.run == self.run, predictions.c.sample == id
        )
        keys = self._store.do(lambda connection: list(connection.execute(query).scalar_one_or_none() or []))
        known = self._store.get(keys)
        return [known[key] for key in keys if key in known]

    def neighbors(self, position: int) -> tuple[int | None, int | None]:
        """Return the positions of the previous and next sample."""
        here, of_run = samples.c.position, samples.c.run == self.run
        before = sa.select(sa.func.max(here)).where(of_run, here < position)
        after = sa.select(sa.func.min(here)).where(of_run, here > position)
        return self._store.do(lambda c: (c.execute(before).scalar(), c.execute(after).scalar()))

    def keep_metrics(
        self, metrics: Mapping[str, Mapping[str, float]], details: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Replace the scores of samples, and the details of some."""
        changes = []
        for column, values in (("metrics", metrics), ("details", details)):
            change = (
                sa.update(predictions)
                .where(predictions.c.run == self.run, predictions.c.sample == sa.bindparam("of"))
                .values({column: sa.bindparam("now")})
            )
            rows = [{"of": name, "now": dict(value)} for name, value in sorted(values.items())]
            changes += [(change, rows)] if rows else []

        def work(connection: sa.Connection) -> None:
            for change, rows in changes:
                connection.execute(change, rows)

        if changes:
            self._store.do(work)
