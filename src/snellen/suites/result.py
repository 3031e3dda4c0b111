"""The result of a suite: its runs, and tables of published against measured figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from snellen.leaderboards.ranking import averages
from snellen.runs.run import Run
from snellen.suites.claims import verdict
from snellen.suites.completed import CompletedRun, value_of
from snellen.suites.suite import Part, Suite

__all__ = ["UNSCALED", "SuiteResult", "TableRow"]


@dataclass
class SuiteResult:
    """The result of a suite.

    Attributes:
        left_out: what was skipped, and why, in words.
        limited: whether parts were cut, so that their samples differ from the suite's.
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
        """Return published against measured figures for each part with published figures."""
        return {
            part.name: _beside(part, [d for d in self.done if d.part.name == part.name])
            for part in self.suite.parts
            if part.published
        }

    def sweeps(self) -> dict[str, list[TableRow]]:
        """Return measured figures of other parts, at each value of the varied option."""
        sweeps = {
            part.name: _beside(part, [d for d in self.done if d.part.name == part.name])
            for part in self.suite.parts
            if not part.published
        }
        return {name: rows for name, rows in sweeps.items() if rows}

    def verdicts(self) -> list[tuple[str, str, str]]:
        """Return each claim with its evidence and verdict."""
        return [(claim.text, *verdict(claim, self.done)) for claim in self.suite.claims]

    def against_reference(self) -> list[tuple[str, str, str, str, float, float | None]]:
        """Return part, model, protocol, metric, committed score, and measured score (None if missing)."""
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
        """Return the average score over benchmarks and the average rank of each model (see
        :func:`snellen.leaderboards.ranking.averages`), with scores from 0 to 100.
        """
        scores: dict[str, dict[str, float | None]] = {d.run.model: {} for d in self.done}
        for part, metric, scale in self.suite.average:
            for model, own in scores.items():
                runs_of_part = [d.run for d in self.done if d.part.name == part and d.run.model == model]
                value = value_of(runs_of_part[0], metric) if runs_of_part else None
                own[part] = None if value is None else scale * value
        return [row.as_dict() for row in averages(scores)] if self.suite.average else []

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
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
    """One row of a table: what identifies it, and each figure as published and as measured."""

    model: str
    setting: Any
    figures: dict[str, tuple[float | None, float | None]]
    task: str = ""  # data and protocol, if a part has several
    run: Run | None = None  # that was measured

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        figures = {name: {"published": p, "measured": m} for name, (p, m) in self.figures.items()}
        for name, figure in figures.items():
            stored = self.run.metrics.figure(name) if self.run is not None else None
            figure |= {"low": stored.low, "high": stored.high} if stored is not None else {}
        counts = {} if self.run is None else {"n": self.run.metrics.n, "outcomes": self.run.metrics.outcomes}
        return {"model": self.model, "setting": self.setting, "task": self.task, **figures, **counts}


def _beside(part: Part, done: Sequence[CompletedRun]) -> list[TableRow]:
    """Yield published rows with their measured figures, then unpublished ones."""
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
    # If a part has several data sets or protocols, rows name theirs.
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
        rows.append(TableRow(model, setting, figures, task, run))
    return rows


def _bare(done: CompletedRun) -> str:
    """Return a run's protocol without the option that the part varies."""
    return done.run.protocol.partition("?")[0] if done.setting else done.run.protocol


#: Figures that are not rates.
UNSCALED = ("gpu_gb", "items_per_second", "per_hour")
