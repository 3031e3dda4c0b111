"""The leaderboard as data: runs with what is known of their models, filtered, grouped, ranked, averaged."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any
from urllib.parse import urlencode

from snellen.errors import BadOption, did_you_mean
from snellen.leaderboards.model_info import SIZES, UNKNOWN, Book, Facts
from snellen.metrics.summary import COUNTS, RANGES
from snellen.runs.compare import ranks as paired_ranks
from snellen.runs.run import Run
from snellen.storage.store import Store

__all__ = [
    "COLUMNS",
    "Average",
    "Board",
    "Entry",
    "Group",
    "Query",
    "averages",
    "benchmark",
    "grouped",
    "pareto",
]

#: Groups of so many runs and samples are ranked by paired tests; larger ones by their intervals.
PAIRED_RUNS, PAIRED_SAMPLES = 10, 20_000


@dataclass(frozen=True)
class Entry:
    """One line of a leaderboard: a run, or a published figure.

    Attributes:
        id: of the run; empty for a published one.
        value, low, high: the primary score, None where there is none.
        n, classes: how many samples, and class names on offer.
        scores: all scores by name, with their intervals.
        speed: items per second. memory: at its peak, in bytes, of the GPU or else of the process; None for
            models behind an address.
        published: where the figure was published; empty for a run.
    """

    id: str
    model: str
    data: str
    protocol: str
    primary: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    classes: int = 0
    fingerprint: str = ""
    status: str = "finished"
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    speed: float | None = None
    memory: float | None = None
    cost: float | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0
    date: str = ""
    facts: Facts = field(default_factory=Facts)
    suites: tuple[str, ...] = ()
    published: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Flat, for CSV and JSON."""
        facts = {f.name: getattr(self.facts, f.name) for f in fields(Facts)}
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("facts", "scores")}
        return {**kept, "outcomes": dict(self.outcomes), "suites": list(self.suites), **facts}


def page_of(text: str) -> int:
    """The number of a page.

    Raises:
        BadOption: it is none.
    """
    if not text.isascii() or not text.isdecimal() or len(text) > 6 or not int(text):
        raise BadOption(f"page={text[:20]!r} is not allowed; allowed: 1 to 999999.")
    return int(text)


#: What can be sorted by: the address's word, and the value (None goes last).
COLUMNS: dict[str, Any] = {
    "score": lambda e: e.value,
    "model": lambda e: e.model.lower(),
    "parameters": lambda e: e.facts.parameters,
    "open": lambda e: None if e.facts.open is None else int(e.facts.open),
    "licence": lambda e: e.facts.licence.lower() or None,
    "vision": lambda e: e.facts.vision.lower() or None,
    "language": lambda e: e.facts.language.lower() or None,
    "n": lambda e: e.n or None,
    "speed": lambda e: e.speed,
    "memory": lambda e: e.memory,
    "cost": lambda e: e.cost,
    "date": lambda e: e.date or None,
}
#: Those that are best when small, or are words: the first click sorts them upwards.
_UPWARDS = frozenset({"model", "licence", "vision", "language", "memory", "cost", "parameters"})


