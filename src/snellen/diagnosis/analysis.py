"""The interface of a diagnosis part, its findings, and the subject that it studies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from snellen.datasets.base import Selection
from snellen.errors import DataError, UsageError
from snellen.metrics.stats import Estimate, Paired, holm
from snellen.models.base import Model
from snellen.runs.compare import Comparison, compare
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan, SharedResources, Watch
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
    "undecided",
    "unreadable",
    "with_ci",
]

#: A difference matters little if its interval lies within this margin: 5 points.
MARGIN = 0.05
#: With a smaller share of parsed answers, nothing is concluded about the model.
LEAST_PARSED = 0.5
#: With more likelihoods of names, the part is skipped.
SCORED = 500_000


class Skipped(Exception):
    """A part that cannot run on this subject. The message says why, and what is missing."""


@dataclass(frozen=True)
class ResultTable:
    """Rows of text, with what a reader needs to interpret them."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one part.

    Attributes:
        part, title: the part's name, and the section's title.
        verdict: one plain sentence that cites its numbers.
        about: how to read the figures below.
        charts: as made by :mod:`snellen.reports.charts`, with ``kind`` (curves, scatter).
        figures: the same numbers as JSON.
        runs: the underlying runs.
        shows: whether it agrees with the study's finding (arXiv 2405.18415); None if undecided.
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
        """Everything except the charts, as JSON."""
        kept = ("part", "title", "verdict", "figures", "shows")
        return {**{name: getattr(self, name) for name in kept}, "runs": list(self.runs)}


@dataclass(kw_only=True)
class Subject:
    """A model, its evaluation images, and what to compare with.

    Every evaluation is a run of the workspace and is never repeated.

    Args:
        model, data: names.
        references: other models to compare with: dual encoders, classifiers.
        train: the split to fit probes on.
        captions: files with the model's training texts.
        prompts: additional wordings.
        layers: whose hidden states to probe: ``last`` or ``all``.

    Raises:
        UsageError: as for :class:`snellen.runs.plan.Plan`.
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
        try:
            self._plan(self.model, "closed-set?rounds=1", self.filters)
        except UsageError as error:
            known = self.resources.models.get(self.model)
            if known is None or Kind.GENERATE in known.kinds:
                raise
            raise UsageError(
                f"{self.model} generates no text, and a diagnosis explains generated answers. To compare a "
                f"model with it: snellen diagnose MODEL --data {self.data} --reference {self.model}"
            ) from error
        self.subject: Model = self.resources.models[self.model]
        self.selection: Selection = next(iter(self.resources.selections.values()))
        if len(self.selection.labels) < 2:
            raise DataError(f"{self.data} has no classes, and a diagnosis needs classification.")

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names."""
        return self.selection.labels

    @property
    def undecidable(self) -> str:
        """Why nothing follows from this model's answers; empty if something does.

        Of answers that are no better than guessing, or that mostly cannot be parsed, it proves nothing that
        wording, order, reasoning or fewer names do not change them.
        """
        return self.inconclusive(self.closed, "its {} answers", "its answers are")

    def inconclusive(self, run: Run, answers: str, they_are: str) -> str:
        """Why nothing follows from a run; empty if something does.

        Args:
            answers: the run's answers in words, with ``{}`` for their number.
            they_are: the same, before "no better than".
        """
        if why := unreadable(run, answers):
            return why
        if estimate_of(run).low <= 1 / len(self.labels):
            return f"nothing can be concluded, as {they_are} no better than guessing on these images"
        return ""

    @property
    def scores(self) -> bool:
        """Whether the model provides likelihoods."""
        return Kind.SCORE in self.subject.kinds

    def run(
        self,
        protocol: str,
        *,
        model: str | None = None,
        filters: Filters | None = None,
    ) -> Run:
        """Evaluate the model, or another one, under a protocol, reusing stored results.

        Raises:
            UsageError: as for :class:`snellen.runs.plan.Plan`.
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
        """The model's answers to one closed-set question with all names, on which most parts build."""
        return self.run("closed-set?rounds=1")

    def reference_runs(self) -> dict[str, Run]:
        """The references' rankings of names, by model; unavailable ones are skipped."""
        references = {}
        for name in self.references:
            try:
                references[name] = self.run("rank", model=name)
            except UsageError as error:
                self.missing[name] = str(error)
        return references

    @cached_property
    def missing(self) -> dict[str, str]:
        """Unavailable references, and why."""
        return {}

    def difference(self, first: Run, other: Run) -> Comparison:
        """Return one run minus another on the same images."""
        (comparison,) = compare([first, other], across=True)
        return comparison

    def differences(self, runs: Mapping[str, Run], base: Run) -> dict[str, Comparison]:
        """Return each run minus a common baseline, with p-values adjusted for the number of runs (Holm)."""
        comparisons = {title: self.difference(run, base) for title, run in runs.items()}
        adjusted = holm([comparison.result.p for comparison in comparisons.values()])
        return {
            title: replace(comparison, p_adjusted=p)
            for (title, comparison), p in zip(comparisons.items(), adjusted, strict=True)
        }

    def close(self) -> None:
        """Release the models."""
        for model in self.resources.models.values():
            model.close()


