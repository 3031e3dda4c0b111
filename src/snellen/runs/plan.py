"""A plan: every model under every protocol on every data set, checked before the evaluation starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from snellen._util.asyncio import complete
from snellen._util.redaction import redact
from snellen._util.words import counted
from snellen.datasets.base import Dataset, Selection
from snellen.engine.evaluation import Evaluation
from snellen.engine.progress import Progress
from snellen.errors import BadOption, DataError
from snellen.models.base import MODELS, Budget, Limits, Model
from snellen.protocols.base import PROTOCOLS, Protocol
from snellen.runs.filters import DataSource, Filters
from snellen.runs.matching import (
    NamedProtocols,
    check_scorer,
    compatible,
    match_models,
    refuse_unpriced,
    resolve,
    with_options,
)
from snellen.runs.overview import brief
from snellen.runs.run import Run
from snellen.runs.shots import few_shot
from snellen.storage.parquet_run import parquet_url
from snellen.storage.store import Store

if TYPE_CHECKING:
    from snellen.engine.ray.cluster import Engine
    from snellen.engine.ray.executor import RayExecutor
    from snellen.engine.ray.task import TaskSpec
    from snellen.runs.estimate import Forecast
    from snellen.storage.manifest import PlanRecord

__all__ = ["Plan", "SharedResources", "Watch"]

T = TypeVar("T")


#: Called with each evaluation and its progress.
Watch = Callable[[Evaluation, Progress], None]


@dataclass
class SharedResources:
    """Resources shared by several plans: models, loaded once (closed by their creator), data sets, read
    once, and one budget.
    """

    models: dict[str, Model] = field(default_factory=dict)
    selections: dict[str, Selection] = field(default_factory=dict)
    budget: Budget | None = None


@dataclass(kw_only=True)
class Plan:
    """Every model under every protocol on every data set, in all supported combinations.

    Errors that can be detected early are raised when the plan is made, before any model is loaded.

    Args:
        models: names, or the objects themselves.
        data: names, or the objects themselves.
        protocols: names, or the objects themselves. Without any, each data set's own, closed-set or rank.
        model_options: for all models.
        data_options: for all data sets.
        protocol_options: for all protocols.
        filters: for all data sets.
        seed: for shuffling and for protocols that set none.
        batch_size: overrides each model's own.
        workspace: the folder of the store, or an open store.
        fresh: ignore stored answers and start new runs.
        max_cost: a limit in US dollars for all hosted models together; they must have prices.
        max_concurrency: the most concurrent requests to a hosted model.
        data_names: the names to publish the data sets by, in their order; by default, theirs without folders.

    Raises:
        UsageError: as its subclasses say; Unsupported if no model supports any of the protocols.
    """

    models: Sequence[str | Model]
    data: Sequence[str | Path | Dataset]
    protocols: Sequence[str | Protocol] = ()
    model_options: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    protocol_options: Mapping[str, Any] = field(default_factory=dict)
    filters: Filters = field(default_factory=Filters)
    seed: int = 0
    batch_size: int | None = None
    workspace: Store | Path | str | None = None
    fresh: bool = False
    max_cost: float | None = None
    max_concurrency: int | None = None
    data_names: Sequence[str] = ()
    #: A run to resume, and the folder where its relative paths begin.
    resumes: str | None = None
    base: str | None = None
    #: Options for every protocol that has them.
    known_options: Mapping[str, Any] = field(default_factory=dict)
    #: Resources shared with other plans.
    resources: SharedResources | None = None
    #: Where model replicas run; None for this process.
    engine: Engine | None = None
    #: ``parquet:URL``: where replicas write predictions and answers, instead of the workspace.
    sink: str | None = None

    def __post_init__(self) -> None:
        limits = self._limits()
        #: The current run, or the one that was interrupted; None if it cannot be resumed.
        self.current: str | None = None
        self._few_shot: dict[tuple[Any, ...], Selection] = {}
        #: How to build the named data sets.
        self._sources: dict[str, DataSource] = {}
        if self.sink is not None and self.engine is None and self.resumes is None:
            raise BadOption(f"--sink {self.sink} needs --engine ray.")
        self._sink = None if self.sink is None else parquet_url(self.sink)
        #: The runs so far; the last one may have been stopped or interrupted.
        self.runs: list[Run] = []
        if self.batch_size is not None and self.batch_size < 1:
            raise BadOption(f"--batch-size {self.batch_size} is not allowed; allowed: 1 or more.")
        if not isinstance(self.seed, int):
            raise BadOption(f"seed={self.seed!r} is not allowed; allowed: a whole number.")
        given: dict[str, list[Any]] = {"protocol": []}
        if self.protocols:
            given["protocol"] = resolve("protocol", self.protocols, Protocol, self.protocol_options)
        for title in filter(lambda p: isinstance(p, str), given["protocol"]):
            PROTOCOLS.make(title, self.protocol_options, seed=self.seed)  # fail early
        split = {"split": self.filters.split} if self.filters.split else {}
        options = {**self.data_options, **split}
        # A data set that can read only its first rows does so, if no other filter applies.
        picks = replace(self.filters, limit=None, split=None, skip_invalid=False) != Filters()
        few = {} if picks else {"limit": self.filters.limit}
        selections = []
        protocols: list[NamedProtocols] = []
        unfit: list[DataError] = []
        given["data"] = resolve("data", self.data, Dataset, options)
        if self.data_names and len(self.data_names) != len(given["data"]):
            raise BadOption(
                f"{counted(len(self.data_names), 'name')} (--data-name) for "
                f"{counted(len(given['data']), 'data set')} (--data); "
                "give one for each."
            )
        #: The names to publish data sets by.
        self._titles = dict(zip(map(str, given["data"]), self.data_names, strict=False))
        for name in given["data"]:
            selection = self._select(name, options, few)
            made = selection.data
            asked, refused = compatible(self._protocols(given, made), selection)
            unfit += refused
            selections.append(selection)
            protocols.append(asked)
        given["model"] = resolve("model", self.models, Model, self.model_options)
        models = [self._make(name, limits) for name in given["model"]]
        if unfit and not any(protocols):
            raise unfit[0]
        #: Each model with its tasks: a selection, the protocol's title, and the protocol.
        self.pairs, self.skipped = match_models(models, selections, protocols, default=not given["protocol"])
        self.skipped = [*map(str, unfit), *self.skipped]
        #: What was given by name rather than as an object.
        self._names = {sort: {x for x in items if isinstance(x, str)} for sort, items in given.items()}
        #: Notes for the user before it starts.
        self.notes = [note for s in selections for note in (*s.data.notes, *brief(s))]
        #: The selected samples of each data set.
        self.selections = selections

    def _select(self, name: str | Dataset, options: Mapping[str, Any], few: Mapping[str, Any]) -> Selection:
        """Select the samples of a data set to evaluate."""
        if not isinstance(name, str):
            return self.filters.apply(name, self.seed)
        key = repr((name, sorted(options.items()), self.filters, self.seed))
        if self.resources is not None and key in self.resources.selections:
            return self.resources.selections[key]
        self._sources[name] = DataSource(name, options, self.filters, self.seed, few)
        selection = self._sources[name]()
        if self.resources is not None:
            self.resources.selections[key] = selection
        return selection

    def _protocols(self, given: Mapping[str, list[Any]], data: Dataset) -> NamedProtocols:
        """Return the protocols for a data set by title: the user's, or its authors'."""
        # A dual encoder or classifier cannot be asked; it ranks the names. Options choose, too.
        usual = [data.protocol or "closed-set"]
        names = given["protocol"] or usual + ["rank"] * (usual == ["closed-set"])
        protocols, refused = [], []
        for name in names:
            if not isinstance(name, str):
                protocols.append((name.name, name))
                continue
            own = data.protocol_options if name.partition("?")[0] == data.protocol else {}
            has = PROTOCOLS.entries[name.partition("?")[0]].options
            known = {key: value for key, value in self.known_options.items() if key in has}
            try:
                made = PROTOCOLS.make(name, {**own, **known, **self.protocol_options}, seed=self.seed)
            except BadOption as error:
                if given["protocol"]:
                    raise
                refused.append(error)
                continue
            if made.temperature and not made.draws:
                made = replace(made, draws=self.seed)
            protocols.append((name, made))
        if protocols:
            return protocols
        raise refused[0]

    def _make(self, name: str | Model, limits: Limits) -> Model:
        """Build a model with this plan's settings."""
        if isinstance(name, str) and self.resources is not None and name in self.resources.models:
            return self.resources.models[name]
        model = MODELS.make(name, self.model_options) if isinstance(name, str) else name
        if self.engine is not None:
            self.engine.check(model, name)
        model.name = redact(name) if isinstance(name, str) else model.name
        if self.batch_size is not None:
            model.batch_size = self.batch_size
        model.limits = limits
        refuse_unpriced(model)
        if isinstance(name, str) and self.resources is not None:
            self.resources.models[name] = model
        return model

    def _limits(self) -> Limits:
        cost, most = self.max_cost, self.max_concurrency
        if cost is not None and not (isinstance(cost, int | float) and 0 < cost < math.inf):
            raise BadOption(f"--max-cost {cost} is not allowed; allowed: a number above 0.")
        if most is not None and not (isinstance(most, int) and most > 0):
            raise BadOption(f"--max-concurrency {most} is not allowed; allowed: a whole number above 0.")
        budget = None if cost is None else Budget(cost)
        if self.resources is not None:
            budget = self.resources.budget = self.resources.budget or budget
        return Limits(most, budget)

    @cached_property
    def store(self) -> Store:
        """The workspace, opened (and created) on first use."""
        return self.workspace if isinstance(self.workspace, Store) else Store(self.workspace)

    @property
    def folder(self) -> Path:
        """The workspace's folder."""
        return self.store.folder

    def run(self, watch: Watch | None = None) -> list[Run]:
        """Run everything, model by model, and return the runs; also in a running event loop (a notebook)."""
        self.check()
        store = self.store
        for selection in self.selections:
            selection.fingerprint()
        self.runs = []
        for model, tasks in self.pairs:
            examinations: Iterable[Evaluation] = (self.evaluation(model, *task) for task in tasks)
            executor = None
            if self.engine is not None:
                examinations = list(examinations)
                executor = self._executor(model, examinations)
            try:
                for examination in examinations:
                    self.current = examination.run if examination.plan is not None else None
                    try:
                        complete(examination.evaluate(_bind(watch, examination)))
                    finally:
                        self.runs.append(Run(store, examination.run))
            finally:
                if executor is not None:
                    executor.close()
            if self.resources is None:
                model.close()
        return self.runs

    def check(self) -> None:
        """Check that every model and scorer can start.

        Raises:
            UsageError: one cannot.
        """
        for model, tasks in self.pairs:
            if tasks:
                model.check()
            for _, _, protocol in tasks:
                for scorer in protocol.for_model(model).scorers():
                    check_scorer(scorer, model.limits)

    def evaluation(self, model: Model, selection: Selection, title: str, protocol: Protocol) -> Evaluation:
        """Build the evaluation of one of :attr:`pairs`."""
        cache_salt = Run(self.store, self.resumes).manifest.cache_salt if self.resumes else None
        selection = self.shown(selection, protocol)
        return Evaluation(
            model,
            selection,
            protocol,
            self.store,
            seed=self.seed,
            fresh=self.fresh,
            fingerprint=selection.fingerprint(),
            title=redact(with_options(title, self.protocol_options)),
            data_title=self._titles.get(selection.name),
            cache_salt=cache_salt,
            expect=self.resumes,
            plan=self._recipe(model, selection, title),
            sink=self._sink,
        )

    def shown(self, selection: Selection, protocol: Protocol) -> Selection:
        """Return the samples with the examples that a protocol shows before each question."""
        if not protocol.shots:
            return selection
        key = (id(selection), protocol.name, repr(protocol.options()))
        if key not in self._few_shot:
            source = self._sources.get(selection.name)
            options = {} if source is None else source.options
            self._few_shot[key] = few_shot(protocol, selection, options, self.seed)
        return self._few_shot[key]

    def _executor(self, model: Model, examinations: Sequence[Evaluation]) -> RayExecutor | None:
        """Start the replicas of a model on all unfinished evaluations."""
        from snellen.engine.ray.executor import RayExecutor

        assert self.engine is not None
        todo = {evaluation.run: evaluation for evaluation in examinations if not evaluation.finished}
        if not todo:
            return None
        name = next(name for name in self._names["model"] if redact(name) == model.name)
        executor = RayExecutor(self.engine, model, name, self.model_options, self.store)
        executor.begin([self._task(evaluation) for evaluation in todo.values()])
        for evaluation in examinations:  # two evaluations may be the same run
            evaluation.handle = executor.shares.get(evaluation.run)
        return executor

    def _task(self, evaluation: Evaluation) -> TaskSpec:
        """Describe an evaluation for other processes."""
        from snellen.engine.ray.task import TaskSpec

        source = self._sources.get(evaluation.data.name) or partial(_same, evaluation.data)
        n = len(evaluation.data)
        ids = {place: evaluation.data.id(place) for place in range(0, n, max(1, n // 50))}
        return TaskSpec(
            run=evaluation.run,
            data=source,
            protocol=evaluation.protocol,
            n=n,
            ids=ids,
            cache_salt=evaluation.cache_salt,
            sink=evaluation.sink,
            shots=evaluation.data.shots,
        )

    def forecasts(self) -> list[Forecast]:
        """Estimate requests and cost without evaluating."""
        from snellen.runs.estimate import forecast, forecast_scorers

        forecasts = []
        for model, tasks in self.pairs:
            for selection, title, protocol in tasks:
                suited = protocol.for_model(model)
                selection = self.shown(selection, suited)
                forecasts.append(forecast(model, selection, suited, title))
                forecasts += forecast_scorers(selection, suited, title)
        return forecasts

    def _recipe(self, model: Model, selection: Selection, title: str) -> PlanRecord | None:
        """Return what one run of this plan can be rebuilt from; None if an object was given."""
        from snellen.storage.manifest import PlanRecord

        names = {redact(name): name for name in self._names["model"]}
        if model.name not in names or selection.name not in self._names["data"]:
            return None
        if (self._names["protocol"] or self.protocols) and title not in self._names["protocol"]:
            return None
        options = [title, *map(str, self.protocol_options.values())]
        if names[model.name] != model.name or any(redact(text) != text for text in options):
            return None
        return PlanRecord(
            models=(model.name,),
            data=(selection.name,),
            protocols=(title,) if self.protocols else (),
            model_options=dict(self.model_options),
            data_options=dict(self.data_options),
            protocol_options=dict(self.protocol_options),
            filters=asdict(self.filters),
            seed=self.seed,
            batch_size=self.batch_size,
            folder=self.base or str(Path.cwd()),
        )


def _same(selection: Selection) -> Selection:
    return selection


def _bind(watch: Watch | None, examination: Evaluation) -> Callable[[Progress], None] | None:
    return None if watch is None else lambda progress: watch(examination, progress)