@dataclass(frozen=True)
class Query:
    """What of the leaderboard is seen; stands in the address bar.

    Attributes:
        q: words that must occur in a model's, data set's or protocol's name.
        size, open, licence, data, protocol, suite, family: what to keep; of several values, any. Empty: all.
        sort, order: a key of ``COLUMNS``, and ``up`` or ``down``.
        published: whether published figures are shown beside.
        by: ``protocol`` makes a table for each data set and protocol, ``data`` one for each data set.
        x: what scores are drawn against.
        page: from 1.
    """

    q: str = ""
    size: tuple[str, ...] = ()
    open: str = ""
    licence: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()
    suite: str = ""
    family: tuple[str, ...] = ()
    sort: str = "score"
    order: str = ""
    published: bool = False
    by: str = "protocol"
    x: str = "speed"
    page: int = 1

    @classmethod
    def of(cls, given: Iterable[tuple[str, str]]) -> Query:
        """From an address's parameters.

        Raises:
            BadOption: a parameter that is not there, or a value that it does not take.
        """
        allowed: dict[str, Sequence[str]] = {
            "size": [*(name for name, _, _ in SIZES), UNKNOWN],
            "open": ["", "open", "proprietary", UNKNOWN],
            "sort": list(COLUMNS),
            "order": ["", "up", "down"],
            "by": ["protocol", "data"],
            "x": ["speed", "memory", "cost"],
        }
        defaults = {one.name: one.default for one in fields(cls)}
        found: dict[str, Any] = {}
        for key, text in given:
            if key not in defaults:
                raise BadOption(f"There is no filter {key!r}.{did_you_mean(key, defaults)}")
            value = text.strip()
            if key in allowed and value not in allowed[key] and value:
                known = ", ".join(filter(None, allowed[key]))
                raise BadOption(f"{key}={value!r} is not allowed; allowed: {known}.")
            if not value:
                continue
            if isinstance(defaults[key], tuple):
                found[key] = (*found.get(key, ()), value)
            elif key == "page":
                found[key] = page_of(value)
            else:
                found[key] = value not in ("0", "no", "false") if key == "published" else value
        return cls(**found)

    @property
    def upwards(self) -> bool:
        """Whether the smallest comes first."""
        return self.order == "up" if self.order else self.sort in _UPWARDS

    def address(self, **changes: Any) -> str:
        """The query as it stands in an address, with some of it changed; from the first page on."""
        changed = replace(self, **{"page": 1, **changes})
        pairs: list[tuple[str, str]] = []
        for one in fields(changed):
            value = getattr(changed, one.name)
            if value == one.default:
                continue
            many = value if isinstance(value, tuple) else [int(value) if isinstance(value, bool) else value]
            pairs += [(one.name, str(item)) for item in many]
        return "?" + urlencode(pairs)

    def sorting(self, column: str) -> str:
        """The address that sorts by a column, or the other way round where it does already."""
        turned = self.sort == column
        up = not self.upwards if turned else column in _UPWARDS
        return self.address(sort=column, order="up" if up else "down")

    def keeps(self, entry: Entry) -> bool:
        """Whether an entry is seen."""
        facts = entry.facts
        words = f"{entry.model} {entry.data} {entry.protocol} {facts.vision} {facts.language}".lower()
        told = {True: "open", False: "proprietary", None: UNKNOWN}[facts.open]
        return (
            all(word in words for word in self.q.lower().split())
            and (not self.size or facts.size in self.size)
            and (not self.open or told == self.open)
            and (not self.licence or (facts.licence or UNKNOWN) in self.licence)
            and (not self.data or entry.data in self.data)
            and (not self.protocol or entry.protocol in self.protocol)
            and (not self.suite or self.suite in entry.suites)
            and (not self.family or (facts.family or UNKNOWN) in self.family)
            and (self.published or not entry.published)
        )

    def ordered(self, entries: Iterable[Entry]) -> list[Entry]:
        """Entries as they are sorted; those without a value last, equals by model."""
        value = COLUMNS[self.sort]
        known: list[tuple[Any, Entry]] = []
        unknown = []
        for entry in entries:
            found = value(entry)
            known.append((found, entry)) if found is not None else unknown.append(entry)
        known.sort(key=lambda pair: (pair[1].model, pair[1].id))
        known.sort(key=lambda pair: pair[0], reverse=not self.upwards)
        return [entry for _, entry in known] + sorted(unknown, key=lambda e: (e.model, e.id))


@dataclass(frozen=True)
class Group:
    """Entries that can be compared: of the same samples by the same score.

    Attributes:
        protocol: empty where protocols stand side by side.
        fingerprint: of the samples; published figures have none of their own and stand with the first.
    """

    data: str
    protocol: str
    primary: str
    fingerprint: str
    entries: tuple[Entry, ...]

    @property
    def n(self) -> int:
        """How many samples."""
        return max((entry.n for entry in self.entries), default=0)


def grouped(entries: Sequence[Entry], query: Query) -> list[Group]:
    """Entries by data set, samples, protocol and score, in the order of the data sets' names."""
    found: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in entries:
        protocol = entry.protocol if query.by == "protocol" else ""
        key = (entry.data, protocol, entry.primary, entry.fingerprint)
        found.setdefault(key, []).append(entry)
    # A published figure is of the data set as a whole: it stands with whatever was measured most of it.
    for key in [key for key in found if not key[3]]:
        mine = [other for other in found if other[:3] == key[:3] and other[3]]
        if mine:
            found[max(mine, key=lambda k: max(e.n for e in found[k]))] += found.pop(key)
    # What can be compared comes before what stands alone.
    order = sorted(
        found, key=lambda k: (len(found[k]) < 2, k[0], k[1], k[2], -max(e.n for e in found[k]), k[3])
    )
    return [Group(*key, tuple(query.ordered(found[key]))) for key in order]


