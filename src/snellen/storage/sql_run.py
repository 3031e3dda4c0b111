"""The contents of a run: samples, predictions and answers, in the workspace's database or in the run's own
files (:class:`snellen.storage.parquet_run.ParquetRun`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from snellen.errors import UnknownName
from snellen.storage.schema import predictions, responses, samples
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

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """Yield id, label, images, prediction, outcome and metrics of samples, which is faster."""
        ...

    def answered(self) -> Iterator[tuple[dict[str, Any], list[Response]]]:
        """Yield rows with predictions and the underlying responses."""
        ...

    def search(self, text: str) -> set[str]:
        """Return the ids of samples with a response that contains a text, whatever its case."""
        ...

    def replies(self, id: str) -> list[Response]:
        """Return the responses behind a sample's prediction, in the order of the requests."""
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
        query = self._selected(
            samples.c.position,
            *[predictions.c[name] for name in ("reason", "questions", "ranking", "details", "responses")],
        )
        if position is not None:
            query = query.where(samples.c.position == position)
        return self._store.stream(query)

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """Yield id, label, images, prediction, outcome and metrics of samples, which is faster."""
        return self._store.stream(self._selected())

    def _selected(self, *more: sa.ColumnElement[Any]) -> sa.Select[Any]:
        """Select samples with the main columns of their predictions, and more."""
        return (
            sa.select(
                *[samples.c[name] for name in ("id", "label", "images")],
                predictions.c.label.label("prediction"),
                *[predictions.c[name] for name in ("outcome", "metrics")],
                *more,
            )
            .join(
                predictions,
                (predictions.c.run == samples.c.run) & (predictions.c.sample == samples.c.id),
            )
            .where(samples.c.run == self.run)
            .order_by(samples.c.position)
        )

    def answered(self) -> Iterator[tuple[dict[str, Any], list[Response]]]:
        """Yield rows with predictions and the underlying responses."""
        findings = self.findings()
        while page := list(islice(findings, 200)):
            known = self._store.get([key for row in page for key in row["responses"]])
            for row in page:
                yield row, [known[key] for key in row["responses"] if key in known]

    def search(self, text: str) -> set[str]:
        """Return the ids of samples with a response that contains a text, whatever its case."""
        sought = text.lower()

        def read(connection: sa.Connection) -> set[str]:
            # The database searches, so that only ids leave it.
            if connection.dialect.name == "sqlite":
                keys = sa.func.json_each(predictions.c.responses).table_valued("value")
                contains = sa.func.snellen_contains(responses.c.text, sought) == 1
            else:
                listed = sa.func.json_array_elements_text(predictions.c.responses)
                keys = listed.table_valued("value", joins_implicitly=True)
                contains = sa.func.strpos(sa.func.lower(responses.c.text), sought) > 0
            query = (
                sa.select(predictions.c.sample)
                .select_from(predictions.join(keys, sa.true()))
                .join(responses, responses.c.key == keys.c.value)
                .where(predictions.c.run == self.run, contains)
            )
            return set(connection.execute(query).scalars())

        return self._store.do(read)

    def replies(self, id: str) -> list[Response]:
        """Return the responses behind a sample's prediction, in the order of the requests."""
        query = sa.select(predictions.c.responses).where(
            predictions.c.run == self.run, predictions.c.sample == id
        )
        keys = self._store.do(lambda connection: list(connection.execute(query).scalar_one_or_none() or []))
        known = self._store.get(keys)
        return [known[key] for key in keys if key in known]

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
