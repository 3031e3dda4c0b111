"""Race the arms of a plan to a decision: ordinary runs, of which a round at a time is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from snellen._util.asyncio import complete
from snellen.decisions.decision import ArmResult, Decision
from snellen.decisions.field import Arm, RaceOrder, Weighing
from snellen.decisions.race import GROWTH, GapEstimate, Race, next_look
from snellen.decisions.record import StoredDecision, keep_decision
from snellen.errors import BadOption, BudgetSpent, Interrupted, Stopped, Unsupported, UsageError
from snellen.runs.plan import Plan, Watch

__all__ = ["Choosing", "Look", "Preference"]

#: By what to choose among arms of which none is known to be better.
Preference = Literal["cost", "speed", "size"]
#: Local models of more parameters are released while others have their turn, in rounds that double.
LARGE, COARSE = 500_000_000, 2.0
#: The share of images kept apart where protocols or prompts of one model race.
KEPT_APART = 0.2


@dataclass(frozen=True, kw_only=True)
class Look:
    """A race after a look, for whoever watches.

    Attributes:
        images, of: units asked, of how many.
        scores: of the arms in the race, best first.
        left: arms that left at this look, with the arm that beat them or the reason.
        answers: so far, of all arms; ``cost``: in US dollars, if known.
    """

    images: int
    of: int
    scores: Mapping[str, float]
    left: Mapping[str, str]
    answers: int
    cost: float | None


class Choosing:
    """A race over the arms of a plan: each model under each protocol.

    Raises:
        UsageError: fewer than two arms; a score that single samples do not have; an option out of range.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        within: float = 0.01,
        confidence: float = 0.95,
        prefer: Preference | None = None,
        score: Weighing | None = None,
        population: bool = False,
    ) -> None:
        if not 0 < within < 1:
            raise BadOption(f"--within {100 * within:g} is not allowed; allowed: above 0, below 100 points.")
        if not 0.5 <= confidence < 1:
            raise BadOption(
                f"--confidence {100 * confidence:g} is not allowed; allowed: 50 to below 100, such as 95."
            )
        self.plan, self.prefer = plan, prefer
        self._tasks = [(model, task) for model, tasks in plan.pairs for task in tasks]
        if len(self._tasks) < 2:
            skipped = f" Left out: {'; '.join(plan.skipped)}." if plan.skipped else ""
            raise UsageError(
                "A choice needs at least two different models or protocols that fit the data (one that is "
                f"given twice counts once).{skipped} Add another with --model."
            )
        for model, (_, title, protocol) in self._tasks:
            if scorers := protocol.for_model(model).scorers():
                raise Unsupported(
                    f"{title} is scored over a whole run ({type(scorers[0]).__name__}), not image by image, "
                    "so that a race cannot stop early. Use a protocol with right and wrong answers, such as "
                    "closed-set, or compare complete runs: snellen run, then snellen compare"
                )
        (self.selection,) = plan.selections
        #: The decision in the workspace, once there is one.
        self.kept: StoredDecision | None = None
        self._asked = (within, confidence, score, population)

    def run(
        self, watch: Callable[[Look], None] | None = None, watch_evaluation: Watch | None = None
    ) -> Decision:
        """Race to a decision, or to the end of data or budget.

        Raises:
            Stopped: every model gave up; or the user interrupted.
        """
        within, confidence, score, population = self._asked
        self.plan.check()
        self.selection.fingerprint()
        self.order = RaceOrder.drawn(self.selection, self.plan.seed, score)
        self.arms = self._arms()
        everything = len(self.order.units)
        # Of protocols for one model, the best score is also the luckiest, so it is measured elsewhere.
        self.units = max(2, everything - round(KEPT_APART * everything)) if self._several else everything
        self.race = Race(
            arms=[arm.name for arm in self.arms],
            weights=self.order.weights[: self.units],
            within=within,
            alpha=1 - confidence,
            population=population,
            plain=self.order.plain and self._binary(),
        )
        looks: list[int] = []
        ended = ""
        tallies: dict[str, Any] = {}
        n, units = 0, self.units
        while n < units and not self._settled():
            # Large local models are loaded anew for each of their turns, so there are fewer of these.
            racing = [arm for arm in self.arms if arm.name in self.race.alive]
            turns = n > 0 and sum(self._large(arm) and not arm.model.remote for arm in racing) > 1
            n = next_look(n, units, COARSE if turns else GROWTH)
            try:
                self._ask(n, watch_evaluation)
            except BudgetSpent as error:
                ended = f"The race ended early. {error}"
                break
            if len(self.arms) - len(self.race.withdrawn) < 2:
                ended = f"Only {self.race.alive[0]} could be asked."
                self._look(n, tallies)
                break
            before = dict(self.race.dropped)
            self._look(n, tallies)
            looks.append(n)
            if watch is not None:
                watch(self._look_of(n, tallies, before))
        if not tallies:
            raise Stopped(f"{ended} No image was answered by all models.".strip())
        decision = self._measured(self._decision(tallies, looks, ended), watch_evaluation)
        self.kept = keep_decision(self.plan.store, decision, self.selection.name)
        return decision

    def _measured(self, decision: Decision, watch: Watch | None) -> Decision:
        """Measure the choice on the images that were kept apart, if any were."""
        from snellen.metrics.stats import rate

        apart = self.order.units[self.units :]
        if decision.choice is None or not apart:
            return decision
        places = [place for unit in apart for place in unit]
        arm = self._arm(decision.choice)
        try:
            complete(self._answer(arm, places, watch))
        except BudgetSpent as error:
            note = f"The images kept apart were not all asked. {error}"
            return replace(decision, notes=(*decision.notes, note))
        scores = arm.scores()
        named = [(self.selection.id(place), unit[0]) for unit in apart for place in unit]
        known = [(scores[name], unit) for name, unit in named if name in scores]
        text = (
            f"{len(known)} samples of {len(places)} kept apart, which did not choose it: {decision.choice} "
        )
        if self._binary() and known:
            found = rate([value == 1 for value, _ in known], [unit for _, unit in known])
            text += f"is right on {100 * found.value:.1f}% ({100 * found.low:.1f}–{100 * found.high:.1f})."
        elif known:
            text += f"scores {100 * sum(value for value, _ in known) / len(known):.1f}% on average."
        return replace(decision, notes=(*decision.notes, text))

    def _settled(self) -> bool:
        """Whether the race may end: an arm can be recommended, and it is the preferred one, if any is."""
        if not self.race.decided or not self.prefer:
            return self.race.decided
        return min(self.race.alive, key=self._preference) in self.race.certified

    def _ask(self, n: int, watch: Watch | None) -> None:
        """Let arms answer the first n units, also those that come back as another one gives up."""
        asked: set[str] = set()
        while not set(self.race.alive) <= asked:
            asked |= set(self.race.alive)
            complete(self._round(n, watch))

    def close(self) -> None:
        """Release the models."""
        for model, _ in self._tasks:
            model.close()

    def _arms(self) -> list[Arm]:
        return [
            Arm(
                name=f"{model.name}, {task[1]}" if self._several else model.name,
                model=model,
                protocol=task[1],
                evaluation=self.plan.evaluation(model, *task),
            )
            for model, task in self._tasks
        ]

    def _arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def _several(self) -> bool:
        """Whether a model races under several protocols."""
        return len({model.name for model, _ in self._tasks}) < len(self._tasks)

    def _binary(self) -> bool:
        """Whether a sample is right or wrong, whatever the protocol."""
        return all(protocol.classifies for _, (_, _, protocol) in self._tasks)

    async def _round(self, n: int, watch: Watch | None) -> None:
        """Let all arms in the race answer the first n units: hosted ones side by side, local ones in turn."""
        positions = self.order.positions(n)
        racing = [arm for arm in self.arms if arm.name in self.race.alive]
        local = [arm for arm in racing if not arm.model.remote]
        remote = [arm for arm in racing if arm.model.remote]
        hosted = {id(arm.model): [other for other in remote if other.model is arm.model] for arm in remote}
        results = await asyncio.gather(
            *(self._answer_all(arms, positions, watch) for arms in hosted.values()), return_exceptions=True
        )
        if errors := [result for result in results if isinstance(result, BaseException)]:
            raise errors[0]
        taking_turns = len({id(arm.model) for arm in local}) > 1
        for arm in local:
            await self._answer(arm, positions, watch)
            if taking_turns and self._large(arm):
                arm.model.close()
        if not self.race.alive:
            raise Stopped("; ".join(f"{arm.name}: {arm.failed}" for arm in self.arms if arm.failed))

    @staticmethod
    def _large(arm: Arm) -> bool:
        return not arm.failed and (arm.run.metrics.parameters or 0) > LARGE

    async def _answer_all(self, arms: Sequence[Arm], positions: Sequence[int], watch: Watch | None) -> None:
        for arm in arms:
            await self._answer(arm, positions, watch)

    async def _answer(self, arm: Arm, positions: Sequence[int], watch: Watch | None) -> None:
        bound = None if watch is None else lambda state: watch(arm.evaluation, state)
        try:
            await arm.answer(positions, bound)
        except (BudgetSpent, Interrupted):
            raise
        except Stopped as error:
            arm.failed = str(error).rstrip(".")
            self.race.withdraw(arm.name, arm.failed)  # those that it has beaten come back
        self.order.left_out |= {row.where for row in arm.evaluation.skipped} & set(self.order.sample_weights)

    def _look(self, n: int, tallies: dict[str, Any]) -> None:
        """Look at the first n units of all arms in the race."""
        self.race.weights = self.order.weights[: self.units]
        scores = {
            arm.name: self.order.tally(arm.scores(), n) for arm in self.arms if arm.name in self.race.alive
        }
        tallies |= scores
        self.race.look(scores)

    def _samples(self, units: int) -> int:
        """Count samples that can be read."""
        left_out = self.order.left_out
        return sum(self.selection.id(p) not in left_out for p in self.order.positions(units))

    def _images(self, units: int) -> int:
        """Count units that can be read."""
        return int((self.order.weights[:units] > 0).sum())

    def _mean(self, tally: Any, n: int) -> float:
        weights = float(self.order.weights[:n].sum())
        return float(tally[:n].sum()) / weights if weights else 0.0

    def _look_of(self, n: int, tallies: Mapping[str, Any], before: Mapping[str, Any]) -> Look:
        scores = {name: self._mean(tallies[name], n) for name in self.race.alive}
        costs = [arm.cost for arm in self.arms]
        return Look(
            images=n,
            of=self.units,
            scores=dict(sorted(scores.items(), key=lambda item: -item[1])),
            left={name: drop.by for name, drop in self.race.dropped.items() if name not in before},
            answers=sum(self._samples(len(tally)) for tally in tallies.values()),
            cost=None if None in costs else sum(cost or 0.0 for cost in costs),
        )

    def _history(
        self, tallies: Mapping[str, Any], looks: Sequence[int], reference: str
    ) -> Iterator[tuple[int, dict[str, GapEstimate]]]:
        """Yield how arms stood to one of them at each look."""
        for n in looks:
            known = {
                name: tally[:n] for name, tally in tallies.items() if len(tally) >= n and name != reference
            }
            yield n, {name: self.race.gap(tally, tallies[reference][:n]) for name, tally in known.items()}

    def _decision(self, tallies: Mapping[str, Any], looks: Sequence[int], ended: str) -> Decision:
        # Long: one record of everything that is known at the end.
        race, n = self.race, self.race.n
        scores = {
            arm.name: self._mean(t, len(t)) for arm in self.arms if (t := tallies.get(arm.name)) is not None
        }
        leader = max(race.alive, key=lambda name: scores.get(name, 0.0))
        certified = sorted(race.certified, key=self._preference) if self.prefer else list(race.certified)
        choice = certified[0] if certified else None
        reference = choice or leader
        results = []
        for arm in self.arms:
            run = arm.run
            stored, answered = run.metrics.n, self._samples(len(tallies.get(arm.name, ())))
            # The run may hold more answers than the race needed.
            each = arm.cost / stored if arm.cost is not None and stored else None
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

        if choice is None and not ended and n == self.units:
            ended = "All images were asked."
        return Decision(
            choice=choice,
            tied=tuple(certified[1:]),
            leader=leader,
            arms=tuple(sorted(results, key=rank)),
            within=race.within,
            confidence=1 - race.alpha,
            images=self._images(n),
            of=self._images(self.units),
            of_samples=self._samples(self.units),
            weighing=self.order.weighing,
            score=self.arms[0].run.primary,
            population=race.population,
            preferred=self.prefer if len(certified) > 1 else None,
            ended=ended,
            trace=partial(self._history, tallies, looks, reference),
            notes=tuple(self._notes()),
        )

    def _preference(self, name: str) -> float:
        arm = self._arm(name)
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
            what = (
                "1 sample cannot be read and was" if lost == 1 else f"{lost} samples cannot be read and were"
            )
            notes.append(f"{what} left out.")
        if self.order.weighing == "balanced":
            notes.append("Classes count alike, whatever their number of images (--score plain: images do).")
        for arm in self.arms:
            if lost := len(arm.given_up):
                what = "1 sample" if lost == 1 else f"{lost} samples"
                notes.append(f"{arm.name}: {what} failed at every try; failures count as wrong.")
            if arm.failed:
                notes.append(f"{arm.name} could not go on, and nothing is said of it: {arm.failed}.")
        if self._several:
            kept = len(self.order.units) - self.units
            notes.append(
                "Of several protocols, the best score is optimistic on the images that chose it; "
                f"{kept} images were kept apart to measure the choice."
            )
        return notes
