"""The eye test on own images, stopped early: no more images of a level than it takes to tell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from snellen._util.asyncio import complete
from snellen.decisions.evidence import log_capital, upper_bound
from snellen.decisions.field import Arm, RaceOrder, refuse_whole_run_scores, scores_of
from snellen.decisions.race import next_look
from snellen.eye_test.own_images import DegradedLevel, compared
from snellen.metrics.stats import Estimate
from snellen.runs.plan import Plan, Watch
from snellen.runs.run import Run

if TYPE_CHECKING:
    from snellen.decisions.evidence import Series

__all__ = ["EarlyStop"]

#: Written into runs that end before all images were asked.
ENDED = "snellen eye-test --stop-early ended it by what it had seen. Answer the rest with: snellen resume"
#: The chance that an interval is ever wrong.
ALPHA = 0.05


@dataclass(kw_only=True)
class EarlyStop:
    """Asks a level of degradation until it is known whether it loses more than a margin.

    The images come in an order drawn by seed. After each look, the change against the undegraded images has a
    confidence sequence, which holds at all looks together, as in a race (:mod:`snellen.decisions.race`).

    Args:
        within: the margin, as a share.
        seed: of the order.
    """

    within: float
    seed: int = 0
    watch: Watch | None = None
    #: Drawn once for the undegraded images: levels show the same ones.
    _order: RaceOrder | None = None

    def check(self, plan: Plan) -> None:
        """Refuse scores of whole runs.

        Raises:
            Unsupported: this is one.
        """
        refuse_whole_run_scores(plan, "a level cannot stop early. Leave --stop-early out.")

    def __call__(self, plan: Plan, plain: Run, level: float) -> DegradedLevel:
        """Ask a level.

        Args:
            plan: of the level; ``plain``: the run on the undegraded images.

        Raises:
            Stopped: the model gave up, or the budget is used up.
        """
        plan.check()
        ((model, (task,)),) = plan.pairs
        selection, title, _ = task
        order = self._order = self._order or RaceOrder(data=selection, seed=self.seed)
        arm = Arm(name=model.name, model=model, protocol=title, evaluation=plan.evaluation(model, *task))
        bound = None if self.watch is None else partial(self.watch, arm.evaluation)
        before = scores_of(plain, model.name)
        n, units = 0, len(order.units)
        while n < units:
            n = next_look(n, units)
            complete(arm.answer(order.positions(n), bound, ENDED))
            after = arm.scores()
            change = self.change(order.tally(after, n), order.tally(before, n), order.weights)
            if change.low >= -self.within or change.high < -self.within:
                break
        places = order.positions(n)
        known = compared(plain, arm.run, level, [selection.id(place) for place in places])
        stored = arm.run.metrics.n  # it may hold more than the test needed
        return replace(
            known,
            # Next to the score of all undegraded images, that of the images asked would mislead.
            score=_mean(plain) + change.value,
            change=replace(
                known.change,
                difference=change,
                p=self._p(order.tally(after, n) - order.tally(before, n), order),
                test="e-value",
            ),
            cost=None if known.cost is None else known.cost / stored * len(selection),
            asked=len(places),
        )

    def change(self, after: Series, before: Series, weights: Series) -> Estimate:
        """Return the mean change of the units so far, with its confidence sequence.

        Args:
            after, before: [units so far], weight times score.
            weights: of all units, 1 on average: the heaviest may be still to come.
        """
        import numpy as np

        heaviest, weights = float(weights.max()), weights[: len(after)]
        values = (after - before) / np.where(weights > 0, weights, 1.0)
        bound = partial(upper_bound, low=-1.0, high=1.0, alpha=ALPHA / 2, weights=weights, heaviest=heaviest)
        value = float((values * weights).sum() / weights.sum())
        low, high = -bound(-values), bound(values)
        return Estimate(value, min(low, value), max(high, value))

    @staticmethod
    def _p(gains: Series, order: RaceOrder) -> float:
        """Return a p-value of "no change" that holds at every look: one over the largest e-value."""
        import numpy as np

        heaviest = float(order.weights.max())
        most = max(float(log_capital(sign * gains, -heaviest, heaviest).max(initial=0.0)) for sign in (1, -1))
        return float(min(1.0, 2 * np.exp(-most)))


def _mean(run: Run) -> float:
    """Return the mean primary score of a run's samples."""
    scores = [run.score_of(row) or 0.0 for row in run.outcomes.to_dict("records")]
    return float(sum(scores) / len(scores))
