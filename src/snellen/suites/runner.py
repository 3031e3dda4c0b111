"""A suite carried out: every part planned and examined, and its tables of published beside measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from snellen._util.redaction import redact
from snellen.errors import BadOption, DataError, Unsupported, UsageError, did_you_mean
from snellen.leaderboards.ranking import averages
from snellen.metrics.stats import LEVEL, holm
from snellen.protocols.base import PROTOCOLS
from snellen.runs.compare import compare
from snellen.runs.plan import Filters, Plan, SharedResources, Watch
from snellen.runs.run import Run
from snellen.storage.store import Store
from snellen.suites.suite import Claim, Part, Select, Suite, check_limit

if TYPE_CHECKING:
    from snellen.runs.estimate import Forecast

__all__ = ["CompletedRun", "SuiteResult", "TableRow", "forecast", "run_suite", "value_of"]


@dataclass(frozen=True)
class CompletedRun:
    """One run of a suite: the part that it belongs to, and what the part varies."""

    part: Part
    setting: Mapping[str, Any]
    run: Run


@dataclass
class SuiteResult:
    """What came of a suite.

    Attributes:
        left_out: what was not examined, and why, in words.
        limited: whether parts were cut, so that they are other samples than the suite's.
    """

    suite: Suite
    done: list[CompletedRun] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    limited: bool = False

    @property
    def runs(self) -> list[Run]:
        """All runs, each once."""
        return list({completed.run.id: completed.run for completed in self.done}.values())

    def tables(self) -> dict[str, list[TableRow]]:
        """Published beside measured, part by part, where somebody published figures."""
        return {
            part.name: _beside(part, [d for d in self.done if d.part.name == part.name])
            for part in self.suite.parts
            if part.published
        }

    def sweeps(self) -> dict[str, list[TableRow]]:
        """What parts without published figures measured, at each value of what they vary."""
        sweeps = {
            part.name: _beside(part, [d for d in self.done if d.part.name == part.name])
            for part in self.suite.parts
            if not part.published
        }
        return {name: rows for name, rows in sweeps.items() if rows}

    def verdicts(self) -> list[tuple[str, str, str]]:
        """Each claim with what was measured, and the verdict."""
        return [(claim.text, *_verdict(claim, self.done)) for claim in self.suite.claims]

    def against_reference(self) -> list[tuple[str, str, str, str, float, float | None]]:
        """Part, model, protocol, metric, committed score, and the measured one (None where there is none)."""
        rows = []
        for part, model, protocol, metric, score in self.suite.reference:
            pairs = (
                value_of(d.run, metric)
                for d in self.done
                if (d.part.name, d.run.model, d.run.protocol) == (part, model, protocol)
            )
            rows.append((part, model, protocol, metric, score, next(pairs, None)))
        return rows

    def averages(self) -> list[dict[str, Any]]:
        """The average over benchmarks and the average rank, model by model (see
        :func:`snellen.leaderboards.board.averages`), of scores from 0 to 100.
        """
        scores: dict[str, dict[str, float | None]] = {d.run.model: {} for d in self.done}
        for part, metric, scale in self.suite.average:
            for model, own in scores.items():
                runs_of_part = [d.run for d in self.done if d.part.name == part and d.run.model == model]
                value = value_of(runs_of_part[0], metric) if runs_of_part else None
                own[part] = None if value is None else scale * value
        return [row.as_dict() for row in averages(scores)] if self.suite.average else []

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {
            "suite": self.suite.name,
            "source": self.suite.source,
            "runs": [{"part": d.part.name, "setting": dict(d.setting), **d.run.as_dict()} for d in self.done],
            "published": {name: [row.as_dict() for row in rows] for name, rows in self.tables().items()},
            "sweeps": {name: [row.as_dict() for row in rows] for name, rows in self.sweeps().items()},
            "claims": [
                {"claim": text, "measured": evidence, "verdict": verdict}
                for text, evidence, verdict in self.verdicts()
            ],
            "reference": [
                dict(zip(("part", "model", "protocol", "metric", "committed", "measured"), row, strict=True))
                for row in self.against_reference()
            ],
            "averages": self.averages(),
            "left_out": self.left_out,
            "limited": self.limited,
        }


@dataclass(frozen=True)
class TableRow:
    """One line of a table: what it is of, and each figure as it was published and as it was measured."""

    model: str
    setting: Any
    figures: dict[str, tuple[float | None, float | None]]
    task: str = ""  # data and protocol, where a part has several

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        figures = {name: {"published": p, "measured": m} for name, (p, m) in self.figures.items()}
        return {"model": self.model, "setting": self.setting, "task": self.task, **figures}


def _beside(part: Part, done: Sequence[CompletedRun]) -> list[TableRow]:
    """Published lines with what was measured for them, and after them what nobody published."""
    said = part.published
    varies = next(iter(part.vary), None)
    keys = 2 if varies else 1
    if said is None:
        names: tuple[str, ...] = (done[0].run.primary,) if done else ()
    else:
        names = said.columns[keys:]
    published: dict[tuple[str, Any], tuple[Any, ...]] = {}
    for line in said.rows if said else ():
        published[line[0], line[1] if varies else None] = line[keys:]
    # Where a part is of several data sets or protocols, its lines say of which.
    tasks = {d.run.id: f"{d.run.data}, {_bare(d)}" for d in done}
    several = len({*tasks.values()}) > 1
    measured = {
        (d.run.model, next(iter(d.setting.values()), None), tasks[d.run.id] if several else ""): d.run
        for d in done
    }
    if several:
        names = (*names, *(d.run.primary for d in done if said is None and d.run.primary not in names))
        names = tuple(dict.fromkeys(names))
    rows = []
    for model, setting, task in dict.fromkeys([*((m, s, "") for m, s in published), *measured]):
        line = published.get((model, setting), (None,) * len(names)) if not task else (None,) * len(names)
        run = measured.get((model, setting, task))
        figures = {}
        for name, value in zip(names, line, strict=True):
            scale = said.scale if said and name not in UNSCALED else 1.0
            was = None if value is None else scale * value
            figures[name] = (was, None if run is None else value_of(run, name))
        rows.append(TableRow(model, setting, figures, task))
    return rows


def _bare(done: CompletedRun) -> str:
    """What a run's protocol is called, without what the part varies."""
    return done.run.protocol.partition("?")[0] if done.setting else done.run.protocol


