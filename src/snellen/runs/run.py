"""Stored runs: what they were, what came of them, and the samples behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.errors import UnknownName
from snellen.protocols.base import PROTOCOLS
from snellen.storage.store import Store
from snellen.types import Outcome, Response

if TYPE_CHECKING:
    import pandas as pd

    from snellen.storage.manifest import Figure, RunManifest, RunMetrics

__all__ = ["Run", "list_runs", "open_run"]


class Run:
    """A stored run."""

    def __init__(self, store: Store, run: str, row: dict[str, Any] | None = None) -> None:
        self.store = store
        self.id = run
        self._given = row

    @cached_property
    def _row(self) -> dict[str, Any]:
        return self.store.run(self.id) if self._given is None else self._given

    @property
    def status(self) -> str:
        """``running`` (or interrupted), ``stopped`` (with what it had) or ``finished``."""
        return str(self._row["status"])

    @cached_property
    def manifest(self) -> RunManifest:
        """Everything that is needed to do it again."""
        from snellen.storage.manifest import RunManifest

        return RunManifest.model_validate(self._row["manifest"])

    @cached_property
    def metrics(self) -> RunMetrics:
        """The figures (see docs/metrics.md); of no samples while it has none."""
        from snellen.storage.manifest import RunMetrics

        return RunMetrics.model_validate(self._row["metrics"] or {})

    @property
    def resuming(self) -> str:
        """The command that goes on with it, or asks again what failed."""
        engine = " --engine ray" if self.manifest.sink else ""
        return f"snellen resume {self.id}{engine}{self.where}"

    @property
    def where(self) -> str:
        """What a command takes besides to find its workspace."""
        return self.store.option

    @property
    def primary(self) -> str:
        """The name of the figure that it is ranked by."""
        return self.metrics.primary

    @property
    def headline(self) -> Figure | None:
        """That figure with its interval; None while there is none, or where nobody knows the truth."""
        return self.metrics.figure(self.primary)

    @property
    def classifies(self) -> bool:
        """Whether it predicts classes, so that there are confusions and figures class by class. Known by its
        figures, or, while there are none, by its protocol.
        """
        if self.metrics.n:
            return self.metrics.figure("macro_f1") is not None
        entry = PROTOCOLS.entries.get(self.manifest.protocol.name)
        return bool(getattr(entry and entry.factory, "classifies", False))

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.manifest.model.name)

    @property
    def data(self) -> str:
        """The data set's name."""
        return str(self.manifest.data.name)

    @property
    def protocol(self) -> str:
        """The protocol as the user named it, options and all."""
        return str(self.manifest.protocol.title)

    @property
    def predictions(self) -> pd.DataFrame:
        """One row a sample (see :meth:`snellen.storage.store.Store.frame`)."""
        return self.store.frame(self.id)

    @property
    def outcomes(self) -> pd.DataFrame:
        """One row a sample with id, label, prediction, outcome, images and marks alone: small."""
        import pandas as pd

        columns = ("id", "label", "prediction", "outcome", "images", "metrics")
        rows = ([row[name] for name in columns] for row in self.store.findings(self.id))
        return pd.DataFrame(rows, columns=list(columns))

    def first_error(self) -> str:
        """Why the first of the samples that ended in an error did; empty where none did."""
        with closing(self.store.findings(self.id)) as rows:
            return str(next((row["reason"] for row in rows if row["outcome"] == Outcome.ERROR), ""))

    def first(self, most: int) -> list[dict[str, Any]]:
        """The first samples, with id and label."""
        with closing(self.store.sample_rows(self.id)) as rows:
            return list(islice(rows, most))

    def samples(self) -> Iterator[dict[str, Any]]:
        """All samples in the order of the data set, as :meth:`sample`."""
        return self.store.sample_rows(self.id)

    def sample(self, id: str) -> dict[str, Any]:
        """A sample: label, images (sha256), and its content: question, choices, references …

        Raises:
            UnknownName: there is none of that id.
        """
        return self.store.sample_row(self.id, id)

    def answered(self) -> Iterator[tuple[dict[str, Any], list[Response]]]:
        """Rows of samples with their predictions, each with the responses behind it."""
        return self.store.answered(self.id)

    def findings(self) -> Iterator[dict[str, Any]]:
        """Rows of samples with their predictions and without what was answered."""
        return self.store.findings(self.id)

    def finding(self, position: int) -> dict[str, Any]:
        """The sample at a position of the data set, with its prediction.

        Raises:
            UnknownName: there is none.
        """
        with closing(self.store.findings(self.id, position)) as rows:
            row = next(rows, None)
        if row is None:
            raise UnknownName(f"{self.id} has no sample at position {position}.")
        return row

    def neighbours(self, position: int) -> tuple[int | None, int | None]:
        """The positions of the samples before and after one."""
        return self.store.neighbours(self.id, position)

    @property
    def folder(self) -> Path:
        """The folder of its workspace."""
        return self.store.folder

    def replies(self, sample: str) -> list[Response]:
        """The responses behind one sample's prediction, in the order of asking."""
        return self.store.replies(self.id, sample)

    def preview(self, sha256: str) -> Path:
        """Where the small preview of an image is kept."""
        return self.store.preview_path(sha256)

    def as_dict(self) -> dict[str, Any]:
        """Id, model, data, protocol, status and metrics, as JSON."""
        return {
            "id": self.id,
            "model": self.model,
            "data": self.data,
            "protocol": self.protocol,
            "status": self.status,
            "metrics": self.metrics.as_dict(),
        }

    def __repr__(self) -> str:
        headline = self.headline
        figure = f", {self.primary}={headline.value:.3f}" if headline else ""
        return f"<Run {self.id}: {self.status}{figure}>"


def open_run(name: str = "@last", workspace: Path | str | None = None) -> Run:
    """A stored run by its id, a unique prefix of it, or ``@last``.

    Raises:
        UnknownName: none, or several.
    """
    store = Store(workspace, create=False)
    return Run(store, store.find(name))


def list_runs(workspace: Path | str | None = None) -> Iterator[Run]:
    """All runs of a workspace, the oldest first."""
    store = Store(workspace, create=False)
    for row in store.list_runs():
        yield Run(store, row["id"], row)
