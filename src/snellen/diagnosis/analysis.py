"""What a part of a diagnosis is, what it finds, and the case that it looks at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from snellen.datasets.base import Selection
from snellen.errors import DataError, UsageError
from snellen.metrics.stats import Estimate, holm
from snellen.models.base import Model
from snellen.runs.compare import Comparison, compare
from snellen.runs.plan import Filters, Plan, SharedResources, Watch
from snellen.runs.run import Run
from snellen.storage.store import Store
from snellen.types import Kind

__all__ = [
    "MARGIN",
    "SCORED",
    "Analysis",
    "Finding",
    "ResultTable",
    "Skipped",
    "Subject",
    "estimate_of",
    "little",
    "points",
    "with_ci",
]

#: A difference matters little if its interval lies within so much: 5 points.
MARGIN = 0.05
#: Beyond so many likelihoods of names, they are left out.
SCORED = 500_000


class Skipped(Exception):
    """A part that cannot look at this case. The message says why, and what it would take."""


@dataclass(frozen=True)
class ResultTable:
    """Rows of text, with what a person needs to read them."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a part found.

    Attributes:
        part, title: its name, and what the section is called.
        verdict: one plain sentence that cites its numbers.
        about: how to read the figures below.
        charts: as :mod:`snellen.reports.charts` makes them, with ``kind`` (curves, scatter).
        figures: the same numbers as JSON.
        runs: the runs behind it.
        shows: whether it shows what the study found (arXiv 2405.18415); None where it says nothing of it.
    """

    part: str
    title: str
    verdict: str
    about: str = ""
    tables: tuple[ResultTable, ...] = ()
    charts: tuple[dict[str, Any], ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    shows: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """What is not drawn, as JSON."""
        kept = ("part", "title", "verdict", "figures", "shows")
        return {**{name: getattr(self, name) for name in kept}, "runs": list(self.runs)}


@dataclass(kw_only=True)
class Subject:
    """A model, the images that it is examined on, and what else there is to compare with.

    Every examination is a run of the workspace: done once, it is not done again.

    Args:
        model, data: names.
        references: other models, to be set beside it: dual encoders, classifiers.
        train: the split that probes are fitted on.
        captions: files of texts that the model was trained on.
        prompts: further wordings.
        layers: whose hidden states are probed: ``last`` or ``all``.

    Raises:
        UsageError: as :class:`snellen.runs.plan.Plan`.
        DataError: the data set has no classes.
    """

    model: str
    data: str
    store: Store
    references: Sequence[str] = ()
    train: str | None = None
    captions: Sequence[Path] = ()
    prompts: Sequence[str] = ()
    layers: str = "last"
    filters: Filters = field(default_factory=Filters)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch_size: int | None = None
    watch: Watch | None = None
    max_cost: float | None = None
    max_concurrency: int | None = None
    resources: SharedResources = field(default_factory=SharedResources)

    def __post_init__(self) -> None:
        self._plan(self.model, "closed-set?rounds=1", self.filters)  # refuses what cannot be asked
        self.subject: Model = self.resources.models[self.model]
        self.selection: Selection = next(iter(self.resources.selections.values()))
        if len(self.selection.labels) < 2:
            raise DataError(f"{self.data} has no classes, and a diagnosis is of classification.")

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names."""
        return self.selection.labels

    @property
    def guesses(self) -> bool:
        """Whether its closed-set answers are no better than guessing, as far as these images show: then it
        says nothing that wordings, orders or thoughts do not change them.
        """
        return estimate_of(self.closed).low <= 1 / len(self.labels)

    @property
    def scores(self) -> bool:
        """Whether the model tells likelihoods."""
        return Kind.SCORE in self.subject.kinds

    def run(
        self,
        protocol: str,
        *,
        model: str | None = None,
        filters: Filters | None = None,
    ) -> Run:
        """Examine the model, or another one, by a protocol; what is there already comes back.

        Raises:
            UsageError: as :class:`snellen.runs.plan.Plan`.
        """
        (result,) = self._plan(model or self.model, protocol, filters or self.filters).run(self.watch)
        return result

    def _plan(self, model: str, protocol: str, filters: Filters) -> Plan:
        return Plan(
            models=[model],
            data=[self.data],
            protocols=[protocol],
            model_options=self.model_options if model == self.model else {},
            data_options=self.data_options,
            protocol_options={},
            filters=filters,
            seed=self.seed,
            batch_size=self.batch_size,
            workspace=self.store,
            max_cost=self.max_cost,
            max_concurrency=self.max_concurrency,
            resources=self.resources,
        )

    @cached_property
    def closed(self) -> Run:
        """The model's answers to a closed set of all names, asked once: what most parts begin with."""
        return self.run("closed-set?rounds=1")

    def beside(self) -> dict[str, Run]:
        """The references' ranks of names, by model; those that cannot be asked are left out."""
        references = {}
        for name in self.references:
            try:
                references[name] = self.run("rank", model=name)
            except UsageError as error:
                self.missing[name] = str(error)
        return references

    @cached_property
    def missing(self) -> dict[str, str]:
        """References that could not be asked, and why."""
        return {}

    def difference(self, first: Run, other: Run) -> Comparison:
        """One run less another on the same images."""
        (comparison,) = compare([first, other], across=True)
        return comparison

    def differences(self, runs: Mapping[str, Run], base: Run) -> dict[str, Comparison]:
        """Each run less one and the same, with p adjusted for how many there are (Holm)."""
        comparisons = {title: self.difference(run, base) for title, run in runs.items()}
        adjusted = holm([comparison.result.p for comparison in comparisons.values()])
        return {
            title: replace(comparison, p_adjusted=p)
            for (title, comparison), p in zip(comparisons.items(), adjusted, strict=True)
        }

    def close(self) -> None:
        """Give back what models took."""
        for model in self.resources.models.values():
            model.close()


class Analysis(ABC):
    """One question about a case."""

    name: ClassVar[str]
    order: ClassVar[int]

    @abstractmethod
    def run(self, case: Subject) -> Finding:
        """Answer it.

        Raises:
            LeftOut: this case has not what it takes.
        """


def estimate_of(run: Run) -> Estimate:
    """The accuracy of a run."""
    figure = run.metrics["accuracy"]
    assert figure.low is not None
    assert figure.high is not None
    return Estimate(figure.value, figure.low, figure.high)


def understood(run: Run) -> str:
    """How many of a run's answers could be read, of how many."""
    return f"{run.metrics.outcomes['ok']} of {run.metrics.n}"


def little(gap: Estimate, *, real: bool) -> bool | None:
    """Whether a difference matters little: True where its interval lies within ``MARGIN``, False where it is
    significant beyond that, None where these images do not tell.

    >>> little(Estimate(0.01, -0.02, 0.04), real=False), little(Estimate(0.01, -0.1, 0.12), real=False)
    (True, None)
    """
    if gap.low >= -MARGIN and gap.high <= MARGIN:
        return True
    return False if real else None


def with_ci(figure: Estimate) -> str:
    """A share in per cent with its interval.

    >>> with_ci(Estimate(0.5, 0.4, 0.6))
    '50.0 % (40.0–60.0)'
    """
    return f"{100 * figure.value:.1f} % ({100 * figure.low:.1f}–{100 * figure.high:.1f})"


def points(figure: Estimate) -> str:
    """A difference in points with its interval.

    >>> points(Estimate(-0.1, -0.2, 0.0))
    '-10.0 points (-20.0 to +0.0)'
    """
    return f"{100 * figure.value:+.1f} points ({100 * figure.low:+.1f} to {100 * figure.high:+.1f})"
