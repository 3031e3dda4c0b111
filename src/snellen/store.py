"""The workspace: a folder with one database and small previews of images.

Tables: ``runs`` (a manifest each), ``samples`` and ``predictions`` (of runs), ``responses`` (shared by
all runs, under a key of everything that can change an answer). Written as it goes: what was answered
stays, whatever happens next.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from snellen.errors import StoreError, UnknownName, did_you_mean
from snellen.schema import COLUMNS, SCHEMA_VERSION, metadata, predictions, responses, runs, samples
from snellen.types import Outcome, Prediction, Response, Sample, Score

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Finding", "Remembered", "Store", "default_workspace"]


class Remembered(NamedTuple):
    """A response on its way into the memory."""

    key: str
    model: str
    request: Mapping[str, Any]
    response: Response


class Finding(NamedTuple):
    """What came of one sample."""

    position: int
    sample: Sample
    prediction: Prediction
    keys: Sequence[str]


def default_workspace() -> Path:
    """``$SNELLEN_WORKSPACE``, or ``./snellen-workspace``."""
    return Path(os.environ.get("SNELLEN_WORKSPACE") or "snellen-workspace")


class Store:
    """An open workspace.

    Args:
        folder: made when it is not there.
        create: if False, a folder that is no workspace is refused instead.

    Raises:
        StoreError: the folder or its database cannot be used.
    """

    def __init__(self, folder: Path | str | None = None, *, create: bool = True) -> None:
        self.folder = Path(folder) if folder is not None else default_workspace()
        path = self.folder / "snellen.db"
        if not create and not path.exists():
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
        readonly = path.exists() and not os.access(path.parent, os.W_OK)
        # Without a log beside it, a database that may only be read is one that nobody writes.
        log = path.with_name(f"{path.name}-wal")
        alone = "" if log.exists() and log.stat().st_size else "&immutable=1"
        where = f"file:{path}?mode=ro{alone}&uri=true" if readonly else str(path)
        self.engine = sa.create_engine(f"sqlite:///{where}", connect_args={"timeout": 60})
        sa.event.listen(self.engine, "connect", _configure)
        with self._explained():
            if not readonly:
                self._make()
            with self.engine.connect() as connection:
                found = connection.execute(sa.text("PRAGMA user_version")).scalar_one()
        if found != SCHEMA_VERSION:
            raise StoreError(
                f"{path}: written by another version of Snellen (layout {found}; this one reads "
                f"{SCHEMA_VERSION}). Use that version, or another --workspace."
            )

    def _make(self) -> None:
        """Make the tables of a new workspace. Where two processes begin at once, one of them does."""
        for patience in range(50, -1, -1):
            try:
                with self.engine.connect() as connection:
                    if connection.execute(sa.text("PRAGMA user_version")).scalar_one() != 0:
                        return
                    connection.execute(sa.text("PRAGMA journal_mode = WAL"))
                    connection.commit()
                    connection.execute(sa.text("BEGIN IMMEDIATE"))
                    if connection.execute(sa.text("PRAGMA user_version")).scalar_one() == 0:
                        metadata.create_all(connection)
                        connection.execute(sa.text(f"PRAGMA user_version = {SCHEMA_VERSION}"))
                    connection.commit()
                return
            except sa.exc.OperationalError:
                if not patience:
                    raise
                time.sleep(0.1)

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        with self._explained(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DatabaseError as error:
            raise StoreError(
                f"{self.folder}: the workspace's database refused ({error.orig}). What was answered "
                "before is kept; mend the cause and run the same command again."
            ) from error

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    # ── memory ──────────────────────────────────────────────────────────────────────────────────────

    def recall(self, keys: Sequence[str]) -> dict[str, Response]:
        """The responses that are remembered under these keys."""
        found = {}
        with self._begin() as connection:
            for start in range(0, len(keys), 500):
                chunk = keys[start : start + 500]
                query = sa.select(responses).where(responses.c.key.in_(chunk))
                for row in connection.execute(query).mappings():
                    found[row["key"]] = _response(row)
        return found

    def remember(self, rows: Sequence[Remembered]) -> None:
        """Commit responses; one that is there already stays as it is."""
        if not rows:
            return
        now = _now()
        values = [
            {
                "key": row.key,
                "model": row.model,
                "request": row.request,
                "prompt": row.response.prompt,
                "text": row.response.text,
                "scores": [[_finite(s.value), s.tokens] for s in row.response.scores],
                "outcome": row.response.outcome,
                "reason": row.response.reason,
                "latency": row.response.latency,
                "prompt_tokens": row.response.prompt_tokens,
                "completion_tokens": row.response.completion_tokens,
                "created": now,
            }
            for row in rows
        ]
        with self._begin() as connection:
            connection.execute(sqlite.insert(responses).on_conflict_do_nothing(), values)

    # ── runs ────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, name: str, digest: str, manifest: Mapping[str, Any]) -> str:
        """The id of the run of this digest: the one that is there, or a new one ``name-xxxxxx``."""
        now = _now()
        with self._begin() as connection:
            query = sa.select(runs.c.id).where(runs.c.digest == digest)
            if (known := connection.execute(query).scalar_one_or_none()) is not None:
                return str(known)
            row = {"digest": digest, "created": now, "updated": now, "status": "running"}
            for length in (6, 12, 64):  # longer only where two digests begin alike
                run = f"{name}-{digest[:length]}"
                new = sqlite.insert(runs).on_conflict_do_nothing()
                done = connection.execute(new.values(id=run, manifest=manifest, **row))
                if done.rowcount:
                    return run
                # Another process may have begun the same run this very moment.
                if (known := connection.execute(query).scalar_one_or_none()) is not None:
                    return str(known)
        raise StoreError(f"{self.folder}: no free id for a run of {name}.")

    def unfinished(self, specification: str) -> str | None:
        """The nonce of the newest fresh run of a specification that is not finished."""
        query = sa.select(runs.c.manifest).where(runs.c.status == "running").order_by(runs.c.updated.desc())
        with self._begin() as connection:
            for manifest in connection.execute(query).scalars():
                if manifest.get("specification") == specification and manifest.get("fresh"):
                    return str(manifest["fresh"])
        return None

    def examined(self, run: str, ids: Sequence[str]) -> set[str]:
        """Which of these samples have a prediction already (one with an error does not count)."""
        query = sa.select(predictions.c.sample).where(
            predictions.c.run == run,
            predictions.c.sample.in_(ids),
            predictions.c.outcome != Outcome.ERROR,
        )
        with self._begin() as connection:
            return set(connection.execute(query).scalars())

    def record(self, run: str, findings: Sequence[Finding], *, fresh: int = 0, seconds: float = 0.0) -> None:
        """Commit what came of some samples, and how long it took; a finding replaces an older one."""
        with self._begin() as connection:
            if findings:
                rows = [
                    {
                        "run": run,
                        "id": f.sample.id,
                        "position": f.position,
                        "label": f.sample.label,
                        "images": [image.sha256 for image in f.sample.images],
                        "content": _content(f.sample),
                    }
                    for f in findings
                ]
                connection.execute(sqlite.insert(samples).on_conflict_do_nothing(), rows)
                new = sqlite.insert(predictions)
                replaced = [c.name for c in predictions.columns if not c.primary_key]
                connection.execute(
                    new.on_conflict_do_update(
                        index_elements=["run", "sample"],
                        set_={name: new.excluded[name] for name in replaced},
                    ),
                    [_prediction_row(run, f) for f in findings],
                )
            connection.execute(
                sa.update(runs)
                .where(runs.c.id == run)
                .values(fresh=runs.c.fresh + fresh, seconds=runs.c.seconds + seconds, updated=_now())
            )

    def forget(self, run: str) -> None:
        """Take back a run that came to nothing; one that is finished stays."""
        with self._begin() as connection:
            connection.execute(sa.delete(runs).where(runs.c.id == run, runs.c.status == "running"))

    def finish(self, run: str, metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Commit a run's figures; ``manifest`` replaces the one it began with."""
        change = sa.update(runs).where(runs.c.id == run)
        with self._begin() as connection:
            connection.execute(
                change.values(
                    status="finished", metrics=_jsonable(metrics), manifest=manifest, updated=_now()
                )
            )

    def run(self, run: str) -> dict[str, Any]:
        """A run's row, by its full id."""
        with self._begin() as connection:
            query = sa.select(runs).where(runs.c.id == run)
            return dict(connection.execute(query).mappings().one())

    def list_runs(self) -> list[dict[str, Any]]:
        """All runs, the newest last."""
        with self._begin() as connection:
            query = sa.select(runs).order_by(runs.c.created, runs.c.id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def find(self, name: str) -> str:
        """The full id that a unique prefix, or ``@last``, stands for.

        Raises:
            UnknownName: none, or several.
        """
        with self._begin() as connection:
            newest = sa.select(runs.c.id).order_by(runs.c.updated.desc())
            ids = [str(row) for row in connection.execute(newest).scalars()]
        if name == "@last" and ids:
            return ids[0]
        if name in ids:
            return name
        found = [run for run in ids if name and run.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownName(
                f"{name!r} begins the ids of {len(found)} runs: {', '.join(found[:5])}"
                f"{' …' if len(found) > 5 else ''}. Give more of one."
            )
        known = f"The newest: {', '.join(ids[:5])}." if ids else "There are no runs yet."
        raise UnknownName(
            f"No run {name!r} in {self.folder}.{did_you_mean(name, ids)} {known} See: snellen ls runs"
        )

    def sample_rows(self, run: str) -> Iterator[dict[str, Any]]:
        """Rows of a run's samples, in the order of the data set."""
        query = sa.select(samples).where(samples.c.run == run).order_by(samples.c.position)
        with self._begin() as connection:
            for row in connection.execute(query).mappings():
                yield dict(row)

    def findings(self, run: str) -> Iterator[dict[str, Any]]:
        """Rows of samples with their predictions, in the order of the data set."""
        query = (
            sa.select(
                samples.c.id,
                samples.c.label,
                samples.c.images,
                predictions.c.label.label("prediction"),
                *[predictions.c[name] for name in ("outcome", "reason", "questions")],
                *[predictions.c[name] for name in ("ranking", "details", "responses")],
            )
            .join(
                predictions,
                (predictions.c.run == samples.c.run) & (predictions.c.sample == samples.c.id),
            )
            .where(samples.c.run == run)
            .order_by(samples.c.position)
        )
        with self._begin() as connection:
            for row in connection.execution_options(yield_per=500).execute(query).mappings():
                yield dict(row)

    def frame(self, run: str) -> pd.DataFrame:
        """One row a sample: id, label, prediction, outcome, reason, answers, questions, ranking,
        latencies (seconds, one a request), prompt_tokens, completion_tokens, images (sha256), and
        one column for each of the protocol's details.
        """
        import pandas as pd

        return pd.DataFrame(self.rows(run))

    def rows(self, run: str) -> Iterator[dict[str, Any]]:
        """The rows of :meth:`frame`, a page in memory at a time."""
        page: list[dict[str, Any]] = []
        for finding in self.findings(run):
            page.append(finding)
            if len(page) == 200:
                yield from self._with_answers(page)
                page = []
        yield from self._with_answers(page)

    def _with_answers(self, page: list[dict[str, Any]]) -> list[dict[str, Any]]:
        known = self.recall([key for row in page for key in row["responses"]])
        rows = []
        for row in page:
            replies = [known[key] for key in row["responses"] if key in known]
            rows.append(
                {
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
                }
                # A protocol's detail never takes the place of a column.
                | {k if k not in COLUMNS else f"details_{k}": v for k, v in row["details"].items()}
            )
        return rows

    def replies(self, run: str, sample: str) -> list[Response]:
        """The responses behind one sample's prediction, in the order of asking."""
        query = sa.select(predictions.c.responses).where(
            predictions.c.run == run, predictions.c.sample == sample
        )
        with self._begin() as connection:
            keys = list(connection.execute(query).scalar_one_or_none() or [])
        known = self.recall(keys)
        return [known[key] for key in keys if key in known]

    # ── previews ────────────────────────────────────────────────────────────────────────────────────

    def preview_path(self, sha256: str) -> Path:
        """Where the preview of the image of this hash is kept."""
        return self.folder / "previews" / sha256[:2] / f"{sha256}.jpg"

    def keep_preview(self, sha256: str, data: bytes) -> None:
        """Keep a preview; it appears whole or not at all."""
        path = self.preview_path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(data)
        part.replace(path)


def _configure(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = NORMAL")  # with WAL: a killed process loses no commit
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _content(sample: Sample) -> dict[str, Any]:
    """What reading a stored answer again may need, as JSON (what is none of it is shown as text)."""
    content = {
        "background": sample.background,
        "synonyms": {key: list(names) for key, names in sample.synonyms.items()},
        "question": sample.question,
        "choices": list(sample.choices),
        "references": list(sample.references),
        "meta": dict(sample.meta),
    }
    kept = {key: value for key, value in content.items() if value}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return plain


def _finite(value: float) -> float | None:
    return None if value == -math.inf else value


def _jsonable(value: Any) -> Any:
    """The value with NaN as None: JSON has no word for it."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def _response(row: Mapping[Any, Any]) -> Response:
    return Response(
        row["text"],
        tuple(Score(-math.inf if value is None else value, n) for value, n in row["scores"]),
        Outcome(row["outcome"]),
        row["reason"],
        row["latency"],
        row["prompt_tokens"],
        row["completion_tokens"],
        row["prompt"],
    )


def _prediction_row(run: str, finding: Finding) -> dict[str, Any]:
    prediction = finding.prediction
    return {
        "run": run,
        "sample": finding.sample.id,
        "label": prediction.label,
        "outcome": prediction.outcome,
        "reason": prediction.reason,
        "questions": prediction.questions,
        "ranking": list(prediction.ranking),
        "details": dict(prediction.details),
        "responses": list(finding.keys),
    }
