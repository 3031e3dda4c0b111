"""What is known of a race after some looks: scores, costs, differences, and the decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from snellen._util.words import counted
from snellen.decisions.decision import ArmResult, Decision
from snellen.decisions.field import Arm, RaceOrder
from snellen.decisions.race import GapEstimate, Race
from snellen.metrics.format import mark, unread

if TYPE_CHECKING:
    from snellen.decisions.evidence import Series

__all__ = ["Look", "Preference", "RaceStanding"]

#: By what to choose among arms of which none is known to be better.
Preference = Literal["cost", "speed", "size"]


@dataclass(frozen=True, kw_only=True)
class Look:
    """A race after a look, for whoever watches.

    Attributes:
        images, of: units asked, of how many.
        scores: of the arms in the race, best first.
        left: arms that left at this look, with the arm that beat them or the reason.
        answers: so far, of all arms; ``cost``: in US dollars, if known.
        to_go: about how many units are left until all arms can be told from the leader, or are known to be as
            good; None if that cannot be estimated.
        forecast: the US dollars that it will have cost by then, if known.
    """

    images: int
    of: int
    scores: Mapping[str, float]
    left: Mapping[str, str]
    answers: int
    cost: float | None
    to_go: int | None = None
    forecast: float | None = None


@dataclass(kw_only=True)
class RaceStanding:
    """A race and its scores so far.

    Args:
        units: the number of units that race; the others of ``order`` are kept apart.
        several: whether a model races under several protocols.

    Attributes:
        tallies: of each arm, [units answered]: weight times score.
        looks: after how many units there was one.
    """

    race: Race
    order: RaceOrder
    arms: Sequence[Arm]
    units: int
    prefer: Preference | None = None
    several: bool = False
    tallies: dict[str, Series] = field(default_factory=dict)
    looks: list[int] = field(default_factory=list)
    #: Differences at earlier looks, which take long: (units, arm, reference).
    _gaps: dict[tuple[int, str, str], GapEstimate] = field(default_factory=dict, repr=False)
    _left_out: int = 0

    def arm(self, name: str) -> Arm:
        """Return an arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def settled(self) -> bool:
        """Whether the race may end: an arm can be recommended, and it is the preferred one, if any is."""
        if not self.race.decided or not self.prefer:
            return self.race.decided
        return min(self.race.alive, key=self.preference) in self.race.certified

    def look(self, n: int) -> None:
        """Look at the first n units of all arms in the race."""
        if len(self.order.left_out) != self._left_out:
            self._left_out = len(self.order.left_out)
            self._gaps.clear()  # units weigh otherwise
        self.race.weights = self.order.weights[: self.units]
        scores = {
            arm.name: self.order.tally(arm.scores(), n) for arm in self.arms if arm.name in self.race.alive
        }
        self.tallies |= scores
        self.race.look(scores)

    def _samples(self, units: int) -> int:
        """Count samples that can be read."""
        left_out = self.order.left_out
        return sum(self.order.data.id(p) not in left_out for p in self.order.positions(units))

    def _images(self, units: int) -> int:
        """Count units that can be read."""
        return int((self.order.weights[:units] > 0).sum())

    def _mean(self, tally: Series) -> float:
        weights = float(self.order.weights[: len(tally)].sum())
        return float(tally.sum()) / weights if weights else 0.0

    def seen(self, before: Mapping[str, Any]) -> Look:
        """Return the last look.

        Args:
            before: the arms that had been dropped at the look before.
        """
        scores = {name: self._mean(self.tallies[name]) for name in self.race.alive}
        each = {arm.name: self._each(arm) for arm in self.arms}
        known = not any(self.tallies.get(name) is not None and price is None for name, price in each.items())
        spent = sum((each[name] or 0.0) * self._samples(len(tally)) for name, tally in self.tallies.items())
        cost = spent if known else None
        to_go = self._to_go(max(scores, key=lambda name: scores[name]))
        forecast = None
        if cost is not None and to_go is not None:
            samples = self._samples(self.race.n) / max(1, self._images(self.race.n))
            forecast = cost + to_go * samples * sum(each[name] or 0.0 for name in scores)
        return Look(
            images=self.race.n,
            of=self.units,
            scores=dict(sorted(scores.items(), key=lambda item: -item[1])),
            left={name: drop.by for name, drop in self.race.dropped.items() if name not in before},
            answers=sum(self._samples(len(tally)) for tally in self.tallies.values()),
            cost=cost,
            to_go=to_go,
            forecast=forecast,
        )

    @staticmethod
    def _each(arm: Arm) -> float | None:
        """Return an arm's US dollars a sample; its run may hold more answers than the race needed."""
        stored = arm.run.metrics.n
        return arm.cost / stored if arm.cost is not None and stored else None

    def _to_go(self, leader: str) -> int | None:
        """Estimate how many units are left until the race can end; None if that cannot be estimated."""
        gaps = [
            self._gap(name, leader, self.race.n, self.tallies) for name in self.race.alive if name != leader
        ]
        needed = [gap.more for gap in gaps]
        return (
            None
            if None in needed
            else min(max((n or 0 for n in needed), default=0), self.units - self.race.n)
        )

    def _gap(self, name: str, reference: str, n: int, tallies: Mapping[str, Series]) -> GapEstimate:
        """Return an arm's difference to another one at a look."""
        key = (n, name, reference)
        if key not in self._gaps:
            self._gaps[key] = self.race.gap(tallies[name][:n], tallies[reference][:n])
        return self._gaps[key]

    def decision(self, ended: str = "") -> Decision:
        """Return what is known.

        Args:
            ended: why the race ended undecided, if it did.
        """
        # Long: one record of everything that is known at the end.
        race, tallies = self.race, self.tallies
        scores = {
            arm.name: self._mean(t) for arm in self.arms if (t := self.tallies.get(arm.name)) is not None
        }
        leader = max(race.alive, key=lambda name: scores.get(name, 0.0))
        certified = sorted(race.certified, key=self.preference) if self.prefer else list(race.certified)
        choice = certified[0] if certified else None
        reference = choice or leader
        results = []
        for arm in self.arms:
            run = arm.run
            answered, each = self._samples(len(tallies.get(arm.name, ()))), self._each(arm)
            racing = arm.name in race.alive and arm.name in tallies
            results.append(
                ArmResult(
                    name=arm.name,
                    run=run.id,
                    score=scores.get(arm.name, 0.0),
                    images=self._images(len(tallies.get(arm.name, ()))),
                    answers=answered,
                    errors=len(arm.given_up),
                    gap=race.gap(tallies[arm.name], tallies[reference])
                    if racing and arm.name != reference
                    else None,
                    dropped=None if arm.failed else race.dropped.get(arm.name),
                    failed=arm.failed,
                    cost=None if each is None else each * answered,
                    full_cost=None if each is None else each * self._samples(self.units),
                    speed=run.speed,
                    parameters=run.metrics.parameters,
                )
            )

        def rank(result: ArmResult) -> tuple[bool, int, float]:
            return (result.name not in race.alive, -result.images, -result.score)

        if choice is None and not ended and race.n == self.units:
            ended = "All images were asked."
        return Decision(
            choice=choice,
            tied=tuple(certified[1:]),
            leader=leader,
            arms=tuple(sorted(results, key=rank)),
            within=race.within,
            confidence=1 - race.alpha,
            images=self._images(race.n),
            of=self._images(self.units),
            of_samples=self._samples(self.units),
            weighing=self.order.weighing,
            score=self.arms[0].run.primary,
            population=race.population,
            enough=race.enough,
            preferred=self.prefer if len(certified) > 1 else None,
            ended=ended,
            trace=partial(self._history, reference, tuple(self.looks), dict(tallies)),
            notes=tuple(self._notes()),
        )

    def _history(
        self, reference: str, looks: Sequence[int], tallies: Mapping[str, Any]
    ) -> Iterator[tuple[int, dict[str, GapEstimate]]]:
        """Yield how arms stood to one of them at each look, but for those that could not go on."""
        failed = {arm.name for arm in self.arms if arm.failed}
        tallies = {name: tally for name, tally in tallies.items() if name not in failed}
        for n in looks:
            known = [name for name, tally in tallies.items() if len(tally) >= n and name != reference]
            yield n, {name: self._gap(name, reference, n, tallies) for name in known}

    def preference(self, name: str) -> float:
        """Return by what to choose among arms that are as good: the least."""
        arm = self.arm(name)
        metrics = arm.run.metrics
        if self.prefer == "cost":
            if arm.cost is None:  # a local model counts as free; a hosted one without a price comes last
                return float("inf") if arm.model.remote else 0.0
            return arm.cost / max(1, metrics.n)
        if self.prefer == "speed":
            return -(arm.run.speed or 0.0)
        return float(metrics.parameters or float("inf"))

    def _notes(self) -> list[str]:
        notes = []
        if lost := len(self.order.left_out):
            notes.append(f"Left out: {counted(lost, 'sample')} that cannot be read.")
        if self.order.weighing == "balanced":
            notes.append("Classes count alike, whatever their number of images (--score plain: images do).")
        for arm in self.arms:
            if lost := len(arm.given_up):
                what = counted(lost, "sample")
                notes.append(f"{arm.name}: {what} failed at every try; failures count as wrong.")
            if mark(outcomes := arm.outcomes):
                notes.append(
                    f"{arm.name}: {100 * unread(outcomes):.0f}% of its answers could not be read, and count "
                    f"as wrong (snellen show {arm.run.id})."
                )
            if arm.failed:
                notes.append(f"{arm.name} could not go on, and nothing is said of it: {arm.failed}.")
        if self.several:
            kept = len(self.order.units) - self.units
            notes.append(
                "Of several protocols, the best score is optimistic on the images that chose it; "
                f"to measure the choice, {counted(kept, 'image was', 'images were')} kept apart."
            )
        return notes
