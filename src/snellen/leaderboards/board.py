"""The leaderboard as data: runs with facts about their models, filtered, grouped, ranked, averaged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from snellen._util.words import counted
from snellen.leaderboards.conclusion import conclude
from snellen.leaderboards.entries import Entry, entry_of
from snellen.leaderboards.model_info import ModelInfoIndex
from snellen.leaderboards.query import Query
from snellen.leaderboards.ranking import (
    Average,
    Candidate,
    PairedTests,
    Ranks,
    averages,
    pairable,
    rank,
)
from snellen.metrics.registry import METRICS
from snellen.runs.run import Run
from snellen.storage.store import Store

__all__ = ["Board", "Group", "benchmark", "grouped"]


@dataclass(frozen=True)
class Group:
    """Comparable entries: the same samples and score.

    Attributes:
        protocol: empty if the group spans protocols.
        fingerprint: of the samples; published figures have none and join the first group.
    """

    data: str
    protocol: str
    primary: str
    fingerprint: str
    entries: tuple[Entry, ...]

    @property
    def n(self) -> int:
        """The number of samples."""
        return max((entry.n for entry in self.entries), default=0)


def grouped(entries: Sequence[Entry], query: Query) -> list[Group]:
    """Group entries by data set, samples, protocol and score, in the order of the data sets' names."""
    groups: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in entries:
        protocol = entry.protocol if query.by == "protocol" else ""
        key = (entry.data, protocol, entry.primary, entry.fingerprint)
        groups.setdefault(key, []).append(entry)
    # A published figure covers the whole data set, so it joins the group with the most samples.
    for key in [key for key in groups if not key[3]]:
        measured = [other for other in groups if other[:3] == key[:3] and other[3]]
        if measured:
            groups[max(measured, key=lambda k: max(e.n for e in groups[k]))] += groups.pop(key)
    # Comparable entries come before single ones.
    order = sorted(
        groups, key=lambda k: (len(groups[k]) < 2, k[0], k[1], k[2], -max(e.n for e in groups[k]), k[3])
    )
    return [Group(*key, tuple(query.ordered(groups[key]))) for key in order]


class Board:
    """A workspace's entries, reloaded only if runs changed.

    Args:
        store: an open workspace; ``models.toml`` in its folder corrects facts about models.
        published: figures from elsewhere, shown next to the runs.
        suites_of: returns the names of the suites that combine a protocol with a data set.
    """

    def __init__(
        self,
        store: Store,
        published: Sequence[Entry] = (),
        suites_of: Callable[[str, str], tuple[str, ...]] = lambda data, protocol: (),
    ) -> None:
        self.store, self.published, self.suites_of = store, tuple(published), suites_of
        self._entries: dict[str, tuple[str, Entry]] = {}
        self._comparisons: dict[tuple[Any, ...], tuple[Ranks, str]] = {}
        self._book, self._book_of = ModelInfoIndex(), -1.0
        self._lock = threading.Lock()

    def entries(self) -> list[Entry]:
        """Return all runs, oldest first, then published figures."""
        with self._lock:
            path = self.store.folder / "models.toml"
            written = path.stat().st_mtime if path.exists() else 0.0
            if written != self._book_of:
                self._book, self._book_of = ModelInfoIndex(path), written
                self._entries.clear()
            stamps = self.store.stamps()
            changed = [id for id, stamp in stamps.items() if self._entries.get(id, ("",))[0] != stamp]
            for row in self.store.list_runs(changed if len(changed) < len(stamps) else None):
                run = Run(self.store, row["id"], row)
                entry = entry_of(run, self._book, self.suites_of(run.source, run.protocol))
                self._entries[row["id"]] = (row["updated"], entry)
            return [self._entries[id][1] for id in stamps if id in self._entries] + [*self.published]

    def select(self, query: Query) -> list[Group]:
        """Return what a query shows, in groups."""
        return grouped([entry for entry in self.entries() if query.keeps(entry)], query)

    def ranks(self, group: Group) -> Ranks:
        """Rank a group's runs (see :func:`snellen.leaderboards.ranking.rank`)."""
        return self._compared(group)[0]

    def conclusion(self, group: Group) -> str:
        """Return in words how a group's runs compare; empty if they are too many for paired tests."""
        return self._compared(group)[1]

    def _compared(self, group: Group) -> tuple[Ranks, str]:
        """Return a group's ranks and conclusion, made again only if its runs changed."""
        ended = [e for e in group.entries if not e.published and _ended(e)]
        key = tuple((e.id, self._entries[e.id][0]) for e in ended if e.id in self._entries)
        if key not in self._comparisons:
            tests, runs = PairedTests(), [Run(self.store, e.id) for e in ended]
            ranks = rank([Candidate(e.id, e.low, e.high, e.n) for e in ended], lambda: runs, tests)
            sentences = conclude(runs if pairable([e.n for e in ended]) else [], tests)
            self._comparisons[key] = ranks, " ".join(sentences)
        return self._comparisons[key]

    def averaged(self, groups: Sequence[Group]) -> tuple[list[str], list[Average]]:
        """Treat groups as benchmarks and average models over them, in percent. A model's latest run counts;
        unfinished runs and scores that are not shares do not.
        """
        shares = [group for group in groups if METRICS[group.primary].is_share]
        kept = [group for group in shares if any(map(_ended, group.entries))]
        titles = [benchmark(group) for group in kept]
        # Other samples under the same name are another benchmark.
        names = [
            f"{name} ({group.fingerprint[:6]})" if titles.count(name) > 1 else name
            for group, name in zip(kept, titles, strict=True)
        ]
        scores: dict[str, dict[str, float | None]] = {}
        for group, name in zip(kept, names, strict=True):
            for entry in sorted(filter(_ended, group.entries), key=lambda e: e.date):
                row = scores.setdefault(entry.model, dict.fromkeys(names))
                row[name] = 100 * (entry.value or 0.0)
        return names, averages(scores)


def _ended(entry: Entry) -> bool:
    """Return whether an entry has a final score."""
    return entry.value is not None and entry.status == "finished"


def benchmark(group: Group) -> str:
    """Return the name of a group as a benchmark."""
    return " · ".join(filter(None, (group.data, group.protocol, group.primary, counted(group.n, "sample"))))
