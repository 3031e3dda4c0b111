"""Run a suite: plan and evaluate every part, and tabulate published against measured figures."""

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
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan, SharedResources, Watch
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
        """Build the plan of this step.

        Args:
            limit: the most samples.
            common: arguments shared by all steps.
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
    """Yield a step per model, part, setting and data set, so that a failure affects only its own step;
    ordered by model, so that each is loaded once.
    """
    for model in dict.fromkeys(models or [m for part in suite.parts for m in part.models or suite.models]):
        for part in suite.parts:
            if models or model in (part.models or suite.models):
                for setting, data in product(part.settings(), part.data):
                    yield _Step(part, setting, data, model)


@contextmanager
def _collecting_errors(part: Part, model: str, left_out: list[str]) -> Iterator[None]:
    """Collect user errors of a part and continue with the others. Unsupported combinations are skipped
    silently.
    """
    try:
        yield
    except Unsupported:
        pass  # a dual encoder cannot write captions, so nothing is missing
    except UsageError as error:
        message = f"{part.name}, {redact(model)}: {error}"
        if message not in left_out:
            left_out.append(message)


def _check_options(suite: Suite, options: Mapping[str, Any]) -> None:
    """Refuse an option that no protocol has.

    Raises:
        BadOption: there is one.
    """
    known = {name for entry in PROTOCOLS.entries.values() for name in entry.options}
    for key in options:
        if key not in known:
            raise BadOption(
                f"-P {key}: no protocol of the suite {suite.name!r} has this option."
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
    """Estimate the requests and cost of a suite, part by part, and list what it will skip.

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
    """Evaluate every model on every part that it supports. Rerunning resumes.

    Args:
        models: instead of the suite's own, in all parts.
        limit: the most samples per part.
        options: for every protocol that has them (a judge).

    Raises:
        BadOption: an option that no protocol has.
        DataError: nothing could be evaluated.
        Stopped: a model gave up, or the budget is used up; answers so far are saved.
    """
    check_limit(limit)
    _check_options(suite, options or {})
    result = SuiteResult(suite, limited=limit is not None)
    # One store and one budget for the whole suite.
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
        reasons = reasons or "none of the models supports any of its parts"
        raise DataError(f"No part of the suite {suite.name!r} could be evaluated: {reasons}")
    return result
