"""The eye test on the user's own images: the same ones, smaller, blurred, noisy … level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from snellen._util.words import counted
from snellen.errors import BadOption, UsageError, did_you_mean
from snellen.eye_test.levels import in_order, plan_of, usual
from snellen.eye_test.psychometric import Curve, CurvePoint, fit
from snellen.images.degrade import DEGRADATIONS
from snellen.metrics.stats import Paired, paired
from snellen.metrics.summary import cluster_of
from snellen.runs.plan import Plan, SharedResources, Watch
from snellen.runs.run import Run

if TYPE_CHECKING:
    from snellen.models.base import Model
    from snellen.storage.store import Store

__all__ = [
    "DegradedLevel",
    "LevelTest",
    "OwnReading",
    "compared",
    "longest",
    "run_own_images",
    "seconds_each",
    "tokens_each",
]

#: How often images are drawn again for the threshold's interval, and its ends.
RESAMPLED, ENDS = 200, (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class DegradedLevel:
    """The images at one level.

    Attributes:
        score: of all images; if not all were asked, the undegraded score plus the change.
        change: the score minus that of the undegraded images, paired.
        tokens: input tokens a sample; ``seconds``: a sample; ``cost``: US dollars of all samples. None if
            unknown.
        asked: samples; None: all of them.
    """

    level: float
    run: Run
    score: float
    change: Paired
    tokens: float | None
    seconds: float | None
    cost: float | None
    asked: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "level": self.level,
            "run": self.run.id,
            "score": self.score,
            "outcomes": self.run.metrics.outcomes,
            "change": self.change.as_dict(),
            "tokens": self.tokens,
            "seconds": self.seconds,
            "cost": self.cost,
            "asked": self.run.metrics.n if self.asked is None else self.asked,
        }


class LevelTest(Protocol):
    """Asks a level, and may stop before all images are asked."""

    def check(self, plan: Plan) -> None:
        """Refuse what it cannot test, before anything is asked."""

    def __call__(self, plan: Plan, plain: Run, level: float) -> DegradedLevel:
        """Ask a level, given its plan and the run on the undegraded images."""


@dataclass(frozen=True, kw_only=True)
class OwnReading:
    """One way of degrading the images.

    Attributes:
        name: of the degradation; ``within``: the loss, as a share, that does not matter.
        plain: the run on the undegraded images.
        levels: from easy to hard.
        curve: fitted to right answers, its ceiling the undegraded accuracy; None if the levels have no order,
            for scores that are a matter of degree, or if nothing falls. Its interval is from images drawn
            again, as all levels share them.
    """

    name: str
    within: float
    plain: Run
    levels: tuple[DegradedLevel, ...]
    curve: Curve | None = None

    @property
    def unit(self) -> str:
        """The unit of the levels."""
        return DEGRADATIONS[self.name].unit

    @property
    def enough(self) -> DegradedLevel | None:
        """The hardest level up to which no level loses more than ``within``, as far as intervals show.

        Levels are tested from easy to hard, and the first that fails ends it, so that no correction for their
        number is needed.
        """
        last = None
        for level in self.levels:
            if level.change.difference.low < -self.within:
                break
            last = level
        return last

    @property
    def sentence(self) -> str:
        """What follows, with its numbers."""
        return f"{self._loss}{self._halfway}{self._effort}"

    @property
    def _effort(self) -> str:
        asked = [level.asked for level in self.levels if level.asked is not None]
        if not asked:
            return ""
        return f" {sum(asked):,} answers instead of {len(asked) * self.plain.metrics.n:,} at these levels."

    @property
    def _halfway(self) -> str:
        curve = self.curve
        if curve is None or curve.threshold is None:
            return ""
        ends = f"{curve.low:.3g} to {curve.high:.3g}"
        return f" Halfway to guessing: {self.name} {curve.threshold:.3g} ({ends}) {self.unit}".rstrip() + "."

    @property
    def _loss(self) -> str:
        points, level = f"{100 * self.within:g} point{'' if self.within == 0.01 else 's'}", self.enough
        if not self.plain.metrics.outcomes["ok"]:
            return f"Nothing can be lost: no answer could be read (snellen show {self.plain.id})."
        if DEGRADATIONS[self.name].rising is None:
            return self._of_each
        if level is None:
            first = self.levels[0]
            gap = first.change.difference
            if first.change.real() and gap.value < 0:
                return f"Already {self._named(first)} loses points ({_gap(first)})."
            text = f"Not enough images to tell whether {self._named(first)} loses less than {points} ("
            text += _gap(first)
            if first.asked is None:  # of as many images, once
                seen = 100 * first.change.detectable
                text += (
                    f"; {counted(first.change.clusters, 'image')} would show a difference of "
                    f"{seen:.0f} points"
                )
            return f"{text})."
        text = f"{self._named(level).capitalize()} loses less than {points} ({_gap(level)})"
        return f"{text}{self._saving(level)}." if self.name == "size" else f"{text}."

    @property
    def _of_each(self) -> str:
        worst = min(self.levels, key=lambda level: level.change.difference.value)
        real = "a real loss" if worst.change.real() else "no significant loss"
        return f"The hardest is {self._named(worst)}: {_gap(worst)}, {real}."

    def _named(self, level: DegradedLevel) -> str:
        return f"{self.name} {level.level:g} {self.unit}".rstrip()

    def _saving(self, level: DegradedLevel) -> str:
        tokens = tokens_each(self.plain)
        if level.tokens is None or not tokens:
            return ""
        share = level.tokens / tokens
        if share > 0.98:
            return "; smaller images save no tokens with this model"
        text = f", for {100 * share:.0f}% of the tokens"
        cost = self.plain.metrics.cost
        if cost is not None and level.cost is not None and cost > 0:
            text += f": ${level.cost:.2f} instead of ${cost:.2f}"
        return text

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "degradation": self.name,
            "unit": self.unit,
            "within": self.within,
            "plain": self.plain.id,
            "enough": None if self.enough is None else self.enough.level,
            "sentence": self.sentence,
            "levels": [level.as_dict() for level in self.levels],
            "curve": None if self.curve is None else self.curve.as_dict(),
        }


def longest(readings: Sequence[OwnReading]) -> OwnReading:
    """Return the reading of the most levels; those of others that stopped early are the first of these."""
    return max(readings, key=lambda reading: len(reading.levels))


def run_own_images(
    model: str | Model,
    data: str,
    *,
    degradations: Sequence[str] = ("size", "blur", "jpeg"),
    levels: Mapping[str, Sequence[float]] | None = None,
    protocol: str | None = None,
    within: float = 0.02,
    limit: int | None = None,
    skip_invalid: bool = False,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    max_cost: float | None = None,
    workspace: Store | Path | str | None = None,
    watch: Watch | None = None,
    resources: SharedResources | None = None,
    test: LevelTest | None = None,
) -> list[OwnReading]:
    """Evaluate a model on images as they are and at graded degradations.

    Args:
        degradations: names of :data:`~snellen.images.degrade.DEGRADATIONS`.
        levels: by name, instead of the usual ones. Of the usual sizes, those that most images exceed.
        within: the loss, as a share, that does not matter.
        limit: use this many images, drawn by ``seed``; with ``skip_invalid``, those that can be read.
        max_cost: a limit in US dollars for all runs together.
        resources: shared with the readings of other models: data sets, read once, and the budget.
        test: asks a level and may stop early; no level is asked after one that may lose more. By default, all
            images are asked at all levels.

    Raises:
        UsageError: no such degradation; as for :class:`snellen.runs.plan.Plan`; images below every size.
        Stopped: the model gave up, or the budget is used up.
    """
    # Long for its options alone.
    for name in degradations:
        if name not in DEGRADATIONS:
            raise BadOption(
                f"--with {name} is not allowed.{did_you_mean(name, DEGRADATIONS)} Allowed: "
                f"{', '.join(DEGRADATIONS)}."
            )
    resources = resources or SharedResources()
    planned = partial(
        plan_of,
        model,
        data,
        protocol=protocol,
        limit=limit,
        skip_invalid=skip_invalid,
        model_options=model_options,
        data_options=data_options,
        seed=seed,
        batch_size=batch_size,
        max_cost=max_cost,
        workspace=workspace,
        resources=resources,
    )

    def ask(plan: Plan, plain: Run, level: float) -> DegradedLevel:
        (run,) = plan.run(watch)
        return compared(plain, run, level)

    try:
        plan = planned()
        if test is not None:
            test.check(plan)
        (plain,) = plan.run(watch)
        readings = []
        for name in dict.fromkeys(degradations):
            chosen = in_order(name, (levels or {}).get(name) or usual(name, plan))
            known: list[DegradedLevel] = []
            for level in chosen:
                known.append((test or ask)(planned(degrade=f"{name}:{level:g}"), plain, level))
                ordered = DEGRADATIONS[name].rising is not None
                if test is not None and ordered and known[-1].change.difference.low < -within:
                    break
            curve = _curve(name, plain, known) if test is None else None
            readings.append(
                OwnReading(name=name, within=within, plain=plain, levels=tuple(known), curve=curve)
            )
        return readings
    finally:
        for each in resources.models.values():
            each.close()


def compared(plain: Run, run: Run, level: float, among: Sequence[str] | None = None) -> DegradedLevel:
    """Compare a level with the undegraded images, sample by sample.

    Args:
        among: ids of the samples to compare; by default all that both have.

    Raises:
        UsageError: a sample has no score.
    """
    before = {row["id"]: row for row in plain.outcomes.to_dict("records")}
    after = {row["id"]: row for row in run.outcomes.to_dict("records")}
    ids = [name for name in (before if among is None else among) if name in before and name in after]
    pairs = ((run, after), (plain, before))
    scores = [[of.score_of(rows[name]) for name in ids] for of, rows in pairs]
    if any(score is None for row in scores for score in row):
        raise UsageError(f"{plain.data}: samples without a label or reference have no score to compare.")
    values = [[float(score or 0) for score in row] for row in scores]
    clusters = [cluster_of(before[name]["images"], name) for name in ids]
    return DegradedLevel(
        level=level,
        run=run,
        score=sum(values[0]) / len(ids),
        change=paired(values[0], values[1], clusters),
        tokens=tokens_each(run),
        seconds=seconds_each(run),
        cost=run.metrics.cost,
    )


def seconds_each(run: Run) -> float | None:
    """Return a run's seconds a sample; None if unknown."""
    speed = run.metrics.items_per_second
    return 1 / speed if speed else None


