"""Stored runs: settings, results, and samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cached_property
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen._util.environment import is_gone
from snellen._util.paths import bare_name, is_local, without_folders, without_paths
from snellen._util.redaction import redact
from snellen._util.words import counted
from snellen.errors import SnellenError, UnknownName
from snellen.metrics.format import counts, heading_of, number, with_interval
from snellen.metrics.registry import METRICS
from snellen.metrics.summary import summarize
from snellen.protocols.base import PROTOCOLS
from snellen.storage.store import Store, default_workspace
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
        """``running``, ``interrupted``, ``stopped`` (by an error or a limit) or ``finished``."""
        status = str(self._row["status"])
        if status == "running" and is_gone(self._row["manifest"].get("process") or {}):
            return "interrupted"
        return status

    @cached_property
    def manifest(self) -> RunManifest:
        """Everything needed to reproduce the run."""
        from snellen.storage.manifest import RunManifest

        return RunManifest.model_validate(self._row["manifest"])

    @cached_property
    def metrics(self) -> RunMetrics:
        """The metrics (see docs/metrics.md) of the samples so far."""
        from snellen.storage.manifest import RunMetrics

        return RunMetrics.model_validate(self._row["metrics"] or self._metrics_so_far())

    def _metrics_so_far(self) -> dict[str, Any]:
        """Compute the metrics of an unfinished run; none if its protocol cannot be built again."""
        record = self.manifest.protocol
        try:
            options = {name: value for name, value in record.options.items() if value is not None}
            protocol = PROTOCOLS.make(record.name, options)
        except SnellenError:
            return {}
        details = (row["details"] for row in self.findings())
        return summarize(self.store.rows(self.id), details, protocol)

    @property
    def updated(self) -> str:
        """When it last changed, as ISO 8601 in UTC."""
        return str(self._row["updated"])

    @property
    def speed(self) -> float | None:
        """Samples per second so far, of those that asked the model; None while there are none."""
        count, seconds = self._row["n_new"], self._row["seconds"]
        return count / seconds if count and seconds else None

    @property
    def resuming(self) -> str:
        """The command that resumes it, or retries failed samples."""
        engine = " --engine ray" if self.manifest.sink else ""
        return f"snellen resume {self.id}{engine}{self.where}"

    @property
    def where(self) -> str:
        """The option that tells a command its workspace."""
        return self.store.option

    @property
    def primary(self) -> str:
        """The name of the score that it is ranked by."""
        return self.metrics.primary

    @property
    def headline(self) -> Figure | None:
        """That score with its interval; None while there is none, or without references."""
        return self.metrics.figure(self.primary)

    @property
    def classifies(self) -> bool:
        """Whether it predicts classes, so that there are confusions and per-class metrics. Known from its
        metrics or, while there are none, from its protocol.
        """
        if self.metrics.n:
            return self.metrics.figure("macro_f1") is not None
        entry = PROTOCOLS.entries.get(self.manifest.protocol.name)
        return bool(getattr(entry and entry.factory, "classifies", False))

    @property
    def model(self) -> str:
        """The model's name, without the folders of a path."""
        return bare_name(self.manifest.model.name)

    @property
    def source(self) -> str:
        """The data set's name as the user typed it, with its path."""
        return str(self.manifest.data.name)

    @property
    def data(self) -> str:
        """The data set's name in all that is published: the user's (``--data-name``), or that of
        :attr:`source` without folders, with the start of its fingerprint.
        """
        data = self.manifest.data
        if data.title is not None:
            return data.title
        name = bare_name(data.name)
        return f"{name} ({data.fingerprint[:8]})" if is_local(data.name) else name

    @property
    def protocol(self) -> str:
        """The protocol as the user named it, with options."""
        return without_folders(self.manifest.protocol.title)

    def score_of(self, row: Mapping[Any, Any]) -> float | None:
        """Return a sample's primary score, in classification 1 or 0 for right or wrong; None if unknown.

        Args:
            row: of :attr:`predictions`, :attr:`outcomes` or :meth:`findings`.
        """
        if self.classifies:
            return None if row["label"] is None else float(row["prediction"] == row["label"])
        score: float | None = row["metrics"].get(self.primary)
        return score

    def verdict(self, row: Mapping[Any, Any]) -> bool | None:
        """Return whether a sample was answered right; None if that is unknown, partly so, or a matter of
        degree (see :meth:`snellen.metrics.registry.Metric.verdict`).
        """
        score = self.score_of(row)
        return METRICS[self.primary].verdict(score)

    def published_manifest(self) -> dict[str, Any]:
        """Return the manifest as JSON, without paths and the name of the machine."""
        manifest: dict[str, Any] = without_paths(self.manifest.as_dict())
        manifest.pop("process", None)
        (manifest.get("plan") or {}).pop("folder", None)
        manifest["data"]["name"] = self.data
        if self.manifest.data.title is not None and manifest.get("plan"):
            manifest["plan"]["data"] = [self.data]
        return manifest

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per sample (see :meth:`snellen.storage.store.Store.frame`); in classification also
        ``correct``.
        """
        frame = self.store.frame(self.id)
        if self.classifies and len(frame):
            right = (frame["prediction"] == frame["label"]).astype(object)
            frame["correct"] = right.where(frame["label"].notna(), None)
        return frame

    @property
    def outcomes(self) -> pd.DataFrame:
        """One small row per sample: id, label, prediction, outcome, images and scores only."""
        import pandas as pd

        columns = ("id", "label", "prediction", "outcome", "images", "metrics")
        rows = ([row[name] for name in columns] for row in self.store.records(self.id).outcomes())
        return pd.DataFrame(rows, columns=list(columns))

    def first_error(self) -> str:
        """The reason of the first error; empty if there are none."""
        with closing(self.store.findings(self.id)) as rows:
            return str(next((row["reason"] for row in rows if row["outcome"] == Outcome.ERROR), ""))

    def first(self, most: int) -> list[dict[str, Any]]:
        """Return the first samples, with id and label."""
        with closing(self.store.sample_rows(self.id)) as rows:
            return list(islice(rows, most))

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield all samples in the order of the data set, as :meth:`sample`."""
        return self.store.sample_rows(self.id)

    def sample(self, id: str) -> dict[str, Any]:
        """Return a sample: label, images (SHA-256), and content: question, choices, references …

        Raises:
            UnknownName: no such id.
        """
        return self.store.sample_row(self.id, id)

    def answered(self) -> Iterator[tuple[dict[str, Any], list[Response]]]:
        """Yield samples with their predictions and the underlying responses."""
        return self.store.answered(self.id)

    def findings(self) -> Iterator[dict[str, Any]]:
        """Yield samples with their predictions, without responses."""
        return self.store.findings(self.id)

    def finding(self, position: int) -> dict[str, Any]:
        """Return the sample at a position of the data set, with its prediction.

        Raises:
            UnknownName: there is none.
        """
        with closing(self.store.findings(self.id, position)) as rows:
            row = next(rows, None)
        if row is None:
            raise UnknownName(f"{self.id} has no sample at position {position}.")
        return row

    @property
    def folder(self) -> Path:
        """The folder of its workspace."""
        return self.store.folder

    def replies(self, sample: str) -> list[Response]:
        """Return the responses behind a sample's prediction, in the order of the requests."""
        return self.store.replies(self.id, sample)

    def preview(self, sha256: str) -> Path:
        """Return the path of an image's small preview."""
        return self.store.preview_path(sha256)

    def as_dict(self) -> dict[str, Any]:
        """Return id, model, data, protocol, status and metrics, as JSON."""
        return {
            "id": self.id,
            "model": self.model,
            "data": self.data,
            "protocol": self.protocol,
            "status": self.status,
            "metrics": self.metrics.as_dict(),
            "skipped": without_paths([row.as_dict() for row in self.manifest.data.skipped]),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the run as its id and workspace, without keys."""
        where = self.store.where
        return (_reopened, (None if where == default_workspace() else redact(where), self.id))

    def _repr_html_(self) -> str:
        """Show the run as a table in notebooks."""
        figures = self.metrics
        rows = {
            "model": self.model,
            "data": f"{self.data}, {counted(self.manifest.data.n, 'sample')}",
            "protocol": self.protocol,
            "status": self.status,
            **{
                heading_of(name): with_interval(name, figures.figure(name), figures.outcomes)
                for name in figures.scores
                if figures.figure(name)
            },
            "outcomes": counts(figures.outcomes),
            "items/s": number(figures.items_per_second),
        }
        cells = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())
        return f"<table><caption>{escape(self.id)}</caption><tbody>{cells}</tbody></table>"

    def __repr__(self) -> str:
        headline = self.headline
        figure = f", {self.primary}={headline.value:.3f}" if headline else ""
        return f"<Run {self.id}: {self.status}{figure}>"


def _reopened(where: str | None, run: str) -> Run:
    return Run(Store(where, create=False), run)


def open_run(name: str = "@last", workspace: Path | str | None = None) -> Run:
    """Open a stored run by its id, a unique prefix of it, ``@last``, or ``PREFIX@last``.

    Raises:
        UnknownName: none, or several.
    """
    store = Store(workspace, create=False)
    return Run(store, store.find(name))


def list_runs(workspace: Path | str | None = None) -> Iterator[Run]:
    """List all runs of a workspace, oldest first."""
    store = Store(workspace, create=False)
    for row in store.list_runs():
        yield Run(store, row["id"], row)
