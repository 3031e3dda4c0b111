"""What a race decided, in words and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from snellen._util.paths import bare_names, without_folders
from snellen._util.words import counted
from snellen.decisions.race import Drop, GapEstimate

__all__ = ["ArmResult", "Decision"]


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm at the end of a race.

    Attributes:
        run: its run's id; ``score``: over the images that it answered; ``images``: how many.
        gap: its score minus the recommended arm's (else the leader's); None for that arm, and for dropped
            arms: the race stopped asking them by what it saw.
        dropped: why and when it left; ``failed``: why it could not go on.
        answers: samples answered; ``errors``: those that failed at every try.
        cost: US dollars; ``full_cost``: what all images would have cost, by the same price an image.
        speed: samples a second; ``parameters``: of the model.
    """

    name: str
    run: str
    score: float
    images: int
    answers: int
    errors: int
    gap: GapEstimate | None = None
    dropped: Drop | None = None
    failed: str = ""
    cost: float | None = None
    full_cost: float | None = None
    speed: float | None = None
    parameters: int | None = None

    @property
    def status(self) -> str:
        """What became of it, in words."""
        if self.failed:
            return f"could not go on: {self.failed}"
        if self.dropped is not None:
            return f"beaten by {self.dropped.by} after {counted(self.dropped.n, 'image')}"
        return "in the race"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The result of :func:`snellen.choose`.

    Attributes:
        choice: the arm to use; None if undecided.
        tied: other arms that may be used as well, as far as known.
        leader: the arm with the highest score among those in the race.
        within: the margin; ``confidence``: of the statement, 0.95 for 95%.
        enough: the e-value at which an arm leaves.
        images, of: units asked of how many; ``of_samples``: the samples of all of them.
        weighing: ``plain`` or ``balanced``; ``population``: whether it is about exactly these images.
        preferred: by what it was chosen among tied arms; ``ended``: why the race ended undecided.
        trace: computes :attr:`history`, which takes seconds for thousands of images.
    """

    choice: str | None
    tied: tuple[str, ...]
    leader: str
    arms: tuple[ArmResult, ...]
    within: float
    confidence: float
    images: int
    of: int
    of_samples: int
    weighing: str
    score: str
    population: bool
    enough: float = 0.0
    preferred: str | None = None
    ended: str = ""
    notes: tuple[str, ...] = ()
    trace: Callable[[], Iterable[tuple[int, Mapping[str, GapEstimate]]]] = field(
        default=tuple, repr=False, compare=False
    )

    @cached_property
    def history(self) -> tuple[tuple[int, Mapping[str, GapEstimate]], ...]:
        """For each look, the number of images and, of each arm in the race, its score minus that of the arm
        that is recommended (else of the leader) in the end.
        """
        return tuple(self.trace())

    @property
    def answers(self) -> int:
        """Samples answered by all arms."""
        return sum(arm.answers for arm in self.arms)

    @property
    def full_answers(self) -> int:
        """Samples that all arms together would answer without a race."""
        return self.of_samples * len(self.arms)

    @property
    def cost(self) -> float | None:
        """US dollars so far; None if unknown."""
        return _sum(arm.cost for arm in self.arms)

    @property
    def full_cost(self) -> float | None:
        """US dollars without a race, by the same price an image."""
        return _sum(arm.full_cost for arm in self.arms)

    @property
    def sentence(self) -> str:
        """The decision in one sentence, or what is missing for one."""
        return self._chosen if self.choice is not None else self._undecided

    @property
    def _chosen(self) -> str:
        sure, k = f"{100 * self.confidence:g}%", len(self.arms)
        failed = [arm.name for arm in self.arms if arm.failed]
        others = f"the {k}" if not failed else f"the {k - len(failed)} that could be asked"
        points = f"{100 * self.within:g} point{'s' if self.within != 0.01 else ''}"
        text = f"Use {self.choice}: {sure} sure that none of {others} is more than {points} better"
        text += " on exactly these images." if self.population else " on images like these."
        if self.tied:
            text += f" {_listed(self.tied)} may be used as well."
            text += f" (Chosen by {self.preferred}.)" if self.preferred else ""
        return f"{text} {self.effort}"

    @property
    def _undecided(self) -> str:
        rivals = sorted(
            (arm for arm in self.arms if arm.gap is not None and arm.name != self.leader),
            key=lambda arm: -arm.gap.value if arm.gap else 0.0,
        )
        why = f" {self.ended}" if self.ended else ""
        if not rivals:
            return f"Not decided.{why} {self.effort}"
        gap = rivals[0].gap
        assert gap is not None
        value = round(-100 * gap.value, 1) + 0.0  # no -0.0
        ahead = f"difference {value:.1f} points, {-100 * gap.high:.1f} to {-100 * gap.low:.1f}"
        text = f"Not decided between {self.leader} and {_listed([arm.name for arm in rivals])} ({ahead}"
        text += " to the next)." if len(rivals) > 1 else ")."
        needed = [arm.gap.more for arm in rivals if arm.gap is not None]
        if all(more is not None for more in needed):
            more = max(more or 0 for more in needed)
            text += f" About {more:,} more images would do."
        else:
            text += " It cannot be told how many more images would do."
        return f"{text}{why} {self.effort}"

    @property
    def effort(self) -> str:
        """What it took, against asking everything."""
        text = (
            f"{self.images:,} of {self.of:,} images, {counted(self.answers, 'answer')} instead of "
            f"{self.full_answers:,}"
        )
        if self.cost is not None and self.full_cost is not None and self.full_cost > 0:
            text += f", ${self.cost:.2f} instead of ${self.full_cost:.2f}"
        return f"{text}."

    def published(self) -> Decision:
        """Return the decision to pass on: names of models without the folders of this machine."""
        names = bare_names(arm.name for arm in self.arms)

        def bare(text: str) -> str:
            """Names may be parts of others, so the longest come first."""
            for name in sorted(names, key=len, reverse=True):
                text = text.replace(name, names[name])
            return without_folders(text)

        arms = tuple(
            replace(
                arm,
                name=names[arm.name],
                dropped=None if arm.dropped is None else replace(arm.dropped, by=names[arm.dropped.by]),
                failed=bare(arm.failed),
            )
            for arm in self.arms
        )

        def trace() -> Iterable[tuple[int, Mapping[str, GapEstimate]]]:
            return ((n, {names[name]: gap for name, gap in gaps.items()}) for n, gaps in self.history)

        return replace(
            self,
            arms=arms,
            choice=None if self.choice is None else names[self.choice],
            leader=names[self.leader],
            tied=tuple(names[name] for name in self.tied),
            notes=tuple(map(bare, self.notes)),
            ended=bare(self.ended),
            trace=trace,
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "choice": self.choice,
            "tied": list(self.tied),
            "leader": self.leader,
            "sentence": self.sentence,
            "within": self.within,
            "confidence": self.confidence,
            "score": self.score,
            "weighing": self.weighing,
            "population": self.population,
            "enough": self.enough,
            "preferred": self.preferred,
            "ended": self.ended,
            "effort": self.effort,
            "images": self.images,
            "of": self.of,
            "answers": self.answers,
            "full_answers": self.full_answers,
            "cost": self.cost,
            "full_cost": self.full_cost,
            "arms": [{**asdict(arm), "status": arm.status} for arm in self.arms],
            "history": [
                {"images": n, "gaps": {name: asdict(gap) for name, gap in gaps.items()}}
                for n, gaps in self.history
            ],
            "notes": list(self.notes),
        }


def _sum(costs: Any) -> float | None:
    known = list(costs)
    return None if not known or None in known else float(sum(known))


def _listed(names: Any) -> str:
    *most, last = list(names)
    return f"{', '.join(most)} and {last}" if most else str(last)