def tokens_each(run: Run) -> float | None:
    """Return a run's input tokens a sample; None if unknown."""
    return run.metrics.prompt_tokens / run.metrics.n if run.metrics.prompt_tokens else None


def _curve(name: str, plain: Run, levels: Sequence[DegradedLevel]) -> Curve | None:
    """Fit a curve where answers are right or wrong and get worse; its interval is from resampled images."""
    import numpy as np

    rising = DEGRADATIONS[name].rising
    if rising is None or not plain.classifies or len(levels) < 2:
        return None
    table = {row["id"]: [row["prediction"] == row["label"]] for row in plain.outcomes.to_dict("records")}
    for level in levels:
        for row in level.run.outcomes.to_dict("records"):
            table.setdefault(row["id"], []).append(row["prediction"] == row["label"])
    right = np.array([row for row in table.values() if len(row) == len(levels) + 1], dtype=float)
    guess = 1 / max(2, len(plain.manifest.data.labels))

    def fitted(rows: Any) -> Curve:
        ceiling = max(rows[:, 0].mean(), guess)
        points = [
            CurvePoint(level.level, int(rows[:, 1 + k].sum()), len(rows)) for k, level in enumerate(levels)
        ]
        return fit(points, guess, rising=rising, ceiling=float(ceiling))

    if not any(level.change.real() and level.change.difference.value < 0 for level in levels):
        return None
    curve = fitted(right)
    if curve.threshold is None:
        return curve
    rng = np.random.default_rng(0)
    drawn = [fitted(right[rng.integers(0, len(right), len(right))]) for _ in range(RESAMPLED)]
    known = [each.location for each in drawn if each.location is not None]
    low, high = np.percentile(known, ENDS)
    return replace(curve, low=float(low), high=float(high))


def _gap(level: DegradedLevel) -> str:
    gap = level.change.difference
    return f"difference {100 * gap.value:+.1f} points, 95% CI {100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
