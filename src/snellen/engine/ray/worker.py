"""What runs in the processes of Ray: replicas that examine shards, and the one that writes for them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from snellen._util.environment import hardware, peak_rss
from snellen._util.redaction import redact
from snellen.datasets.base import Bad, Selection
from snellen.engine.recorder import Tally, Work, readable
from snellen.errors import DataError, ModelError, SnellenError, Stopped, reason_of
from snellen.images import Image
from snellen.models.base import Model
from snellen.registry import MODELS
from snellen.storage.parquet_run import Shard, Shards
from snellen.storage.rows import Finding, Remembered, Written, written
from snellen.storage.store import Store
from snellen.types import Response, Sample

if TYPE_CHECKING:
    from snellen.engine.ray.executor import Duty

__all__ = ["Desk", "Recipe", "Replica", "identity_of"]

log = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """What a replica makes its model of.

    Args:
        identity: of the model where the run was started.
    """

    name: str
    options: Mapping[str, Any]
    batch_size: int
    identity: Mapping[str, Any]


def identity_of(model: Model) -> dict[str, Any]:
    """A model's identity as other processes tell it."""
    plain: dict[str, Any] = json.loads(json.dumps(model.identity()))
    return plain


#: How often a sample may be the only one under way when its replica dies, before it ends as an error.
TRIES = 2
#: Seconds after which a shard that is not done is written: so much is lost, at most, with a replica.
EVERY = 60.0
#: How many replicas may die while they load the model.
LOADS = 3


class Desk:
    """The one writer, and what must be known of all replicas: what each of them has under way. An actor
    beside the process that started the run.

    Args:
        where: what opens the workspace.
        folder: of previews and logs.
    """

    def __init__(self, where: str, folder: str) -> None:
        os.environ["SNELLEN_FILES"] = folder
        self._store = Store(where)
        self._folder = Path(folder)
        self._lock = threading.Lock()
        #: How often samples were begun, with others and alone, and not ended.
        self._together: Counter[tuple[str, str]] = Counter()
        self._alone: Counter[tuple[str, str]] = Counter()
        self._given_up: set[tuple[str, str]] = set()
        #: Shards that replicas are at, and how often each actor began to load the model in vain.
        self._busy: set[tuple[str, int]] = set()
        self._loads: Counter[str] = Counter()
        self._stopped = False
        self._day = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")

    def recall(self, keys: list[str]) -> dict[str, Response]:
        """See :meth:`snellen.storage.store.Store.recall`."""
        return self._store.recall(keys)

    def remember(self, rows: list[Remembered]) -> dict[str, Response]:
        """See :meth:`snellen.storage.store.Store.remember`."""
        return self._store.remember(rows)

    def write(self, run: str, rows: Written) -> None:
        """Commit what came of some samples; they are not under way any more."""
        self._store.write(run, rows)
        self.ended(run, [row["id"] for row in rows.samples])

    def without_preview(self, hashes: list[str]) -> list[str]:
        """Those images that have no preview yet."""
        return [sha256 for sha256 in hashes if not self._store.preview_path(sha256).exists()]

    def keep_previews(self, previews: Mapping[str, bytes]) -> None:
        """Keep previews of images by their hash."""
        for sha256, data in previews.items():
            self._store.keep_preview(sha256, data)

    def begin(self, run: str, ids: list[str], alone: bool = False) -> dict[str, tuple[int, int] | None]:
        """Note that samples are begun; how often each was before, with others and alone, and never ended:
        whoever was at it died. None for one that was given up.

        Raises:
            Stopped: nothing more is to be begun.
        """
        if self._stopped:
            raise Stopped("It was stopped.")
        with self._lock:
            before = {
                id: None if (run, id) in self._given_up else (self._together[run, id], self._alone[run, id])
                for id in ids
            }
            (self._alone if alone else self._together).update((run, id) for id in ids)
        return before

    def begin_missing(self, run: str, ids: list[str]) -> dict[str, tuple[int, int] | None]:
        """Note that those of some samples are begun that have no prediction (see :meth:`begin`)."""
        known = self._store.examined(run, ids)
        return self.begin(run, [id for id in ids if id not in known])

    def ended(self, run: str, ids: list[str]) -> None:
        """Note that samples are not under way any more."""
        with self._lock:
            for id in ids:
                self._together.pop((run, id), None)
                self._alone.pop((run, id), None)

    def give_up(self, run: str, id: str) -> None:
        """Note that a sample was recorded as an error: those that follow leave it alone."""
        self._given_up.add((run, id))

    def loading(self, actor: str) -> None:
        """Note that a replica loads the model: an actor of Ray's, which keeps its id when it begins anew.

        Raises:
            ModelError: too many died of it.
        """
        with self._lock:
            # Whoever else began last may be at it still.
            died = sum(begun - (other != actor) for other, begun in self._loads.items())
            self._loads[actor] += died < LOADS
        if died >= LOADS:
            raise ModelError(
                f"--engine ray: {died} replicas died while they loaded the model. Is there memory for as "
                "many? Try fewer: --replicas 1. What they wrote last stands in /tmp/ray/session_latest/logs "
                "of their node."
            )

    def loaded(self, actor: str) -> None:
        """Note that one has loaded it, or said why it cannot."""
        with self._lock:
            self._loads.pop(actor, None)

    def log(self, name: str, text: str) -> None:
        """Write a line into a replica's log, without what looks like a secret."""
        folder = self._folder / "logs" / self._day
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.log").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {redact(text)}\n")

    def enter(self, run: str, start: int) -> None:
        """Note that a replica is at a shard.

        Raises:
            Stopped: nothing more is to be begun.
        """
        if self._stopped:
            self._busy.discard((run, start))  # whoever was at it died
            raise Stopped("It was stopped.")
        self._busy.add((run, start))

    def leave(self, run: str, start: int) -> None:
        """Note that a replica is done with a shard."""
        self._busy.discard((run, start))

    def busy(self) -> bool:
        """Whether any replica is at a shard."""
        return bool(self._busy)

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True


