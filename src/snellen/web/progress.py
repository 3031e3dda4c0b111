"""How far a run is that is under way, from the store alone: its process may be anywhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from snellen.metrics.format import dollars, duration, number
from snellen.runs.run import Run

__all__ = ["RunProgress"]

#: Up to so many samples, the cost so far is computed at each look.
FEW = 5000


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """A run under way.

    Attributes:
        done, total: samples.
        outcomes: the number of samples by outcome.
        speed: samples per second of those that asked the model; None while unknown.
        cost: US dollars so far; None if unknown.
    """

    status: str
    done: int
    total: int
    outcomes: dict[str, int]
    speed: float | None
    cost: float | None

    @classmethod
    def of(cls, run: Run) -> RunProgress:
        """Read it."""
        outcomes = Counter(str(row["outcome"]) for row in run.store.records(run.id).outcomes())
        done = outcomes.total()
        return cls(
            status=run.status,
            done=done,
            total=run.manifest.data.n,
            outcomes=dict(sorted(outcomes.items())),
            speed=run.speed,
            cost=run.metrics.cost if 0 < done <= FEW else None,
        )

    @property
    def left(self) -> float | None:
        """The seconds that are left at this speed; None while unknown."""
        return (self.total - self.done) / self.speed if self.speed else None

    def __str__(self) -> str:
        parts = [f"{number(self.done)} of {number(self.total)} samples"]
        if self.speed:
            parts.append(f"{number(self.speed)} items/s")
        if self.left is not None and self.status == "running":
            parts.append(f"about {duration(self.left)} left")
        parts += [f"{number(count)} {outcome}" for outcome, count in self.outcomes.items()]
        if self.cost:
            parts.append(f"${dollars(self.cost)}")
        return ", ".join(parts)

    def as_dict(self) -> dict[str, object]:
        """As JSON, with the sentence that a page shows."""
        return {**vars(self), "left": self.left, "text": str(self)}
