"""Race the arms of a plan to a decision: ordinary runs, of which a round at a time is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

from snellen._util.asyncio import complete
from snellen.decisions.decision import Decision
from snellen.decisions.field import Arm, RaceOrder, Weighing, refuse_whole_run_scores
from snellen.decisions.race import GROWTH, Race, next_look
from snellen.decisions.record import keep_decision, race_key, reopen_race
from snellen.decisions.standing import Look, Preference, RaceStanding
from snellen.errors import BadOption, BudgetSpent, Interrupted, Stopped, UsageError, one_of
from snellen.models.base import EVERYWHERE
from snellen.runs.plan import Plan, Watch
from snellen.storage.documents import Document, Status

__all__ = ["Choosing"]

#: Local models of more parameters are released while others have their turn, in rounds that double.
LARGE, COARSE = 500_000_000, 2.0
#: The share of images kept apart where protocols or prompts of one model race.
KEPT_APART = 0.2


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
        one_of("prefer", prefer, (*get_args(Preference), None))
        one_of("score", score, (*get_args(Weighing), None))
        self.plan, self.prefer = plan, prefer
        self._tasks = [(model, task) for model, tasks in plan.pairs for task in tasks]
        if len(self._tasks) < 2:
            skipped = f" Left out: {'; '.join(plan.skipped)}." if plan.skipped else ""
            raise UsageError(
                "A choice needs at least two different models or protocols that fit the data (one that is "
                f"given twice counts once).{skipped} Add another with --model."
            )
        refuse_whole_run_scores(
            plan,
            "a race cannot stop early. Use a protocol with right and wrong answers, such as closed-set, or "
            "compare complete runs: snellen run, then snellen compare",
        )
        (self.selection,) = plan.selections
        #: The decision in the workspace, once there is one.
        self.kept: Document | None = None
        self._latest: Decision | None = None
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
        self.standing = RaceStanding(
            race=self.race,
            order=self.order,
            arms=self.arms,
            units=self.units,
            prefer=self.prefer,
            several=self._several,
        )
        key = race_key(
            (arm.evaluation.run for arm in self.arms),
            within=within,
            confidence=confidence,
            weighing=self.order.weighing,
            population=population,
        )
        reopen_race(self.plan.store, self.selection.name, key)
        try:
            decision = self._raced(watch, watch_evaluation)
        except BaseException:
            self._keep(self._latest, "interrupted")
            raise
        self._keep(decision, "finished")
        return decision

    def _keep(self, decision: Decision | None, status: Status) -> None:
        if decision is not None:
            self.kept = keep_decision(self.plan.store, decision, self.selection.name, status)

    def _raced(self, watch: Callable[[Look], None] | None, watch_evaluation: Watch | None) -> Decision:
        standing, ended = self.standing, ""
        n, units = 0, self.units
        while n < units and not standing.settled:
            # Large local models are loaded anew for each of their turns, so there are fewer of these.
            n = next_look(n, units, COARSE if n > 0 and self._taking_turns() else GROWTH)
            try:
                self._ask(n, watch_evaluation)
            except BudgetSpent as error:
                ended = f"The race ended early. {error}"
                break
            if len(self.arms) - len(self.race.withdrawn) < 2:
                ended = f"Only {self.race.alive[0]} could be asked."
                standing.look(n)
                break
            before = dict(self.race.dropped)
            standing.look(n)
            standing.looks.append(n)
            if n < units and not standing.settled:
                self._latest = standing.decision()
                self._keep(self._latest, "running")
            if watch is not None:
                watch(standing.seen(before))
        if not standing.tallies:
            raise Stopped(f"{ended} No image was answered by all models.".strip())
        return self._measured(standing.decision(ended), watch_evaluation)

    def _measured(self, decision: Decision, watch: Watch | None) -> Decision:
        """Measure the choice on the images that were kept apart, if any were."""
        from snellen.metrics.stats import rate

        apart = self.order.units[self.units :]
        if decision.choice is None or not apart:
            return decision
        places = [place for unit in apart for place in unit]
        arm = self.standing.arm(decision.choice)
        try:
            complete(self._answer(arm, places, watch))
        except BudgetSpent as error:
            note = f"The images kept apart were not all asked. {error}"
            return replace(decision, notes=(*decision.notes, note))
        scores = arm.scores()
        named = [(self.selection.id(place), unit[0]) for unit in apart for place in unit]
        known = [(scores[name], unit) for name, unit in named if name in scores]
        text = (
            f"On {len(known):,} of {len(places):,} samples kept apart, which did not choose it, "
            f"{decision.choice} "
        )
        if self._binary() and known:
            found = rate([value == 1 for value, _ in known], [unit for _, unit in known])
            text += f"is right on {100 * found.value:.1f}% ({100 * found.low:.1f}–{100 * found.high:.1f})."
        elif known:
            text += f"scores {100 * sum(value for value, _ in known) / len(known):.1f}% on average."
        return replace(decision, notes=(*decision.notes, text))

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

    @property
    def _several(self) -> bool:
        """Whether a model races under several protocols."""
        return len({model.name for model, _ in self._tasks}) < len(self._tasks)

    def _binary(self) -> bool:
        """Whether a sample is right or wrong, whatever the protocol."""
        return all(protocol.classifies for _, (_, _, protocol) in self._tasks)

    async def _round(self, n: int, watch: Watch | None) -> None:
        """Let all arms in the race answer the first n units: hosted ones side by side, then local ones, which
        take turns on each device.
        """
        positions = self.order.positions(n)
        racing = [arm for arm in self.arms if arm.name in self.race.alive]
        local = [arm for arm in racing if not arm.model.remote]
        remote = [arm for arm in racing if arm.model.remote]
        hosted = {id(arm.model): [other for other in remote if other.model is arm.model] for arm in remote}
        places: dict[str, list[Arm]] = {}
        for arm in local:
            places.setdefault(self._place(arm), []).append(arm)
        for side_by_side in (hosted, places):
            results = await asyncio.gather(
                *(self._answer_all(arms, positions, watch) for arms in side_by_side.values()),
                return_exceptions=True,
            )
            if errors := [result for result in results if isinstance(result, BaseException)]:
                raise errors[0]
        if not self.race.alive:
            raise Stopped("; ".join(f"{arm.name}: {arm.failed}" for arm in self.arms if arm.failed))

    def _place(self, arm: Arm) -> str:
        """Return the device of a local model; a model on all of them leaves none to others."""
        everywhere = any(other.model.place == EVERYWHERE for other in self.arms)
        return EVERYWHERE if everywhere else arm.model.place

    def _taking_turns(self) -> bool:
        """Whether several large models of the race share a device."""
        racing = [arm for arm in self.arms if arm.name in self.race.alive and not arm.model.remote]
        places = [self._place(arm) for arm in racing if self._large(arm)]
        return len(set(places)) < len(places)

    @staticmethod
    def _large(arm: Arm) -> bool:
        return not arm.failed and (arm.run.metrics.parameters or 0) > LARGE

    async def _answer_all(self, arms: Sequence[Arm], positions: Sequence[int], watch: Watch | None) -> None:
        taking_turns = len({id(arm.model) for arm in arms}) > 1
        for arm in arms:
            await self._answer(arm, positions, watch)
            if taking_turns and not arm.model.remote and self._large(arm):
                arm.model.close()

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
