"""Which samples of a run to show, and in which order, as encoded in the URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import urlencode

from snellen.errors import BadOption
from snellen.leaderboards.query import page_of
from snellen.metrics.registry import METRICS
from snellen.runs.run import Run
from snellen.types import Outcome
from snellen.web.digest import Digest, SampleBrief

__all__ = ["SAMPLES", "Place", "Wanted", "orders_of"]

#: Samples per page.
SAMPLES = 24
#: Orders other than the data set's: the words in the URL, how it is called, and the value to sort by.
ORDERS: Mapping[str, tuple[str, Callable[[SampleBrief], float | None]]] = {
    "score": ("lowest score first", lambda s: s.score),
    "-score": ("highest score first", lambda s: None if s.score is None else -s.score),
    "confidence": ("least confident first", lambda s: s.confidence),
    "-confidence": ("most confident first", lambda s: None if s.confidence is None else -s.confidence),
}


def orders_of(run: Run, digest: Digest) -> dict[str, str]:
    """Return the orders that tell samples apart, by their word in the URL."""
    some = {
        "score": not run.classifies and any(s.score is not None for s in digest.samples),
        "confidence": any(s.confidence is not None for s in digest.samples),
    }
    return {word: text for word, (text, _) in ORDERS.items() if some[word.lstrip("-")]}


class Place(NamedTuple):
    """A sample's place among those selected: its number from 1 (0 if it is not one of them), how many there
    are, and the positions of the previous and the next.
    """

    number: int
    total: int
    before: int | None
    after: int | None

    @classmethod
    def of(cls, positions: Sequence[int], position: int) -> Place:
        """Find it.

        >>> Place.of([4, 7, 9], 7)
        Place(number=2, total=3, before=4, after=9)
        """
        here = next((i for i, other in enumerate(positions) if other == position), None)
        if here is None:
            return cls(0, len(positions), None, positions[0] if positions else None)
        return cls(
            here + 1,
            len(positions),
            positions[here - 1] if here else None,
            positions[here + 1] if here + 1 < len(positions) else None,
        )


@dataclass(frozen=True)
class Wanted:
    """The filters on a run's samples, their order, and the page.

    Attributes:
        outcome, right, truth, predicted, q: filters; None or empty: any. An empty ``predicted`` means
            nothing predicted. ``q`` occurs in the id, the prediction, the reason or an answer.
        sort: a key of :data:`ORDERS`; empty: the order of the data.
        page: from 1.
    """

    outcome: str = ""
    right: str = ""
    truth: str | None = None
    predicted: str | None = None
    q: str = ""
    sort: str = ""
    page: int = 1

    @classmethod
    def of(cls, given: Mapping[str, str], run: Run) -> Wanted:
        """Parse them.

        Raises:
            BadOption: an unknown filter or value.
        """
        names = cls.__dataclass_fields__
        for name in given:
            if name not in names:
                raise BadOption(f"Unknown filter {name!r}; allowed: {', '.join(names)}.")
        values: dict[str, Any] = dict(given)
        if "page" in values:
            values["page"] = page_of(values["page"])
        if "q" in values:
            values["q"] = values["q"].strip()
        wanted = cls(**values)
        allowed: dict[str, list[str]] = {
            "outcome": [str(outcome) for outcome in Outcome],
            "right": [] if METRICS[run.primary].graded else ["yes", "no"],
            "sort": list(ORDERS),
        }
        for name, options in allowed.items():
            value = getattr(wanted, name)
            if value and value not in options:
                said = ", ".join(options) or f"nothing, since {run.primary} is a matter of degree"
                raise BadOption(f"{name}={value!r} is not allowed; allowed: {said}.")
        return wanted

    @property
    def first(self) -> int:
        """The number of samples before this page."""
        return SAMPLES * (self.page - 1)

    @property
    def any(self) -> bool:
        """Whether any filter is set."""
        return self != Wanted(sort=self.sort, page=self.page)

    def query(self, **changes: Any) -> str:
        """Return the filters as a query string, with some changed; empty if there are none."""
        wanted = replace(self, **{"page": 1, **changes})
        kept = {
            name: value
            for name in self.__dataclass_fields__
            if (value := getattr(wanted, name)) != self.__dataclass_fields__[name].default
        }
        return f"?{urlencode(kept)}" if kept else ""

    def address(self, **changes: Any) -> str:
        """Return the part of the URL that leads to the list of samples."""
        return f"{self.query(**changes) or '?'}#samples"

    def around(self, place: Place, position: int) -> str:
        """Return the part of the URL that leads back to a sample in its list."""
        if not place.number:
            return self.address()
        return f"{self.query(page=(place.number - 1) // SAMPLES + 1) or '?'}#s{position}"

    def select(self, digest: Digest, run: Run) -> list[SampleBrief]:
        """Return the selected samples in their order."""
        rows = [sample for sample in digest.samples if self._keeps(sample)]
        if self.q:
            sought = self.q.lower()
            said = digest.searches.get(sought, lambda: frozenset(run.store.records(run.id).search(sought)))
            rows = [
                s for s in rows if s.id in said or sought in f"{s.id}\n{s.prediction}\n{s.reason}".lower()
            ]
        if self.sort:
            value = ORDERS[self.sort][1]
            rows.sort(key=lambda s: (value(s) is None, value(s) or 0.0))
        return rows

    def _keeps(self, sample: SampleBrief) -> bool:
        return (
            (not self.outcome or sample.outcome == self.outcome)
            and (not self.right or sample.right is (self.right == "yes"))
            and (self.truth is None or (sample.label or "") == self.truth)
            and (self.predicted is None or sample.prediction == self.predicted)
        )
