"""What a run holds: its samples, what came of each, and the answers behind it. They lie in the workspace's
database, or in files of the run's own (:class:`snellen.storage.parquet_run.ParquetRun`).
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
    """What a store asks of a run, wherever it lies. Rows come in the order of the data set, a page in memory
    at a time.
    """

    def samples(self) -> Iterator[dict[str, Any]]:
        """Rows of the samples alone."""
        ...

    def sample(self, id: str) -> dict[str, Any]:
        """The row of one sample.

        Raises:
            UnknownName: there is none of that id.
        """
        ...

    def findings(self, position: int | None = None) -> Iterator[dict[str, Any]]:
        """Rows of samples with their predictions; or the one at a position."""
        ...

    def answered(self) -> Iterator[tuple[dict[str, Any], list[Response]]]:
        """Findings with the responses behind them."""
        ...

    def replies(self, id: str) -> list[Response]:
        """The responses behind one sample's prediction, in the order of asking."""
        ...

    def neighbours(self, position: int) -> tuple[int | None, int | None]:
        """The positions of the samples before and after one."""
        ...

    def keep_metrics(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Put the scores of samples in place of those that they had."""
        ...


class Queryable(Protocol):
    """What reading a run needs of its store."""

    def do(self, work: Callable[[sa.Connection], T]) -> T:
        """Run a transaction, again where that may help."""
        ...

    def stream(self, query: sa.Select[Any]) -> Iterator[dict[str, Any]]:
        """Rows of a query, a page in memory at a time."""
        ...

    def get(self, keys: Sequence[str]) -> dict[str, Response]:
        """Cached responses by key."""
        ...


class SqlRun:
    """The :class:`RunStorage` of a run in the database of its store."""

    def __init__(self, store: Queryable, run: str) -> None:
        self._store, self.run = store, run

    def samples(self) -> Iterator[dict[str, Any]]:
        """Rows of the samples alone."""
        return self._store.stream(
            sa.select(samples).where(samples.c.run == self.run).order_by(samples.c.position)
        )

    def sample(self, id: str) -> dict[str, Any]:
        """The row of one sample.

        Raises:
            UnknownName: there is none of that id.
        """
        query = sa.select(samples).where(samples.c.run == self.run, samples.c.id == id)
        row = self._store.do(lambda connection: connection.execute(query).mappings().one_or_none())
        if row is None:
            raise UnknownName(f"{self.run} has no sample {id!r}.")
        return dict(row)

    def findings(self, position: int | None = None) -> Iterator[dict[str, Any]]:
        """Rows of samples with their predictions; or the one at a position."""
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
        """Findings with the responses behind them."""
        findings = self.findings()
        while page := list(islice(findings, 200)):
            known = self._store.get([key for row in page for key in row["responses"]])
            for row in page:
                yield row, [known[key] for key in row["responses"] if key in known]

    def replies(self, id: str) -> list[Response]:
        """The responses behind one sample's prediction, in the order of asking."""
        query = sa.select(predictions.c.responses).where(
            predictions.c.run == self.run, predictions.c.sample == id
        )
        keys = self._store.do(lambda connection: list(connection.execute(query).scalar_one_or_none() or []))
        known = self._store.get(keys)
        return [known[key] for key in keys if key in known]

    def neighbours(self, position: int) -> tuple[int | None, int | None]:
        """The positions of the samples before and after one."""
        here, of_run = samples.c.position, samples.c.run == self.run
        before = sa.select(sa.func.max(here)).where(of_run, here < position)
        after = sa.select(sa.func.min(here)).where(of_run, here > position)
        return self._store.do(lambda c: (c.execute(before).scalar(), c.execute(after).scalar()))

    def keep_metrics(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Put the scores of samples in place of those that they had."""
        change = (
            sa.update(predictions)
            .where(predictions.c.run == self.run, predictions.c.sample == sa.bindparam("of"))
            .values(metrics=sa.bindparam("now"))
        )
        rows = [{"of": name, "now": dict(scores)} for name, scores in sorted(metrics.items())]
        if rows:
            self._store.do(lambda connection: connection.execute(change, rows))