def _got(reference: Any) -> Any:
    """What the desk answers.

    Raises:
        SnellenError: what it raised.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, SnellenError):
            raise cause from error
        told = str(error).strip().splitlines()[-1:]  # the first lines say where, the last what
        raise SnellenError(f"--engine ray: the writer failed ({' '.join(told)[:300]}).") from error


class _AtDesk:
    """A ledger (see :class:`snellen.engine.recorder.Ledger`) that the desk keeps."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk

    def recall(self, keys: Sequence[str]) -> dict[str, Response]:
        known: dict[str, Response] = _got(self._desk.recall.remote(list(keys)))
        return known

    def remember(self, rows: Sequence[Remembered]) -> dict[str, Response]:
        known: dict[str, Response] = _got(self._desk.remember.remote(list(rows)))
        return known

    def begin(self, run: str, ids: Sequence[str]) -> Mapping[str, tuple[int, int] | None]:
        """See :meth:`Desk.begin_missing`."""
        before: Mapping[str, tuple[int, int] | None] = _got(self._desk.begin_missing.remote(run, list(ids)))
        return before

    def record(self, run: str, findings: Sequence[Finding], *, fresh: int = 0, seconds: float = 0.0) -> None:
        """Seconds are counted by who knows of all replicas."""
        _got(self._desk.write.remote(run, written(run, findings)))

    #: It is in none.
    file = None

    def flush(self) -> None:
        """All is written at once."""

    def keep_previews(self, images: Sequence[Image]) -> None:
        by_hash = {image.sha256: image for image in images}
        if not by_hash:
            return
        if lacking := _got(self._desk.without_preview.remote(list(by_hash))):
            _got(self._desk.keep_previews.remote({sha256: by_hash[sha256].preview() for sha256 in lacking}))


class _InShard:
    """A ledger that is a file of its own; images get no previews."""

    def __init__(self, shard: Shard, desk: Any) -> None:
        self._shard, self._desk = shard, desk
        self.recall, self.remember = shard.recall, shard.remember

    def begin(self, run: str, ids: Sequence[str]) -> Mapping[str, tuple[int, int] | None]:
        """See :meth:`Desk.begin_missing`."""
        known = self._shard.examined(ids)
        todo = [id for id in ids if id not in known]
        before: Mapping[str, tuple[int, int] | None] = _got(self._desk.begin.remote(run, todo))
        return before

    def record(self, run: str, findings: Sequence[Finding], *, fresh: int = 0, seconds: float = 0.0) -> None:
        rows = written(run, findings)
        self._shard.record(rows)
        self._shard.write(EVERY)
        _got(self._desk.ended.remote(run, [row["id"] for row in rows.samples]))

    @property
    def file(self) -> str | None:
        """What the shard's file is called; None while there is nothing in it."""
        return self._shard.file

    def flush(self) -> None:
        """Write what is not written."""
        self._shard.write()

    def keep_previews(self, images: Sequence[Image]) -> None:
        """None are kept."""