def interval_ranks(entries: Sequence[Entry]) -> dict[str, int]:
    """1 + how many intervals lie wholly above one's own: those that no interval parts are tied."""
    known = [e for e in entries if not e.published and e.low is not None and e.high is not None]
    lows = sorted(e.low for e in known if e.low is not None)
    return {e.id: 1 + len(lows) - bisect_right(lows, e.high) for e in known if e.high is not None}


@dataclass(frozen=True)
class Average:
    """A model over several benchmarks.

    Attributes:
        average: the mean of its scores; None where one is missing.
        rank: the mean of its ranks on the benchmarks that it has, 1 + how many are strictly better on each.
        missing: on how many benchmarks it has no score.
        scores: by benchmark; None where there is none.
    """

    model: str
    average: float | None
    rank: float | None
    missing: int
    scores: Mapping[str, float | None]

    def as_dict(self) -> dict[str, Any]:
        """One flat row."""
        return {"model": self.model, "average": self.average, "rank": self.rank, **self.scores}


def averages(scores: Mapping[str, Mapping[str, float | None]]) -> list[Average]:
    """Average score and average rank, the best average first; models with a gap after them, by rank.

    Source: the Open VLM Leaderboard (github.com/open-compass/VLMEvalKit): unweighted means.

    Args:
        scores: by model and benchmark.
    """
    found = []
    for model, mine in scores.items():
        known = {name: value for name, value in mine.items() if value is not None}
        places = [
            1 + sum((theirs := other.get(name)) is not None and theirs > value for other in scores.values())
            for name, value in known.items()
        ]
        whole = sum(known.values()) / len(known) if known and len(known) == len(mine) else None
        rank = sum(places) / len(places) if places else None
        found.append(Average(model, whole, rank, len(mine) - len(known), dict(mine)))
    return sorted(
        found,
        key=lambda a: (a.average is None, -(a.average or 0), a.missing, a.rank or float("inf"), a.model),
    )


def pareto(points: Sequence[tuple[float, float]], *, small: bool = False) -> list[int]:
    """The places of the points that no other beats on both counts, by x: y large, x large (or ``small``)."""
    sign = 1 if small else -1
    order = sorted(range(len(points)), key=lambda i: (sign * points[i][0], -points[i][1]))
    best, found = float("-inf"), []
    for i in order:
        if points[i][1] > best:
            best = points[i][1]
            found.append(i)
    return sorted(found, key=lambda i: points[i][0])


