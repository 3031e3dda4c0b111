"""The manifest and metrics of a run, validated by pydantic.

Import it where a run is read rather than at the top of a module: ``snellen --help`` must not load pydantic.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from snellen.errors import did_you_mean

__all__ = [
    "Bounds",
    "Category",
    "DataRecord",
    "Figure",
    "ModelRecord",
    "PlanRecord",
    "ProtocolRecord",
    "RunManifest",
    "RunMetrics",
    "SkippedRow",
]

#: Increment when the meaning of a key changes.
SCHEMA_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def as_dict(self) -> dict[str, Any]:
        """Return all fields that were set, as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)


class ModelRecord(_Record):
    """The model of a run.

    Attributes:
        identity: everything that can change an answer.
        metadata: facts about the loaded model: parameters, device, peak memory …
    """

    name: str
    identity: dict[str, Any]
    metadata: dict[str, Any] = Field(default_factory=dict)


class SkippedRow(_Record):
    """An unreadable row of the data set."""

    where: str
    reason: str


class DataRecord(_Record):
    """The data of a run.

    Attributes:
        title: the name to publish it by, if the user chose one.
        fingerprint: a hash of labels, ids and contents.
        labels: the class names, if any.
        background: the label that means "none of the others".
        figures: how the figures of its authors are computed, by name.
        whole: how many samples those figures are of; 0 if that is not documented.
    """

    name: str
    title: str | None = None
    filters: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str
    n: int
    labels: tuple[str, ...] = ()
    background: str | None = None
    notes: tuple[str, ...] = ()
    figures: dict[str, dict[str, Any]] = Field(default_factory=dict)
    whole: int = 0
    skipped: tuple[SkippedRow, ...] = ()


class ProtocolRecord(_Record):
    """The protocol of a run; ``title`` is the user's name for it, with options."""

    name: str
    title: str
    options: dict[str, Any] = Field(default_factory=dict)
    shots: tuple[dict[str, Any], ...] = ()


class PlanRecord(_Record):
    """The user's request, if it can be expressed by names: enough to resume the run.

    Attributes:
        folder: where relative paths begin.
    """

    models: tuple[str, ...]
    data: tuple[str, ...]
    protocols: tuple[str, ...]
    model_options: dict[str, Any]
    data_options: dict[str, Any]
    protocol_options: dict[str, Any]
    filters: dict[str, Any]
    seed: int
    batch_size: int | None
    folder: str | None = None


class RunManifest(_Record):
    """Everything needed to reproduce a run.

    Attributes:
        snellen: the version.
        scorers: the identities of scorers with models.
        cache_salt: of a fresh run; empty if cached responses may be used.
        specification: a hash of the run's identity.
        rescored: the run whose stored answers were parsed again.
        sink: the folder or bucket of Parquet files with its answers, if they are not in the database.
        stopped: why it stopped early; ``raced``: a race ended it by what it had seen.
        process: that evaluates it, or did so last.
    """

    schema_version: int = SCHEMA_VERSION
    snellen: str
    model: ModelRecord
    data: DataRecord
    protocol: ProtocolRecord
    scorers: tuple[dict[str, Any], ...] = ()
    seed: int = 0
    cache_salt: str = ""
    specification: str = ""
    rescored: str | None = None
    sink: str | None = None
    batch_size: int | None = None
    plan: PlanRecord | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    hardware: dict[str, Any] = Field(default_factory=dict)
    git: str | None = None
    started: str = ""
    finished: str | None = None
    stopped: str | None = None
    raced: bool = False
    process: dict[str, Any] = Field(default_factory=dict)
    replicas: tuple[dict[str, Any], ...] = ()
    shards: int = 0


class Figure(_Record):
    """A score over the samples of a run, with its 95% interval, if it has one."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


class Bounds(_Record):
    """The minimum and maximum that a score can have."""

    low: float
    high: float


class Category(_Record):
    """The primary score of one category of samples."""

    value: float
    n: int


class Official(_Record):
    """A figure of a benchmark's authors: a share, or a number of points.

    Attributes:
        n: the samples, or groups of them, that it counts.
        group: the breakdown that it is a part of, if it is.
    """

    name: str
    value: float
    n: int
    points: bool = False
    group: str = ""


class RunMetrics(BaseModel):
    """The metrics of a run. Scores are fields with their own names (:meth:`figure`).

    Attributes:
        primary: the score that runs are ranked by.
        scores: the names of all scores that are means over samples.
        accuracy_bounds: if all samples without the outcome ok were wrong, or right.
        official: the figures of the benchmark's authors, in their order.
        protocol: the protocol's own figures.
        latency_median, latency_p95: seconds per request.
        cost, scoring_cost: in US dollars.
        peak_rss_bytes, peak_gpu_bytes: of the process, and of the GPU.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Figure | None]

    schema_version: int = SCHEMA_VERSION
    n: int = 0
    primary: str = "accuracy"
    scores: tuple[str, ...] = ()
    outcomes: dict[str, int] = Field(default_factory=dict)
    clusters: int | None = None
    macro_precision: float | None = None
    macro_recall: float | None = None
    weighted_precision: float | None = None
    weighted_recall: float | None = None
    accuracy_bounds: Bounds | None = None
    by_category: dict[str, Category] = Field(default_factory=dict)
    official: tuple[Official, ...] = ()
    protocol: dict[str, Any] = Field(default_factory=dict)
    questions: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    latency_median: float | None = None
    latency_p95: float | None = None
    skipped: int = 0
    items_per_second: float | None = None
    cost: float | None = None
    scoring_cost: float | None = None
    peak_rss_bytes: int | None = None
    peak_gpu_bytes: int | None = None
    parameters: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_unknown(cls, given: Any) -> Any:
        """Drop scores whose value is unknown (null, originally NaN)."""
        if not isinstance(given, dict):
            return given
        return {k: None if isinstance(v, dict) and v.get("value", 0) is None else v for k, v in given.items()}

    def figure(self, name: str) -> Figure | None:
        """Return a score by its name; None if the run has none."""
        return (self.model_extra or {}).get(name)

    def figures(self) -> dict[str, Figure]:
        """Return all scores by name."""
        return {name: figure for name, figure in (self.model_extra or {}).items() if figure is not None}

    def __getitem__(self, name: str) -> Figure:
        """Return a score by its name.

        Raises:
            KeyError: the run has no such score.
        """
        figure = self.figure(name)
        if figure is None:
            known = self.figures()
            raise KeyError(f"{name}.{did_you_mean(name, known)} Its scores: {', '.join(known)}")
        return figure

    def as_dict(self) -> dict[str, Any]:
        """Return all fields that were set, as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)
