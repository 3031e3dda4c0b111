"""Evaluate one model on one data set under one protocol: answer what is missing, store it, compute
metrics.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from snellen._util.environment import git_hash, hardware, peak_rss, this_process, versions
from snellen._util.redaction import redact
from snellen._version import __version__
from snellen.datasets.base import InvalidRow, Selection
from snellen.engine.asking import spread
from snellen.engine.cache import CachedModel
from snellen.engine.compatibility import incompatibility, refuse_too_long
from snellen.engine.identity import digest_of, plain, slug_of
from snellen.engine.official import official_figures
from snellen.engine.pending import is_done, pending, refuse_skipped, skipped_before
from snellen.engine.progress import Progress, ProgressCallback
from snellen.engine.recorder import BatchStats, SampleRunner
from snellen.errors import Stopped, StoreError, Unsupported, UsageError
from snellen.metrics.summary import summarize
from snellen.models.base import Model
from snellen.protocols.base import Protocol, check_protocol
from snellen.scorers.base import SamplePrediction
from snellen.storage.store import Store
from snellen.types import Outcome, Request, Response, Usage

if TYPE_CHECKING:
    from snellen.engine.ray.executor import RunHandle
    from snellen.storage.manifest import PlanRecord, RunManifest

__all__ = ["Evaluation"]

log = logging.getLogger(__name__)
#: Positions of some samples; None for all.
Positions = Sequence[int] | None


class Evaluation:
    """An evaluation to run or resume.

    Args:
        fresh: ignore stored answers and start a new run.
        expect: the run that this must resume.
        plan: the user's request as JSON, if it can be written so; needed to resume the run.
        fingerprint: of the data, if known.
        title: the protocol as the user named it, with options.
        rescored: the run whose answers are parsed again; no image is read.
        cache_salt: of the fresh run those answers belong to.
        data_title: the name to publish the data set by.
        sink: the folder of Parquet files for predictions and answers; None for the store.

    Raises:
        Unsupported: the model does not support the protocol.
        DataError: the protocol does not fit this data set.
        UsageError: the expected run evaluates something else.
    """

    def __init__(
        self,
        model: Model,
        data: Selection,
        protocol: Protocol,
        store: Store,
        *,
        seed: int = 0,
        fresh: bool = False,
        fingerprint: str | None = None,
        title: str | None = None,
        data_title: str | None = None,
        rescored: str | None = None,
        cache_salt: str | None = None,
        expect: str | None = None,
        plan: PlanRecord | None = None,
        sink: str | None = None,
    ) -> None:
        if (reason := incompatibility(model, protocol)) is not None:
            raise Unsupported(f"{reason}.")
        check_protocol(protocol, data.labels, data.background)
        protocol = protocol.for_model(model)
        self.scorers = protocol.scorers()
        self.model, self.data, self.protocol, self.store = model, data, protocol, store
        self.model.folder = store.folder
        self.seed, self.title, self.rescored = seed, title or protocol.name, rescored
        self.skipped: list[InvalidRow] = list(data.data.invalid)
        self.fingerprint = fingerprint or data.fingerprint()
        # The run's identity: the same specification is the same run, wherever and whenever it starts.
        self.spec: dict[str, Any] = {
            "snellen": __version__,
            "model": dict(model.identity()),
            "data": self.fingerprint,
            "protocol": {"name": protocol.name, **protocol.options()},
        }
        if data.shots:
            self.spec["shots"] = [message.identity() for message in data.shots]
        if self.scorers:
            self.spec["scorers"] = [dict(scorer.identity()) for scorer in self.scorers]
        if rescored is not None:
            self.spec["rescored"] = rescored
        base = digest_of(self.spec)
        # An interrupted fresh run is resumed; only after it has finished does --fresh start another.
        if cache_salt is None:
            cache_salt = (store.unfinished(base, sink) or datetime.now(UTC).isoformat()) if fresh else ""
        self.cache_salt = cache_salt
        self.base, self.plan = base, plan
        #: Evaluates instead of this process, if set.
        self.handle: RunHandle | None = None
        #: The cost of scorers' models in US dollars, including cached replies; None if unknown.
        self.scoring_cost: float | None = None
        digest = digest_of({**self.spec, "cache_salt": self.cache_salt})
        if expect is not None and store.run(expect)["digest"] != digest:
            raise UsageError(self._what_changed(expect))
        #: The folder for predictions and answers; None for the store.
        self.sink = sink
        self.run = store.begin(self._slug(), digest, self.manifest().as_dict())
        self._keep_sink()
        if data_title is not None:
            self.store.name_data(self.run, data_title)

    def _keep_sink(self) -> None:
        """Reuse the shards of the run's first start.

        Raises:
            UsageError: it was started with another sink, or with none.
        """
        began = self.store.run(self.run)["manifest"].get("sink")
        if began != self.sink:
            with closing(self.store.findings(self.run)) as rows:
                if next(rows, None) is None:  # it has no results yet
                    self.store.move(self.run, self.sink)
                    began = self.sink
        if not self.finished and began != self.sink:
            there = f"--sink parquet:{began}" if began else "no --sink"
            raise UsageError(
                f"{self.run} was started with {there}, which holds its answers. Resume it with that, or "
                "start a new run with --fresh"
            )
        self.sink = began

    def _slug(self) -> str:
        """Return model-protocol-data, in letters, digits and hyphens."""
        model = self.model.name.partition("?")[0]  # a URL would hide the name
        title = re.sub(r"[:/]", "-", self.title)  # keep the protocol readable if a model is among its options
        return "-".join(slug_of(part) for part in (model, title, self.data.name))

    @property
    def finished(self) -> bool:
        """Whether every sample has been evaluated without an error, and graded, if necessary."""
        return is_done(self.store.run(self.run))

    def _what_changed(self, run: str) -> str:
        """Explain how an evaluation differs from that of a run."""
        from snellen.storage.manifest import RunManifest

        old = RunManifest.model_validate(self.store.run(run)["manifest"])
        parts: dict[str, tuple[Any, Any]] = {
            "Snellen's version": (old.snellen, self.spec["snellen"]),
            "the model": (old.model.identity, self.spec["model"]),
            "the data": (old.data.fingerprint, self.spec["data"]),
            "its examples": (list(old.protocol.shots), self.spec.get("shots", [])),
            "the protocol": ({"name": old.protocol.name, **old.protocol.options}, self.spec["protocol"]),
        }
        other = [name for name, (then, now) in parts.items() if then != json.loads(json.dumps(now))]
        return (
            f"Cannot resume {run}: {' and '.join(other) or 'what it evaluates'} changed since this run "
            "started. Start a new one with: snellen run"
        )

    async def evaluate(
        self, watch: ProgressCallback | None = None, *, among: Positions = None, race: str = ""
    ) -> None:
        """Evaluate what is missing. Answers are stored as they arrive; so are metrics, unless it is killed.

        Args:
            among: positions of the samples to evaluate, in this order; all by default.
            race: why the run ends with these, if it does.

        Raises:
            Stopped: the model gave up, or the budget is used up.
        """
        if self.finished:
            self.skipped[:] = skipped_before(self.store.run(self.run))
            if not (self.data.skip_invalid or self.rescored):
                refuse_skipped(self.skipped[len(self.data.data.invalid) :])
            self.store.record(self.run, [])  # it becomes @last
            return
        self.protocol.prepare()
        self.store.start(self.run, this_process())
        try:
            if self.handle is not None:
                await self._examine(watch, among)
            else:
                self.model.load()
                refuse_too_long(self.model, self.protocol, self.data)
                async with self.model.connected():
                    await self._examine(watch, among)
            if among is not None:
                stored = sum(1 for _ in self.store.findings(self.run))
                if stored + len(self.skipped) - len(self.data.data.invalid) < len(self.data):
                    self._finish("stopped", {"stopped": race, "raced": True}, {})
                    return
            overall = await self._score()
        except Stopped as error:
            self._finish("stopped", {"stopped": str(error)}, {})
            raise
        except StoreError:  # what is stored is incomplete
            raise
        except BaseException:
            with suppress(Exception):  # the first error matters
                self._finish("interrupted", {}, {})
            raise
        self._finish("finished", {}, overall)

    async def _score(self) -> dict[str, Any]:
        """Let the protocol's scorers score all predictions; return metrics of the whole run."""
        if not self.scorers:
            return {}
        log.info("%s: scoring", self.run)
        places = {self.data.id(i): i for i in range(len(self.data))}
        rows = list(self.store.findings(self.run))
        predictions = []
        for row in rows:
            look = partial(self.data.__getitem__, places[row["id"]])
            outcome = Outcome(row["outcome"])
            bare = replace(look(), images=())
            replies = partial(self.store.replies, self.run, row["id"])
            predictions.append(
                SamplePrediction(bare, row["prediction"], outcome, row["details"], look, replies)
            )
        overall: dict[str, Any] = {}
        scores: list[dict[str, float]] = [dict(row["metrics"]) for row in rows]
        details: dict[str, dict[str, Any]] = {}
        for scorer in self.scorers:
            await asyncio.to_thread(scorer.prepare)
            try:
                new_scores = await scorer.score(predictions, self._ask)
            finally:
                scorer.close()
            for known, new in zip(scores, new_scores, strict=True):
                known.update({name: value for name, value in new.items() if not name.startswith("_")})
            overall |= scorer.overall(predictions, new_scores)
            for sample, more in scorer.details().items():
                details.setdefault(sample, {}).update(more)
        kept = {row["id"]: {**row["details"], **details[row["id"]]} for row in rows if row["id"] in details}
        metrics = {row["id"]: score for row, score in zip(rows, scores, strict=True)}
        self.store.keep_metrics(self.run, metrics, kept)
        return overall

    async def _ask(self, model: Model, requests: Sequence[Request]) -> list[Response]:
        """Get the answers of a scorer's model, from the cache if possible."""
        model.limits, model.folder = self.model.limits, self.model.folder
        memory = CachedModel(model, self.store, self.cache_salt)
        async with model.connected():
            replies = [answer.response for answer in await memory.respond(requests)]
        if (cost := model.price(Usage.of(replies))) is not None:
            self.scoring_cost = (self.scoring_cost or 0.0) + cost
        return replies

    def _finish(self, status: str, more: Mapping[str, Any], overall: Mapping[str, Any]) -> None:
        """Store the metrics of the evaluated samples."""
        from snellen.storage.manifest import RunManifest

        began = RunManifest.model_validate(self.store.run(self.run)["manifest"])
        kept = {key: value for key, value in began.as_dict().items() if key not in ("stopped", "raced")}
        manifest = RunManifest.model_validate({**kept, **plain(self._results(began)), **more})
        figures = self._metrics(manifest, overall)
        if manifest.raced:  # when to stop was chosen by the scores, so intervals for a fixed n do not hold
            figures |= {name: {**figures[name], "low": None, "high": None} for name in figures["scores"]}
        self.store.finish(self.run, figures, manifest.as_dict(), status)

    async def _examine(self, watch: ProgressCallback | None, among: Positions) -> None:
        progress = Progress(len(self.data) if among is None else len(among))
        tallies = self._here(progress.tally, among) if self.handle is None else self.handle.evaluate()
        who = self.model if self.handle is None else self.handle
        async with aclosing(tallies):
            async for tally in tallies:
                progress.tally.add(tally)
                progress.status = who.status()
                if watch is not None:
                    watch(progress)
        if self.handle is not None:
            self.skipped += self.handle.skipped
            shards, written = self.store.shards(self.run), self.handle.files
            if shards is not None and (missing := written - set(shards.names())):
                raise StoreError(
                    f"{redact(shards.url)}: {len(missing)} of {len(written)} shards of {self.run} are "
                    "missing here. Use a folder that all nodes share, or a bucket (s3://…, gs://…)."
                )

    async def _here(self, progress: BatchStats, among: Positions) -> AsyncGenerator[BatchStats]:
        """Evaluate the missing samples in this process."""
        work = SampleRunner(
            self.model,
            self.protocol,
            self.store,
            self.run,
            cache_salt=self.cache_salt,
            skip_invalid=self.data.skip_invalid,
            looks=self.rescored is None,
        )
        work.skipped = self.skipped

        def count(known: int) -> None:
            progress.known += known

        evaluated = partial(self.store.examined, self.run)
        samples = pending(self.data, evaluated, self.skipped, count, among)
        async with aclosing(work.evaluate(samples)) as tallies:
            async for tally in tallies:
                yield tally

    def _metrics(self, manifest: RunManifest, overall: Mapping[str, Any]) -> dict[str, Any]:
        row = self.store.run(self.run)
        details = (finding["details"] for finding in self.store.findings(self.run))
        figures = summarize(self.store.rows(self.run), details, self.protocol)
        timed = row["n_new"] and row["seconds"] and not self.model.fixed  # recorded answers have no speed
        speed = row["n_new"] / row["seconds"] if timed else None
        figures["protocol"] |= overall
        if self.protocol.repeats > 1:
            figures["protocol"] |= spread(row["details"] for row in self.store.findings(self.run))
        declared = self.data.data.figures
        figures["official"] = official_figures(self.store, self.run, declared, self.protocol.primary)
        return {
            **figures,
            "skipped": len(self.skipped),
            "items_per_second": speed,
            "cost": self.model.price(Usage(**{name: figures[name] for name in Usage._fields})),
            "scoring_cost": self.scoring_cost,
            "peak_rss_bytes": manifest.hardware.get("peak_rss_bytes"),
            "peak_gpu_bytes": manifest.model.metadata.get("peak_gpu_bytes"),
            "parameters": manifest.model.metadata.get("parameters"),
        }

    def _metadata(self) -> Mapping[str, Any]:
        return self.model.metadata() if self.handle is None else self.handle.metadata()

    def manifest(self) -> RunManifest:
        """Build the manifest: everything needed to reproduce the run, as known at its start."""
        from snellen.storage import manifest as stored

        data, protocol = self.data, self.protocol
        return stored.RunManifest(
            schema_version=stored.SCHEMA_VERSION,
            snellen=__version__,
            model=stored.ModelRecord(name=self.model.name, identity=plain(self.model.identity())),
            data=stored.DataRecord(
                name=data.name,
                filters=plain(data.filters),
                fingerprint=self.fingerprint,
                n=len(data),
                labels=data.labels,
                background=data.background,
                notes=tuple(data.data.notes),
                figures={name: asdict(figure) for name, figure in data.data.figures.items()},
                whole=data.data.whole,
            ),
            protocol=stored.ProtocolRecord(
                name=protocol.name,
                title=self.title,
                options=plain(protocol.options()),
                shots=tuple(message.identity() for message in data.shots),
            ),
            scorers=tuple(plain(scorer) for scorer in self.spec.get("scorers", [])),
            seed=self.seed,
            cache_salt=self.cache_salt,
            specification=self.base,
            rescored=self.rescored,
            sink=self.sink,
            batch_size=self.model.batch_size,
            plan=self.plan,
            versions=versions(),
            hardware=plain(hardware()),
            git=git_hash(),
            process=this_process(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _results(self, began: RunManifest) -> dict[str, Any]:
        """Return what is known at the end, in the form of the manifest."""
        handle, shards = self.handle, self.store.shards(self.run)
        skipped = [row._asdict() for row in self.skipped]
        used = {**hardware(), "peak_rss_bytes": peak_rss(), **(handle.hardware() if handle else {})}
        return {
            "model": {**began.model.as_dict(), "metadata": dict(self._metadata())},
            "data": {**began.data.as_dict(), "skipped": skipped},
            "hardware": used,
            **({"replicas": handle.replicas()} if handle else {}),
            **({"shards": len(shards.names())} if shards else {}),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