#: Figures that are no rates.
UNSCALED = ("gpu_gb", "items_per_second", "per_hour")


def value_of(run: Run, metric: str) -> float | None:
    """A run's figure by its name, also of its protocol's own; None where it has none."""
    figures = run.metrics
    if metric == "gpu_gb":
        peak = figures.peak_gpu_bytes
        return None if peak is None else peak / 1e9
    if metric == "per_hour":
        speed = figures.items_per_second
        return None if speed is None else 3600 * speed
    if (figure := figures.figure(metric)) is not None:
        return figure.value
    value = getattr(figures, metric, figures.protocol.get(metric))
    return float(value) if isinstance(value, int | float) else None


# ── claims ──────────────────────────────────────────────────────────────────────────────────────────


def _kind(run: Run) -> str:
    """The sort of a run's model: ``dual encoder``, ``classifier``, or ``generative``."""
    kind = str(run.manifest.model.identity.get("kind", ""))
    return kind if kind in ("dual encoder", "classifier") else "generative"


def _selected(select: Select, done: Sequence[CompletedRun]) -> list[CompletedRun]:
    return [
        d
        for d in done
        if d.part.name in select.parts and d.run.headline and select.kind in (None, _kind(d.run))
    ]


def _verdict(claim: Claim, done: Sequence[CompletedRun]) -> tuple[str, str]:
    """What was measured of a claim, and whether it holds."""
    if claim.not_measured:
        return f"not measured: {claim.not_measured}", "open"
    assert claim.lower is not None
    assert claim.higher is not None
    lower, higher = _selected(claim.lower, done), _selected(claim.higher, done)
    pairs = list(_best_pairs(lower, higher))
    if not pairs:
        return "nothing to compare was examined", "open"
    failed = sum(run.metrics.outcomes["error"] for pair in pairs for run in pair)
    if failed:
        return f"{failed} samples of the runs ended in an error, so it is not decided", "open"
    if claim.spread is not None:
        return _of_spread(_selected(claim.spread, done), pairs)
    try:
        comparisons = [compare([low, high], across=True)[0] for low, high in pairs]
    except UsageError as error:  # samples without a score, say
        return str(error), "open"
    evidence, verdicts = [], set()
    for (low, high), comparison, p in zip(
        pairs, comparisons, holm([comparison.result.p for comparison in comparisons]), strict=True
    ):
        gap = comparison.result.difference
        evidence.append(f"{low.data}: {low.model} {100 * gap.value:+.1f} points against {high.model}")
        real = p < 1 - LEVEL
        verdicts.add("not decided" if not real else "holds" if gap.value < 0 else "does not hold")
    if len(verdicts) == 1:
        return "; ".join(evidence), verdicts.pop()
    return "; ".join(evidence), "holds in part" if "holds" in verdicts else "does not hold"


