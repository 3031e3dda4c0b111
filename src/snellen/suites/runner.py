"""A suite carried out: every part planned and examined, and its tables of published beside measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen._util.redaction import redact
from snellen.errors import BadOption, DataError, Unsupported, UsageError, did_you_mean
from snellen.protocols.base import PROTOCOLS
from snellen.runs.plan import Filters, Plan, SharedResources, Watch
from snellen.storage.store import Store
from snellen.suites.completed import CompletedRun
from snellen.suites.result import SuiteResult
from snellen.suites.suite import Part, Suite, check_limit

if TYPE_CHECKING:
    from snellen.runs.estimate import Forecast

__all__ = ["forecast", "run_suite"]


@dataclass(frozen=True)
class _Step:
    """One part of a suite, in one setting, on one data set, by one model."""

    part: Part
    setting: dict[str, Any]
    data: str
    model: str

    def plan(self, limit: int | None, **common: Any) -> Plan:
        """The plan of this step.

        Args:
            limit: samples at most.
            common: what all steps of the suite are planned with.
        """
        part = self.part
        options = {"data": part.data_options, "protocol": part.protocol_options, "filters": part.filters}
        for name, value in self.setting.items():
            where, _, option = name.partition(".")
            options[where] = {**options[where], option: value}
        filters = dict(options["filters"])
        if limit is not None:
            filters["limit"] = min(limit, filters.get("limit", limit))
        return Plan(
            models=[self.model],
            data=[self.data],
            protocols=part.protocols,
            data_options=options["data"],
            protocol_options=options["protocol"],
            filters=Filters(**filters),
            **common,
        )


def _steps(suite: Suite, models: Sequence[str]) -> Iterator[_Step]:
    """Each model, part, setting and data set, so that one that is missing takes none along; model by model,
    so that each is loaded once.
    """
    for model in dict.fromkeys(models or [m for part in suite.parts for m in part.models or suite.models]):
        for part in suite.parts:
            if models or model in (part.models or suite.models):
                for setting, data in product(part.settings(), part.data):
                    yield _Step(part, setting, data, model)


@contextmanager
def _collecting_errors(part: Part, model: str, left_out: list[str]) -> Iterator[None]:
    """What a user must mend for a part is told, and the other parts go on. What a model cannot answer at all
    is no part of its suite.
    """
    try:
        yield
    except Unsupported:
        pass  # a dual encoder writes no captions: nothing is missing
    except UsageError as error:
        message = f"{part.name}, {redact(model)}: {error}"
        if message not in left_out:
            left_out.append(message)


def _check_options(suite: Suite, options: Mapping[str, Any]) -> None:
    """Refuse an option that no protocol can have.

    Raises:
        BadOption: there is one.
    """
    known = {name for entry in PROTOCOLS.entries.values() for name in entry.options}
    for key in options:
        if key not in known:
            raise BadOption(
                f"-P {key}: no protocol of the suite {suite.name!r} has such an option."
                f"{did_you_mean(key, known)}"
            )


def forecast(
    suite: Suite,
    models: Sequence[str] = (),
    *,
    limit: int | None = None,
    workspace: Any = None,
    max_cost: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[list[tuple[str, Forecast]], list[str]]:
    """What a suite will ask and cost, part by part, and what it will leave out. Nothing is asked.

    Raises:
        BadOption: an option that no protocol has.
    """
    check_limit(limit)
    _check_options(suite, options or {})
    left_out: list[str] = []
    estimates = []
    common = {"workspace": workspace, "max_cost": max_cost, "resources": SharedResources()}
    for step in _steps(suite, models):
        with _collecting_errors(step.part, step.model, left_out):
            plan = step.plan(limit, **common, known_options=options or {})
            estimates += [(step.part.name, estimate) for estimate in plan.forecasts()]
    return estimates, left_out


def run_suite(
    suite: Suite,
    models: Sequence[str] = (),
    *,
    limit: int | None = None,
    workspace: Store | Path | str | None = None,
    max_cost: float | None = None,
    options: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> SuiteResult:
    """Examine every model in every part that it can answer. Started again, it asks only what is missing.

    Args:
        models: instead of the suite's own, in all parts.
        limit: samples of each part, at most.
        options: of every protocol that has them (a judge).

    Raises:
        BadOption: an option that no protocol has.
        DataError: nothing at all could be examined.
        Stopped: a model gave up, or the budget is used up; what was answered is kept.
    """
    check_limit(limit)
    _check_options(suite, options or {})
    result = SuiteResult(suite, limited=limit is not None)
    # One store, and one budget, for all of it.
    store = workspace if isinstance(workspace, Store) else Store(workspace)
    resources = SharedResources()
    common = {"workspace": store, "max_cost": max_cost, "resources": resources}
    last = ""
    try:
        for step in _steps(suite, models):
            if step.model != last and last in resources.models:
                resources.models.pop(last).close()
            last = step.model
            with _collecting_errors(step.part, step.model, result.left_out):
                plan = step.plan(limit, **common, known_options=options or {})
                result.done += [CompletedRun(step.part, step.setting, run) for run in plan.run(watch)]
    finally:
        for loaded in resources.models.values():
            loaded.close()
    if not result.done:
        reasons = "; ".join(result.left_out[:3])
        reasons = reasons or "no model that is named can answer any of its parts"
        raise DataError(f"Nothing of the suite {suite.name!r} could be examined: {reasons}")
    return result
