"""One model, one data set, one protocol: examine what is missing, store it, and sum it up."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from snellen._util.environment import git_hash, hardware, peak_rss, versions
from snellen._util.redaction import redact
from snellen._version import __version__
from snellen.datasets.base import InvalidRow, Selection
from snellen.engine.cache import CachedModel
from snellen.engine.pending import is_done, pending
from snellen.engine.progress import Progress, ProgressCallback
from snellen.engine.recorder import BatchStats, SampleRunner
from snellen.errors import Stopped, StoreError, Unsupported, UsageError
from snellen.metrics.summary import summarise
from snellen.models.base import Model
from snellen.protocols.base import Protocol
from snellen.scorers.base import SamplePrediction
from snellen.storage.store import Store
from snellen.types import Kind, Outcome, Request, Response

if TYPE_CHECKING:
    from snellen.engine.ray.executor import RunHandle
    from snellen.storage.manifest import PlanRecord, RunManifest

__all__ = ["Evaluation", "incompatibility"]

log = logging.getLogger(__name__)


def incompatibility(model: Model, protocol: Protocol) -> str | None:
    """Why a model cannot answer a protocol, or None where it can."""
    if protocol.requires not in model.kinds:
        kinds = model.kinds - {Kind.CONSTRAIN} - ({Kind.CHOOSE} if Kind.SCORE in model.kinds else set())
        can = " and ".join(sorted(kinds))
        return f"{model.name} can {can}, and {protocol.name} asks it to {protocol.requires}"
    if protocol.permutes_choices and model.fixed:
        return (
            f"{model.name} has its answers written down, and {protocol.name} (circular) letters options anew"
        )
    if protocol.without_image and not model.text_only:
        return f"{model.name} answers no request without an image, which {protocol.name} asks (pmi)"
    return None


class Evaluation:
    """An examination to be done, or to be gone on with.

    Args:
        fresh: ask everything anew, as a new run.
        expect: the run that this is to go on with.
        plan: what the user asked for, as JSON, where that can be said: how to go on with the run.
        fingerprint: of the data, where it is known already.
        title: how the user named the protocol, options and all.
        rescored: the run whose answers are read again; no image is looked at.
        cache_salt: of the fresh run whose answers those are.
        sink: the folder of Parquet files that predictions and answers go into, if not into the store.

    Raises:
        Unsupported: the model cannot answer what the protocol asks.
        DataError: the protocol cannot ask about this data set.
        UsageError: this is not what the expected run examines.
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
        rescored: str | None = None,
        cache_salt: str | None = None,
        expect: str | None = None,
        plan: PlanRecord | None = None,
        sink: str | None = None,
    ) -> None:
        if (reason := incompatibility(model, protocol)) is not None:
            raise Unsupported(f"{reason}.")
        protocol.check(data.labels, data.background)
        protocol = protocol.for_model(model)
        self.scorers = protocol.scorers()
        self.model, self.data, self.protocol, self.store = model, data, protocol, store
        self.seed, self.title, self.rescored = seed, title or protocol.name, rescored
        self.skipped: list[InvalidRow] = list(data.data.invalid)
        self.fingerprint = fingerprint or data.fingerprint()
        # What the run is: the same specification is the same run, wherever and whenever it is started.
        self.spec: dict[str, Any] = {
            "snellen": __version__,
            "model": dict(model.identity()),
            "data": self.fingerprint,
            "protocol": {"name": protocol.name, **protocol.options()},
        }
        if self.scorers:
            self.spec["scorers"] = [dict(scorer.identity()) for scorer in self.scorers]
        if rescored is not None:
            self.spec["rescored"] = rescored
        base = _digest(self.spec)
        # A fresh run that was interrupted is gone on with; only a finished one makes room for another.
        if cache_salt is None:
            cache_salt = (store.unfinished(base, sink) or datetime.now(UTC).isoformat()) if fresh else ""
        self.cache_salt = cache_salt
        self.base, self.plan = base, plan
        #: Who examines in this one's place, if somebody does.
        self.handle: RunHandle | None = None
        #: US dollars that scorers' models cost, remembered replies included; None where nothing is known.
        self.scoring_cost: float | None = None
        digest = _digest({**self.spec, "cache_salt": self.cache_salt})
        if expect is not None and store.run(expect)["digest"] != digest:
            raise UsageError(self._what_changed(expect))
        #: The folder that predictions and answers go into; None for the store.
        self.sink = sink
        self.run = store.begin(self._slug(), digest, self.manifest().as_dict())
        self._keep_sink()

    def _keep_sink(self) -> None:
        """Take over the shards that the run was begun with.

        Raises:
            UsageError: it was begun with another sink, or with none.
        """
        began = self.store.run(self.run)["manifest"].get("sink")
        if began != self.sink:
            with closing(self.store.findings(self.run)) as rows:
                if next(rows, None) is None:  # nothing came of it yet
                    self.store.move(self.run, self.sink)
                    began = self.sink
        if not self.finished and began != self.sink:
            there = f"--sink parquet:{began}" if began else "no --sink"
            raise UsageError(
                f"{self.run} was begun with {there}, where its answers are: go on with that, or begin "
                "another with --fresh"
            )
        self.sink = began

    def _slug(self) -> str:
        """model-protocol-data, in letters, digits and hyphens."""
        model = self.model.name.partition("?")[0]  # an address would hide the name
        title = re.sub(r"[:/]", "-", self.title)  # a model's name among its options hides no protocol
        return "-".join(_slug(part) for part in (model, title, self.data.name))

    @property
    def finished(self) -> bool:
        """Whether every sample has been examined without an error, and graded, if it was to be."""
        return is_done(self.store.run(self.run))

    def _what_changed(self, run: str) -> str:
        """Why an examination is not that of a run."""
        from snellen.storage.manifest import RunManifest

        old = RunManifest.model_validate(self.store.run(run)["manifest"])
        parts = {
            "Snellen's version": (old.snellen, self.spec["snellen"]),
            "the model": (old.model.identity, self.spec["model"]),
            "the data": (old.data.fingerprint, self.spec["data"]),
            "the protocol": ({"name": old.protocol.name, **old.protocol.options}, self.spec["protocol"]),
        }
        other = [name for name, (then, now) in parts.items() if then != json.loads(json.dumps(now))]
        return (
            f"Cannot resume {run}: {' and '.join(other) or 'what it evaluates'} changed since this run "
            "started. Start a new one with: snellen run"
        )

    async def evaluate(self, watch: ProgressCallback | None = None) -> None:
        """Examine what is missing. What was answered is stored, whatever happens next.

        Raises:
            Stopped: the model gave up, or the budget is used up; figures of what there is are stored.
        """
        if self.finished:
            self.store.record(self.run, [])  # it is the last one now
            return
        self.protocol.prepare()
        try:
            if self.handle is not None:
                await self._examine(watch)
            else:
                self.model.load()
                async with self.model.connected():
                    await self._examine(watch)
            overall = await self._score()
        except Stopped as error:
            self._finish("stopped", {"stopped": str(error)}, {})
            raise
        self._finish("finished", {}, overall)

    async def _score(self) -> dict[str, Any]:
        """Have the protocol's scorers score all predictions; figures of the whole come back."""
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
            predictions.append(SamplePrediction(bare, row["prediction"], outcome, row["details"], look))
        overall: dict[str, Any] = {}
        scores: list[dict[str, float]] = [dict(row["metrics"]) for row in rows]
        for scorer in self.scorers:
            await asyncio.to_thread(scorer.prepare)
            try:
                new_scores = await scorer.score(predictions, self._ask)
            finally:
                scorer.close()
            for known, new in zip(scores, new_scores, strict=True):
                known.update({name: value for name, value in new.items() if not name.startswith("_")})
            overall |= scorer.overall(predictions, new_scores)
        self.store.keep_metrics(self.run, {row["id"]: s for row, s in zip(rows, scores, strict=True)})
        return overall

    async def _ask(self, model: Model, requests: Sequence[Request]) -> list[Response]:
        """What a scorer's own model answers, by memory where it can."""
        model.limits = self.model.limits
        memory = CachedModel(model, self.store, self.cache_salt)
        async with model.connected():
            replies = [answer.response for answer in await memory.respond(requests)]
        tokens = (sum(r.prompt_tokens for r in replies), sum(r.completion_tokens for r in replies))
        if (cost := model.price(len(replies), *tokens)) is not None:
            self.scoring_cost = (self.scoring_cost or 0.0) + cost
        return replies

    def _finish(self, status: str, more: Mapping[str, Any], overall: Mapping[str, Any]) -> None:
        """Store the figures of what was evaluated."""
        from snellen.storage.manifest import RunManifest

        began = RunManifest.model_validate(self.store.run(self.run)["manifest"])
        kept = {key: value for key, value in began.as_dict().items() if key != "stopped"}
        manifest = RunManifest.model_validate({**kept, **_plain(self._results(began)), **more})
        self.store.finish(self.run, self._metrics(manifest, overall), manifest.as_dict(), status)

    async def _examine(self, watch: ProgressCallback | None) -> None:
        progress = Progress(len(self.data))
        tallies = self._here(progress.tally) if self.handle is None else self.handle.evaluate()
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
                    f"{redact(shards.url)}: {len(missing)} of {len(written)} shards of {self.run} are not "
                    "here. A folder must be one that all nodes see; or name a bucket (s3://…, gs://…)."
                )

    async def _here(self, progress: BatchStats) -> AsyncGenerator[BatchStats]:
        """Examine what is missing in this process."""
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

        samples = pending(self.data, partial(self.store.examined, self.run), self.skipped, count)
        async with aclosing(work.evaluate(samples)) as tallies:
            async for tally in tallies:
                yield tally

    def _metrics(self, manifest: RunManifest, overall: Mapping[str, Any]) -> dict[str, Any]:
        row = self.store.run(self.run)
        details = (finding["details"] for finding in self.store.findings(self.run))
        figures = summarise(self.store.rows(self.run), details, self.protocol)
        speed = row["n_new"] / row["seconds"] if row["n_new"] and row["seconds"] else None
        if self.model.fixed:  # reading answers that were written before is no speed
            speed = None
        facts = manifest.model.metadata
        tokens = figures["prompt_tokens"], figures["completion_tokens"]
        figures["protocol"] |= overall
        return {
            **figures,
            "skipped": len(self.skipped),
            "items_per_second": speed,
            "cost": self.model.price(figures["requests"], *tokens),
            "scoring_cost": self.scoring_cost,
            "peak_rss_bytes": manifest.hardware.get("peak_rss_bytes"),
            "peak_gpu_bytes": facts.get("peak_gpu_bytes"),
            "parameters": facts.get("parameters"),
        }

    def _metadata(self) -> Mapping[str, Any]:
        return self.model.metadata() if self.handle is None else self.handle.metadata()

    def manifest(self) -> RunManifest:
        """Everything needed to reproduce the run, as it is known when it starts."""
        from snellen.storage import manifest as stored

        data, protocol = self.data, self.protocol
        return stored.RunManifest(
            schema_version=stored.SCHEMA_VERSION,
            snellen=__version__,
            model=stored.ModelRecord(name=self.model.name, identity=_plain(self.model.identity())),
            data=stored.DataRecord(
                name=data.name,
                filters=_plain(data.filters),
                fingerprint=self.fingerprint,
                n=len(data),
                labels=data.labels,
                background=data.background,
                notes=tuple(data.data.notes),
            ),
            protocol=stored.ProtocolRecord(
                name=protocol.name, title=self.title, options=_plain(protocol.options())
            ),
            scorers=tuple(_plain(scorer) for scorer in self.spec.get("scorers", [])),
            seed=self.seed,
            cache_salt=self.cache_salt,
            specification=self.base,
            rescored=self.rescored,
            sink=self.sink,
            batch_size=self.model.batch_size,
            plan=self.plan,
            versions=versions(),
            hardware=_plain(hardware()),
            git=git_hash(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _results(self, began: RunManifest) -> dict[str, Any]:
        """What is known once it has ended, in the form of the manifest."""
        handle = self.handle
        shards = self.store.shards(self.run)
        skipped = [{"where": row.where, "reason": row.reason} for row in self.skipped]
        used = {**hardware(), "peak_rss_bytes": peak_rss(), **(handle.hardware() if handle else {})}
        return {
            "model": {**began.model.as_dict(), "metadata": dict(self._metadata())},
            "data": {**began.data.as_dict(), "skipped": skipped},
            "hardware": used,
            **({"replicas": handle.replicas()} if handle else {}),
            **({"shards": len(shards.names())} if shards else {}),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as JSON holds it."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _digest(specification: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(specification, sort_keys=True).encode()).hexdigest()


def _slug(name: str) -> str:
    rest = name.rstrip("/")
    last = rest.rsplit("/", 1)[-1] if "/" in rest else rest.partition(":")[2] or rest
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:32].strip("-") or "x"
