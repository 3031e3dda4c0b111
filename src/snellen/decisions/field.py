"""The field of a race: its arms, the order of the images, and the scores so far."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from snellen.datasets.base import Selection
from snellen.engine.evaluation import Evaluation
from snellen.engine.progress import ProgressCallback
from snellen.errors import BadOption, DataError, Unsupported, UsageError
from snellen.metrics.classification import are_unequal
from snellen.metrics.registry import METRICS
from snellen.models.base import Model
from snellen.runs.run import Run
from snellen.types import Outcome

if TYPE_CHECKING:
    from snellen.decisions.evidence import Series
    from snellen.runs.plan import Plan

__all__ = ["Arm", "RaceOrder", "Weighing", "refuse_whole_run_scores", "scores_of"]

#: How scores are averaged: over images, or over classes.
Weighing = Literal["plain", "balanced"]
#: How often a failed sample is asked again before it counts as wrong.
RETRIES = 2


#: Written into runs that a race ended.
RACED = "snellen choose ended it by what it had seen. Answer the rest with: snellen resume"


def refuse_whole_run_scores(plan: Plan, so_that: str) -> None:
    """Refuse a protocol whose scores take a whole run.

    Args:
        so_that: what is not possible, and what to do instead.

    Raises:
        Unsupported: there is one.
    """
    for model, tasks in plan.pairs:
        for _, title, protocol in tasks:
            if scorers := protocol.for_model(model).scorers():
                raise Unsupported(
                    f"{title} is scored over a whole run ({type(scorers[0]).__name__}), not image by image, "
                    f"so that {so_that}"
                )


@dataclass(kw_only=True)
class Arm:
    """A model under a protocol.

    Attributes:
        name: unique among the arms.
        failed: why it cannot go on; empty if it can.
        given_up: ids of samples that failed at every try, and count as wrong.
    """

    name: str
    model: Model
    protocol: str
    evaluation: Evaluation
    failed: str = ""
    given_up: set[str] = field(default_factory=set)

    @property
    def run(self) -> Run:
        """Its run in the workspace."""
        return Run(self.evaluation.store, self.evaluation.run)

    async def answer(
        self, positions: Sequence[int], watch: ProgressCallback | None, why: str = RACED
    ) -> None:
        """Answer what is missing of these positions; failed ones are asked again.

        Args:
            why: the run ends with them, if it does.

        Raises:
            Stopped: as for :meth:`Evaluation.evaluate`.
        """
        wanted = [place for place in positions if self.evaluation.data.id(place) not in self.given_up]
        await self.evaluation.evaluate(watch, among=wanted, race=why)
        for _ in range(RETRIES):
            if self.run.metrics.outcomes[Outcome.ERROR] <= len(self.given_up):
                return
            await self.evaluation.evaluate(watch, among=wanted, race=why)
        rows = self.run.outcomes
        self.given_up = set(rows.loc[rows["outcome"] == Outcome.ERROR, "id"])

    def scores(self) -> dict[str, float]:
        """Return the scores so far, as :func:`scores_of`."""
        return scores_of(self.run, self.name)

    @property
    def outcomes(self) -> Mapping[str, int]:
        """How many of its samples had each outcome; empty before any was asked."""
        with suppress(UsageError):
            return self.run.metrics.outcomes
        return {}

    @property
    def cost(self) -> float | None:
        """US dollars so far, cached answers included; None if unknown."""
        with suppress(UsageError):
            return self.run.metrics.cost
        return None


def scores_of(run: Run, name: str) -> dict[str, float]:
    """Return the scores so far by sample, from 0 to 1, where higher is better.

    Args:
        name: of its model, for errors.

    Raises:
        UsageError: the protocol scores no single sample.
    """
    metric = METRICS[run.primary]
    if not -1e9 < metric.low < metric.high < 1e9:
        raise UsageError(f"{metric.heading} has no fixed range, so that a race cannot be bounded.")
    known: dict[str, float] = {}
    for row in run.outcomes.to_dict("records"):
        if row["outcome"] == Outcome.ERROR:
            known[row["id"]] = 0.0
            continue
        value = run.score_of(row)
        if value is None:
            raise UsageError(
                f"{name}: the sample {row['id']!r} has no {metric.heading} of its image alone. A "
                "race needs labels or references, and a score for each sample."
            )
        share = (value - metric.low) / (metric.high - metric.low)
        known[row["id"]] = min(1.0, max(0.0, share if metric.higher_is_better else 1 - share))
    return known


@dataclass(kw_only=True)
class RaceOrder:
    """The order of the units of a race, drawn by seed before anything is asked.

    Attributes:
        units: the positions of each unit's samples, which share an image.
        weighing: ``balanced`` weighs classes alike, whatever their number of images.
        left_out: ids of samples whose file cannot be read.
    """

    data: Selection
    seed: int = 0
    weighing: Weighing = "plain"
    units: list[list[int]] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    #: The weights, and the number of samples that were left out when they were computed.
    _weights: tuple[int, Series] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        groups: dict[tuple[str, ...], list[int]] = {}
        for position in range(len(self.data)):
            name = self.data.id(position)
            try:
                images = tuple(image.sha256 for image in self.data[position].images)
            except DataError:
                if not self.data.skip_invalid:
                    raise
                self.left_out.add(name)
                continue
            groups.setdefault(images or (name,), []).append(position)
        self.units = list(groups.values())
        random.Random(f"snellen/choose/{self.seed}").shuffle(self.units)
        if len(self.units) < 2:
            raise DataError(f"{self.data.name}: a race needs at least two images.")

    @classmethod
    def drawn(cls, data: Selection, seed: int, weighing: Weighing | None) -> RaceOrder:
        """Draw an order; by default classes count alike if they are unequal.

        Raises:
            BadOption: samples without labels cannot be balanced.
            DataError: an image cannot be read; or there are fewer than two.
        """
        labels = [data.data.row(index).label for index in data.indices]
        classes = Counter(label for label in labels if label is not None)
        if weighing == "balanced" and (len(classes) < 2 or None in labels):
            raise BadOption(f"--score balanced needs classes, which {data.name} does not have.")
        if weighing is None:
            classed = len(data.labels) >= 2 and None not in labels and len(classes) >= 2
            weighing = "balanced" if classed and are_unequal(classes.values()) else "plain"
        return cls(data=data, seed=seed, weighing=weighing)

    @cached_property
    def sample_weights(self) -> dict[str, float]:
        """The weight of each sample: 1, or inversely to the size of its class; 1 on average over units."""
        names = {
            self.data.id(p): self.data.data.row(self.data.indices[p]).label for u in self.units for p in u
        }
        if self.weighing == "plain":
            scale = len(self.units) / len(names)
            return dict.fromkeys(names, scale)
        sizes = Counter(names.values())
        scale = len(self.units) / len(sizes)
        return {name: scale / sizes[label] for name, label in names.items()}

    def positions(self, units: int) -> list[int]:
        """Return the positions of the samples of the first units."""
        return [position for unit in self.units[:units] for position in unit]

    def ids(self, unit: int) -> list[str]:
        """Return the ids of a unit's samples."""
        return [self.data.id(position) for position in self.units[unit]]

    @property
    def weights(self) -> Series:
        """[units]: the sum of the weights of each unit's samples that can be read."""
        import numpy as np

        if self._weights is None or self._weights[0] != len(self.left_out):
            weight, left_out = self.sample_weights, self.left_out
            sums = [
                sum(weight[name] for name in self.ids(unit) if name not in left_out)
                for unit in range(len(self.units))
            ]
            self._weights = (len(left_out), np.array(sums))
        return self._weights[1]

    @property
    def plain(self) -> bool:
        """Whether every unit is one sample of weight 1."""
        return self.weighing == "plain" and all(len(unit) == 1 for unit in self.units)

    def tally(self, scores: dict[str, float], units: int) -> Series:
        """Return weight times score, summed over each of the first units."""
        import numpy as np

        weight = self.sample_weights
        return np.array(
            [
                sum(weight[name] * scores[name] for name in self.ids(unit) if name not in self.left_out)
                for unit in range(units)
            ]
        )