class Board:
    """A workspace's entries, read again only where runs changed.

    Args:
        store: an open workspace; ``models.toml`` in its folder corrects facts of models.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._entries: dict[str, tuple[str, Entry]] = {}
        self._ranks: dict[tuple[Any, ...], tuple[dict[str, int], bool]] = {}
        self._book, self._book_of = Book(), -1.0
        self._lock = threading.Lock()

    def entries(self) -> list[Entry]:
        """All runs, the oldest first, and published figures after them."""
        with self._lock:
            path = self.store.folder / "models.toml"
            written = path.stat().st_mtime if path.exists() else 0.0
            if written != self._book_of:
                self._book, self._book_of = Book(path), written
                self._entries.clear()
            stamps = self.store.stamps()
            changed = [id for id, stamp in stamps.items() if self._entries.get(id, ("",))[0] != stamp]
            for row in self.store.list_runs(changed if len(changed) < len(stamps) else None):
                entry = _entry(Run(self.store, row["id"], row), self._book)
                self._entries[row["id"]] = (row["updated"], entry)
            return [self._entries[id][1] for id in stamps if id in self._entries] + [*published()]

    def select(self, query: Query) -> list[Group]:
        """What a query shows, in groups."""
        return grouped([entry for entry in self.entries() if query.keeps(entry)], query)

    def ranks(self, group: Group) -> tuple[dict[str, int], bool]:
        """Ranks by run, and whether paired tests stand behind them (or else intervals)."""
        mine = [e for e in group.entries if not e.published and _ended(e)]
        key = tuple((e.id, self._entries[e.id][0]) for e in mine if e.id in self._entries)
        if key not in self._ranks:
            small = len(mine) <= PAIRED_RUNS and sum(e.n for e in mine) <= PAIRED_SAMPLES
            found = paired_ranks([Run(self.store, e.id) for e in mine]) if small and len(mine) > 1 else {}
            self._ranks[key] = (found, True) if found else (interval_ranks(mine), False)
        return self._ranks[key]

    def averaged(self, groups: Sequence[Group]) -> tuple[list[str], list[Average]]:
        """The names of groups as benchmarks, and models over them, in per cent. Of several runs, a model's
        newest counts; runs that have not ended count nowhere; scores that are no shares are no benchmark.
        """
        shares = [g for g in groups if RANGES.get(g.primary, (0.0, 1.0))[1] <= 1 and g.primary not in COUNTS]
        kept = [group for group in shares if any(map(_ended, group.entries))]
        told = [benchmark(group) for group in kept]
        # Other samples of one name are another benchmark.
        names = [
            f"{name} ({group.fingerprint[:6]})" if told.count(name) > 1 else name
            for group, name in zip(kept, told, strict=True)
        ]
        scores: dict[str, dict[str, float | None]] = {}
        for group, name in zip(kept, names, strict=True):
            for entry in sorted(filter(_ended, group.entries), key=lambda e: e.date):
                mine = scores.setdefault(entry.model, dict.fromkeys(names))
                mine[name] = 100 * (entry.value or 0.0)
        return names, averages(scores)


def _ended(entry: Entry) -> bool:
    """Whether an entry has a score that is final."""
    return entry.value is not None and entry.status == "finished"


def benchmark(group: Group) -> str:
    """What a group is called as a benchmark."""
    return " · ".join(filter(None, (group.data, group.protocol, group.primary, f"{group.n} samples")))


def _entry(run: Run, book: Book) -> Entry:
    figures, manifest = run.metrics, run.manifest
    head = run.headline or {}
    names = figures.get("scores", ())
    data = manifest["data"]
    return Entry(
        run.id,
        run.model,
        run.data,
        run.protocol,
        run.primary,
        head.get("value"),
        head.get("low"),
        head.get("high"),
        figures.get("n", 0),
        manifest["protocol"]["options"].get("offer") or len(data["labels"]),
        data["fingerprint"],
        run.status,
        {name: figures[name] for name in names if figures.get(name)},
        figures.get("items_per_second"),
        # What a model behind an address takes is not what asking it takes.
        figures.get("peak_gpu_bytes")
        or (None if "address" in manifest["model"].get("facts", {}) else figures.get("peak_rss_bytes")),
        figures.get("cost"),
        figures.get("outcomes", {}),
        figures.get("skipped", 0),
        str(manifest.get("finished") or manifest.get("started") or ""),
        book.of(run.model, manifest, figures.get("parameters")),
        _suites_of(run.data, run.protocol),
    )


@cache
def _parts() -> tuple[tuple[str, Any], ...]:
    """All suites' parts, with the names of their suites."""
    from snellen.suites.suite import find, names

    return tuple((name, part) for name in names() for part in find(name).parts)


def _suites_of(data: str, protocol: str) -> tuple[str, ...]:
    """The suites that examine this data set by this protocol."""
    bare = protocol.partition("?")[0]
    return tuple(
        dict.fromkeys(
            suite
            for suite, part in _parts()
            if data in part.data
            and (not part.protocols or bare in {name.partition("?")[0] for name in part.protocols})
        )
    )


@cache
def published() -> tuple[Entry, ...]:
    """Figures that studies published, as the suites hold them."""
    return tuple(
        _published(suite, part, data, row)
        for suite, part in _parts()
        if part.published is not None
        for data in part.data
        for row in part.published.rows
    )


#: Published figures that are no scores.
_OTHERS = frozenset({"gpu_gb", "items_per_second", "per_hour"})


def _published(suite: str, part: Any, data: str, row: Sequence[Any]) -> Entry:
    """One published line."""
    figures = dict(zip(part.published.columns[1:], row[1:], strict=True))
    title = part.protocols[0] if part.protocols else "its own"
    for key in part.vary:
        option = key.partition(".")[2]
        setting = figures.pop(part.published.columns[1])
        title += f", {option.replace('_', ' ')} {setting}"
    scale = part.published.scale
    scores = {
        name: {"value": value * scale}
        for name, value in figures.items()
        if value is not None and name not in _OTHERS
    }
    primary = "accuracy" if "accuracy" in figures else next(iter(scores), "accuracy")
    gigabytes = figures.get("gpu_gb")
    return Entry(
        "",
        str(row[0]),
        data,
        title,
        primary,
        scores.get(primary, {}).get("value"),
        scores=scores,
        speed=figures.get("items_per_second"),
        memory=None if gigabytes is None else 1e9 * gigabytes,
        facts=Book().of(str(row[0]), {}),
        suites=(suite,),
        published=part.published.source,
    )