def _best_pairs(lower: Sequence[CompletedRun], higher: Sequence[CompletedRun]) -> Iterator[tuple[Run, Run]]:
    """For each data set, at each setting that both have, the best run of one sort and that of the other."""
    groups: dict[tuple[str, str, Any], tuple[list[Run], list[Run]]] = defaultdict(lambda: ([], []))
    for i, side in enumerate((lower, higher)):
        for completed in side:
            setting = next(iter(completed.setting.values()), None)
            groups[completed.run.manifest.data.fingerprint, completed.run.primary, setting][i].append(
                completed.run
            )
    for low, high in groups.values():
        if low and high:
            yield max(low, key=_value), max(high, key=_value)


def _value(run: Run) -> float:
    return float(run.headline.value) if run.headline else 0.0


def _of_spread(spread: Sequence[CompletedRun], pairs: Sequence[tuple[Run, Run]]) -> tuple[str, str]:
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for completed in spread:
        groups[completed.run.model, completed.run.data].append(_value(completed.run))
    widths = [max(values) - min(values) for values in groups.values() if len(values) > 1]
    if not widths:
        return "nothing that differs was examined", "open"
    names = {data for (_, data), values in groups.items() if len(values) > 1}
    gaps = [_value(high) - _value(low) for low, high in pairs if low.data in names]
    if not gaps:
        return "no gap is known on the same data", "open"
    gap = mean(gaps)
    evidence = f"{100 * max(widths):.1f} points at most, and the gap is {100 * gap:.1f}"
    return evidence, "holds" if max(widths) < gap else "does not hold"


# ── examination ─────────────────────────────────────────────────────────────────────────────────────


def _plans(
    suite: Suite, models: Sequence[str], limit: int | None, **common: Any
) -> Iterator[tuple[Part, dict[str, Any], str, Callable[[], Plan]]]:
    """A plan for each model, part, setting and data set, so that one that is missing takes none along; model
    by model, so that each is loaded once.
    """
    for model in dict.fromkeys(models or [m for part in suite.parts for m in part.models or suite.models]):
        for part in suite.parts:
            if not models and model not in (part.models or suite.models):
                continue
            for setting, data in product(part.settings(), part.data):
                where, _, option = next(iter(setting), "").partition(".")
                value = next(iter(setting.values()), None)
                more = {option: value}
                filters = {**part.filters, **(more if where == "filters" else {})}
                if limit is not None:
                    filters["limit"] = min(limit, filters.get("limit", limit))

                def make(
                    model: str = model,
                    part: Part = part,
                    data: str = data,
                    where: str = where,
                    filters: Any = filters,
                    more: Any = more,
                ) -> Plan:
                    return Plan(
                        models=[model],
                        data=[data],
                        protocols=part.protocols,
                        data_options={**part.data_options, **(more if where == "data" else {})},
                        protocol_options={**part.protocol_options, **(more if where == "protocol" else {})},
                        filters=Filters(**filters),
                        **common,
                    )

                yield part, setting, model, make


@contextmanager
def _told(part: Part, model: str, left_out: list[str]) -> Iterator[None]:
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
    common = {"workspace": workspace, "max_cost": max_cost, "at_hand": SharedResources()}
    for part, _, model, make in _plans(suite, models, limit, **common, known_options=options or {}):
        with _told(part, model, left_out):
            plan = make()
            estimates += [(part.name, estimate) for estimate in plan.forecasts()]
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
    hand = SharedResources()
    common = {"workspace": store, "max_cost": max_cost, "at_hand": hand, "known_options": options or {}}
    last = ""
    try:
        for part, setting, model, make in _plans(suite, models, limit, **common):
            if model != last and last in hand.models:
                hand.models.pop(last).close()
            last = model
            with _told(part, model, result.left_out):
                plan = make()
                result.done += [CompletedRun(part, setting, run) for run in plan.run(watch)]
    finally:
        for loaded in hand.models.values():
            loaded.close()
    if not result.done:
        reasons = "; ".join(result.left_out[:3])
        reasons = reasons or "no model that is named can answer any of its parts"
        raise DataError(f"Nothing of the suite {suite.name!r} could be examined: {reasons}")
    return result