class _Log(logging.Handler):
    """Sends what is logged to the desk."""

    def __init__(self, desk: Any, name: str) -> None:
        super().__init__(logging.INFO)
        self._desk, self._replica = desk, name

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            self._desk.log.remote(self._replica, f"{record.levelname} {self.format(record)}")


class Replica:
    """A copy of the model, asked about shard after shard. What Ray Data makes an actor pool of; it comes back
    with a report of each, also where it failed.
    """

    def __init__(self, desk: Any, make: Recipe, duties: Sequence[Duty], folder: str) -> None:
        with suppress(OSError):
            os.chdir(folder)  # relative paths are meant from there
        self._desk, self._make, self._duties = desk, make, duties
        self._data: dict[int, Selection] = {}
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._log = logging.getLogger("snellen")
        self._log.addHandler(_Log(desk, self.name))
        self._log.setLevel(logging.INFO)
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").addHandler(_Log(desk, self.name))

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
        """Examine one shard."""
        place, start, stop = (int(batch[name][0]) for name in ("duty", "start", "stop"))
        duty = self._duties[place]
        report: dict[str, Any] = {"run": duty.run, "failure": None}
        try:
            _got(self._desk.enter.remote(duty.run, start))
            try:
                # Made when they are first asked for, which is not counted as asking the model.
                model, data = self.model, self._selection(place)
                report["began"] = time.time()
                tally, skipped, report["file"] = asyncio.run(self._examine(model, duty, data, start, stop))
            finally:
                _got(self._desk.leave.remote(duty.run, start))
            report |= {"tally": {**vars(tally), "outcomes": dict(tally.outcomes)}, "ended": time.time()}
            report |= {"facts": dict(self.model.facts()), "replica": self._about(), "skipped": skipped}
        except Exception as error:
            told = str(error)
            if not isinstance(error, SnellenError):
                self._log.error("%s", traceback.format_exc())
                told = f"{self.name}: {reason_of(error)}. More in the workspace's logs/*/{self.name}.log"
            report["failure"] = [type(error).__name__, told]
        return {"report": [json.dumps(report)]}

    @cached_property
    def model(self) -> Any:
        """The loaded model.

        Raises:
            ModelError: it cannot be loaded.
        """
        import ray

        actor = ray.get_runtime_context().get_actor_id()
        _got(self._desk.loading.remote(actor))
        try:
            recipe = self._make
            model = MODELS.make(recipe.name, recipe.options)
            model.name, model.batch_size = redact(recipe.name), recipe.batch_size
            here = identity_of(model)
            if here != recipe.identity:
                other = [
                    f"{key}: {here.get(key)} instead of {value}"
                    for key, value in recipe.identity.items()
                    if here.get(key) != value
                ]
                raise ModelError(
                    f"{model.name}: on {self.name} it is another model than where the run was started "
                    f"({', '.join(other)}). Every node needs the same packages and weights; where some have "
                    "no GPU, say what differs, such as -M dtype=bfloat16."
                )
            self._log.info("loading %s", model.name)
            model.load()
        finally:
            _got(self._desk.loaded.remote(actor))
        self._log.info("loaded")
        return model

    def _about(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "peak_gpu_bytes": self.model.facts().get("peak_gpu_bytes"),
            "peak_rss_bytes": peak_rss(),
            "hardware": hardware(),
        }

    def _selection(self, place: int) -> Selection:
        if place not in self._data:
            duty = self._duties[place]
            found = duty.data()
            if len(found) != duty.n or any(found.id(place) != id for place, id in duty.ids.items()):
                raise DataError(
                    f"{found.name}: {self.name} finds {len(found)} samples, and they are not the {duty.n} "
                    "that there are where the run was started. Every node must see the same data."
                )
            duty.protocol.prepare()
            self._data[place] = found
        return self._data[place]

    async def _examine(
        self, model: Any, duty: Duty, data: Selection, start: int, stop: int
    ) -> tuple[Tally, list[Bad], str | None]:
        """What came of a shard, what was left out, and the file that it is in, if it is in one."""
        ledger: _AtDesk | _InShard = _AtDesk(self._desk)
        if duty.sink is not None:
            ledger = _InShard(Shard(Shards(duty.sink, duty.run), start, stop), self._desk)
        found = _Shard(self._desk, ledger, data)
        work = Work(
            model,
            duty.protocol,
            ledger,
            duty.run,
            nonce=duty.nonce,
            skip_bad=data.skip_bad,
        )
        try:
            async with model.connected():
                await found.count(work, found.unsuspected(work, range(start, stop)))
                for position in found.suspects:
                    await asyncio.to_thread(ledger.flush)  # what may come kills
                    await found.count(work, found.alone(work, position))
        finally:
            await asyncio.to_thread(ledger.flush)
        self._log.info("%s: %d to %d: %s", duty.run, start, stop, _told(found.tally))
        if found.stopped:
            raise Stopped("It was stopped.")
        return found.tally, work.skipped, ledger.file