class Analysis(ABC):
    """One question about a subject."""

    name: ClassVar[str]
    order: ClassVar[int]

    @abstractmethod
    def run(self, case: Subject) -> Finding:
        """Answer the question.

        Raises:
            Skipped: this subject lacks what the question needs.
        """


def estimate_of(run: Run) -> Estimate:
    """Return a run's accuracy."""
    figure = run.metrics["accuracy"]
    assert figure.low is not None
    assert figure.high is not None
    return Estimate(figure.value, figure.low, figure.high)


def understood(run: Run) -> str:
    """Return how many of a run's answers were parsed, out of how many."""
    return f"{run.metrics.outcomes['ok']} of {run.metrics.n}"


def unreadable(run: Run, which: str) -> str:
    """Say that too few of a run's answers could be parsed to conclude anything; empty if enough were.

    Args:
        which: the answers in words, with ``{}`` for their number.
    """
    parsed, n = run.metrics.outcomes["ok"], run.metrics.n
    if parsed >= LEAST_PARSED * n:
        return ""
    return f"nothing can be concluded, as only {parsed} of {which.format(n)} could be parsed"


def little(gap: Estimate, *, real: bool) -> bool | None:
    """Return whether a difference matters little: True if its interval lies within ``MARGIN``, False if it is
    significant and larger, None if these images do not show either.

    >>> little(Estimate(0.01, -0.02, 0.04), real=False), little(Estimate(0.01, -0.1, 0.12), real=False)
    (True, None)
    """
    if gap.low >= -MARGIN and gap.high <= MARGIN:
        return True
    return False if real else None


def undecided(result: Paired) -> str:
    """Say that a comparison shows neither an effect nor its absence, and what it could have shown.

    >>> from snellen.metrics.stats import paired
    >>> undecided(paired([1, 0, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1], range(6)))
    'not enough images to tell (6; they would show a difference of about 58 points)'
    """
    return (
        f"not enough images to tell ({result.n}; they would show a difference of about "
        f"{100 * result.detectable:.0f} points)"
    )


def with_ci(figure: Estimate) -> str:
    """Format a share in percent with its interval.

    >>> with_ci(Estimate(0.5, 0.4, 0.6))
    '50.0% (40.0–60.0)'
    """
    return f"{100 * figure.value:.1f}% ({100 * figure.low:.1f}–{100 * figure.high:.1f})"


def points(figure: Estimate) -> str:
    """Format a difference in points with its interval.

    >>> points(Estimate(-0.1, -0.2, 0.0))
    '-10.0 points (-20.0 to +0.0)'
    """
    return f"{100 * figure.value:+.1f} points ({100 * figure.low:+.1f} to {100 * figure.high:+.1f})"
