"""The registry of metrics: names, ranges, and directions.

A metric is one registration, in a module of this package, or of another package under the entry-point group
``snellen.metrics``. If it has a rule for short answers, ``vqa?metric=NAME`` scores by it::

    @metric("off_by_one", heading="off by one", protocols=("vqa",))
    def off_by_one(answer: str, references: Sequence[str]) -> float:
        ...
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snellen.errors import UnknownName, did_you_mean
from snellen.registry import discover

if TYPE_CHECKING:
    from snellen.types import Sample

__all__ = ["METRICS", "Metric", "Metrics", "Rule", "SampleRule", "metric"]

#: Scores an answer against its references, from the metric's ``low`` to its ``high``.
Rule = Callable[[str, Sequence[str]], float]
#: Scores a whole reply to a sample by the sample's columns; None if it does not count.
SampleRule = Callable[[str, "Sample"], float | None]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The description of a metric.

    Attributes:
        name: the key of its stored values.
        heading: its name in tables, without a unit.
        low, high: its range.
        higher_is_better: its direction.
        graded: whether it is a matter of degree, so that no single value is right or wrong.
        scale: the factor applied in tables.
        unit: appended to the heading in tables.
        protocols: the protocols that report it; empty for any.
        option: its value in ``metric=``; empty if it is not an option.
        rule: scores a short answer, if it can be an option.
        sample_rule: scores a whole reply, instead.
        columns: those of a sample that this rule cannot do without.
        check: raises an error if a requirement is missing, before anything is asked.
    """

    name: str
    heading: str
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    graded: bool = False
    scale: float = 100.0
    unit: str = "%"
    protocols: tuple[str, ...] = ()
    option: str = ""
    rule: Rule | None = None
    sample_rule: SampleRule | None = None
    columns: tuple[str, ...] = ()
    check: Callable[[], object] | None = None

    @property
    def title(self) -> str:
        """The heading with its unit.

        >>> METRICS["accuracy"].title
        'accuracy %'
        """
        return f"{self.heading} {self.unit}".rstrip()

    def verdict(self, value: float | None) -> bool | None:
        """Return whether a sample's score means right, at the top of the range, or wrong, at or below 0; None
        in between, and for what is graded.

        >>> METRICS["vqa_accuracy"].verdict(1.0), METRICS["vqa_accuracy"].verdict(0.3)
        (True, None)
        >>> METRICS["cider"].verdict(1.4) is None
        True
        """
        if value is None or self.graded:
            return None
        return True if value >= self.high else False if value <= max(self.low, 0.0) else None

    @property
    def is_share(self) -> bool:
        """Whether it is a share, so that it can be averaged with other shares."""
        return self.high <= 1 and self.unit == "%"


class Metrics(Mapping[str, Metric]):
    """All metrics by name. An unregistered name is treated as a share in percent, higher being better."""

    def __init__(self, package: str = "snellen.metrics") -> None:
        self._package = package
        self._metrics: dict[str, Metric] = {}
        self._options: dict[str, Metric] = {}
        self._discovered = False
        self._lock = threading.RLock()

    def add(self, metric: Metric) -> Metric:
        """Register a metric."""
        self._metrics.setdefault(metric.name, metric)
        if metric.option:
            self._options[metric.option] = metric
        return metric

    def _discover(self) -> None:
        with self._lock:
            if not self._discovered:
                self._discovered = True
                for _, loaded in discover(self._package):
                    if isinstance(loaded, Metric):
                        self.add(loaded)

    def __getitem__(self, name: str) -> Metric:
        self._discover()
        return self._metrics.get(name) or Metric(name=name, heading=name.replace("_", " "))

    def __iter__(self):  # type: ignore[no-untyped-def] # of names
        self._discover()
        return iter(self._metrics)

    def __len__(self) -> int:
        self._discover()
        return len(self._metrics)

    def options(self, protocol: str) -> list[str]:
        """Return the values that a protocol's option ``metric=`` accepts."""
        self._discover()
        return [option for option, m in self._options.items() if not m.protocols or protocol in m.protocols]

    def by_option(self, protocol: str, option: str) -> Metric:
        """Return the metric that a protocol's option selects.

        Raises:
            UnknownName: there is none.
        """
        allowed = self.options(protocol)
        if option not in allowed:
            raise UnknownName(
                f"{protocol}?metric={option!r} is not allowed.{did_you_mean(option, allowed)} "
                f"Allowed: {', '.join(allowed)}."
            )
        return self._options[option]


METRICS = Metrics()


def metric(
    name: str,
    *,
    heading: str = "",
    option: str = "",
    protocols: tuple[str, ...] = (),
    check: Callable[[], object] | None = None,
) -> Callable[[Rule], Rule]:
    """Register a rule for short answers as a metric from 0 to 1.

    Args:
        name: the key of its stored values.
        heading: its name in tables; by default, the name with spaces.
        option: its value in ``metric=``; by default, the name.
        check: raises an error if a requirement is missing.
    """

    def keep(rule: Rule) -> Rule:
        METRICS.add(
            Metric(
                name=name,
                heading=heading or name.replace("_", " "),
                option=option or name,
                protocols=protocols,
                rule=rule,
                check=check,
            )
        )
        return rule

    return keep
