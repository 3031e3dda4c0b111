"""Parse and score stored answers again by other rules; the evaluated model is not called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from snellen._util.asyncio import complete
from snellen.datasets.base import Dataset, Row, Selection
from snellen.engine.evaluation import Evaluation
from snellen.errors import BadOption, UsageError
from snellen.images import Image
from snellen.metrics.official import OfficialFigure
from snellen.models.base import Limits, Model
from snellen.models.remote.prices import Prices
from snellen.protocols.base import PROTOCOLS
from snellen.runs.matching import check_scorer, with_options
from snellen.storage.store import Store
from snellen.types import Message, Region, Request, Response, Sample, Usage

if TYPE_CHECKING:
    from snellen.storage.manifest import RunManifest

__all__ = ["rescore"]


def rescore(store: Store, run: str, options: Mapping[str, Any] | None = None) -> str:
    """Parse a finished run's answers again and return the id of the new run; the old one stays.

    Args:
        run: a run's full id.
        options: protocol options to change; only those that need no new requests.

    Raises:
        UsageError: the run is not finished.
        BadOption: an unknown option, or one that needs new requests.
    """
    from snellen.storage.manifest import RunManifest

    row = store.run(run)
    if row["status"] != "finished":
        raise UsageError(f"{run} is not finished. Rerun its command first.")
    manifest = RunManifest.model_validate(row["manifest"])
    made = {k: v for k, v in manifest.protocol.options.items() if v is not None}
    name = manifest.protocol.name
    if new := {"shots", "shots_from"} & set(options or {}):
        raise BadOption(f"{run} has no stored answer to other examples ({new.pop()}=), so start a new run.")
    protocol = PROTOCOLS.make(name, {**made, **(options or {})})
    for scorer in protocol.scorers():
        check_scorer(scorer, Limits())
    data = _RecordedData(store, run, manifest)
    _take_over(store, run)
    examination = Evaluation(
        _RecordedModel(manifest),
        Selection(data, range(len(data)), data.labels),
        protocol,
        store,
        seed=manifest.seed,
        fingerprint=manifest.data.fingerprint,
        title=with_options(_without(manifest.protocol.title, options or {}), options or {}),
        rescored=run,
        cache_salt=manifest.cache_salt,
    )
    try:
        complete(examination.evaluate())
    except BadOption:
        store.forget(examination.run)
        raise
    return examination.run


def _without(title: str, options: Mapping[str, Any]) -> str:
    """Return a protocol's title without options that are set anew.

    >>> _without("open-world?repeats=3&temperature=1", {"repeats": 2})
    'open-world?temperature=1'
    """
    name, _, own = title.partition("?")
    kept = [pair for pair in own.split("&") if pair and unquote(pair.partition("=")[0]) not in options]
    return name + "?" * bool(kept) + "&".join(kept)


def _take_over(store: Store, run: str) -> None:
    """Copy answers in Parquet files into the store's cache."""
    shards = store.shards(run)
    rows = shards.answers() if shards is not None else iter(())
    while page := list(islice(rows, 500)):
        store.put(page)


class _RecordedModel(Model):
    """The evaluated model's name and identity, with nothing behind it."""

    def __init__(self, manifest: RunManifest) -> None:
        self._record = manifest.model
        self.name = self._record.name

    def identity(self) -> Mapping[str, Any]:
        return self._record.identity

    def metadata(self) -> Mapping[str, Any]:
        return self._record.metadata

    def price(self, usage: Usage) -> float | None:
        facts = self.metadata()
        if "price" in facts:
            return float(facts["price"]) * usage.requests / 1000
        prices = Prices.recorded(facts)
        return None if prices is None else prices.of(usage)

    def context(self, request: Request) -> Mapping[str, Any]:
        column = str(self.identity().get("column"))
        if self.identity().get("kind") != "replay" or request.sample is None:
            return {}
        meta = request.sample.meta
        return {"answer": str(meta.get(column)), "there": column in meta}

    async def respond(self, requests: Sequence[Request]) -> list[Response]:
        raise BadOption(
            f"{self.name} has no stored answer to {requests[0].messages[-1].text[:80]!r} …: these options "
            "need new "
            "requests, so start a new run with them. Rescoring only changes how answers are parsed."
        )


class _RecordedData(Dataset):
    """The samples of a run as stored. Images are known only by their hash."""

    def __init__(self, store: Store, run: str, manifest: RunManifest) -> None:
        self.name, self.labels = manifest.data.name, manifest.data.labels
        self.background = manifest.data.background
        self.figures = {name: OfficialFigure(**how) for name, how in manifest.data.figures.items()}
        self.whole = manifest.data.whole
        self._shots = tuple(map(_message, manifest.protocol.shots))
        self._store, self._run = store, run
        self._rows = list(store.sample_rows(run))

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        return Row(self._rows[index]["id"], self._rows[index]["label"])

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        row = self._rows[index]
        content = row["content"]
        sizes = content.get("sizes") or [None] * len(row["images"])
        return Sample(
            row["id"],
            tuple(_known(sha256, size) for sha256, size in zip(row["images"], sizes, strict=True)),
            label=row["label"],
            also=tuple(content.get("also", ())),
            labels=labels,
            background=background,
            synonyms={key: tuple(names) for key, names in content.get("synonyms", {}).items()},
            question=content.get("question"),
            choices=tuple(content.get("choices", ())),
            answers=tuple(content.get("answers", ())),
            references=tuple(content.get("references", ())),
            regions=tuple(_region(region) for region in content.get("regions", ())),
            meta=content.get("meta", {}),
            shots=self._shots,
        )

    def digest(self, index: int) -> str:
        return "".join(islice(self._rows[index]["images"], 1))


def _message(stored: Mapping[str, Any]) -> Message:
    parts = (p["text"] if "text" in p else _known(p["image"], None) for p in stored["content"])
    return Message(stored["role"], tuple(parts))


def _region(row: Mapping[str, Any]) -> Region:
    outlines = tuple(tuple((x, y) for x, y in outline) for outline in row["outlines"])
    left, top, right, bottom = row["box"]
    return Region((left, top, right, bottom), row["name"], outlines)


def _known(sha256: str, size: Sequence[int] | None) -> Image:
    """Return an image of which only the hash, and optionally the size, is known."""

    def gone() -> bytes:
        raise UsageError("A stored run contains only its images' hashes, not the images.")

    return Image.recorded(sha256, None if size is None else (size[0], size[1]), gone)