class _Shard:
    """How far a replica is with a shard, and what it must be careful with."""

    def __init__(self, desk: Any, ledger: _AtDesk | _InShard, data: Selection) -> None:
        self._desk, self._ledger, self._data = desk, ledger, data
        self.tally = Tally()
        #: Positions of samples that were under way when a replica died.
        self.suspects: list[int] = []
        #: Whether nothing more is to be begun.
        self.stopped = False
        self._skipped = 0

    async def count(self, work: Work, samples: Iterable[tuple[int, Sample]]) -> None:
        """Examine samples, and count them."""
        async with aclosing(work.examine(samples)) as tallies:
            async for tally in tallies:
                self.tally.add(tally)
        self._skip(work)

    def unsuspected(self, work: Work, positions: range) -> Iterator[tuple[int, Sample]]:
        """The samples that are missing. Those that were under way when a replica died are put aside."""
        size = work.model.batch_size
        for first in range(positions.start, positions.stop, size):
            self._skip(work)
            ids = {self._data.id(i): i for i in range(first, min(first + size, positions.stop))}
            try:
                before = self._ledger.begin(work.run, list(ids))
            except Stopped:
                self.stopped = True  # what is under way is ended
                return
            given_up = sum(died is None for died in before.values())
            self.tally.known += len(ids) - len(before) + given_up
            self.suspects += [ids[id] for id, died in before.items() if any(died or ())]
            fine = (ids[id] for id, died in before.items() if died == (0, 0))
            yield from readable(self._data, fine, work.skipped)

    def alone(self, work: Work, position: int) -> Iterator[tuple[int, Sample]]:
        """A sample by itself, unless it was so when replicas died: then it is recorded as an error."""
        id = self._data.id(position)
        try:
            _, died = _got(self._desk.begin.remote(work.run, [id], alone=True))[id]
        except Stopped:
            self.stopped = True
            return
        if died < TRIES:
            yield from readable(self._data, [position], work.skipped)
            return
        if died == TRIES:
            sample = next((one for _, one in readable(self._data, [position], work.skipped)), None)
        else:  # reading it is what kills, it seems
            label = self._data.data.row(self._data.indices[position]).label
            sample = Sample(id, label=label, labels=self._data.labels, background=self._data.background)
        if sample is not None:
            log.error("%s: %s is given up: %d replicas died of it", work.run, id, died)
            reason = f"{TRIES} replicas died while they examined this sample alone"
            self.tally.add(work.give_up(position, sample, reason))
            _got(self._desk.give_up.remote(work.run, id))

    def _skip(self, work: Work) -> None:
        """What was left out is not under way."""
        if new := work.skipped[self._skipped :]:
            self._skipped += len(new)
            _got(self._desk.ended.remote(work.run, [bad.where for bad in new]))


def _told(tally: Tally) -> str:
    """A tally in words."""
    parts = [f"{n} {outcome}" for outcome, n in sorted(tally.outcomes.items())]
    return ", ".join([*parts, f"{tally.known} examined before"] if tally.known else parts)
