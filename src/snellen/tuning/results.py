"""Compare before and after fine-tuning on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snellen.metrics.format import detectable
from snellen.metrics.stats import Paired, paired
from snellen.metrics.summary import cluster_of
from snellen.runs.compare import compare
from snellen.runs.run import Run

__all__ = ["Result", "of_classes", "result_of"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A task before and after, on the same samples.

    Attributes:
        score: the compared score, such as accuracy.
        first, second: ids of the runs before and after.
        before, after: the scores.
        paired: after minus before.
        classes: the classes that the samples are restricted to, if any.
    """

    task: str
    score: str
    first: str
    second: str
    before: float
    after: float
    paired: Paired
    classes: tuple[str, ...] = ()

    @property
    def data(self) -> str:
        """The data set's name."""
        return self.task.rpartition(", ")[0] or self.task

    @property
    def protocol(self) -> str:
        """The protocol."""
        return self.task.rpartition(", ")[2]

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``no difference shown``."""
        gap = self.paired.difference
        return "better" if gap.low > 0 else "worse" if gap.high < 0 else "no difference shown"

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Before, after, the difference with its interval, the verdict; shares in percent."""
        gap = self.paired.difference
        return (
            f"{100 * self.before:.1f}",
            f"{100 * self.after:.1f}",
            f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})",
            self.sentence,
        )

    @property
    def sentence(self) -> str:
        """The verdict, with the detectable difference."""
        difference = self.paired
        if self.verdict != "no difference shown":
            return self.verdict
        if difference.n == 1:
            return "one sample is not enough"
        if not difference.only_first and not difference.only_second:
            return f"the same on all {difference.n}"
        return f"not significant ({detectable(difference)})"

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "task": self.task,
            "score": self.score,
            "before": self.before,
            "after": self.after,
            "runs": [self.first, self.second],
            "verdict": self.verdict,
            **self.paired.as_dict(),
            **({"classes": list(self.classes)} if self.classes else {}),
        }


def result_of(before: Run, after: Run) -> Result:
    """Compare two runs on the same samples, possibly under two protocols (a head ranks names that the
    model generated).
    """
    (comparison,) = compare([after, before], across=True)
    asked, now = (run.manifest.protocol.name for run in (before, after))
    title = f"{after.data}, {asked}" + (f" → {now}" if now != asked else "")
    scores = [float(run.metrics[run.primary].value) for run in (before, after)]
    return Result(
        task=title,
        score=comparison.score,
        first=before.id,
        second=after.id,
        before=scores[0],
        after=scores[1],
        paired=comparison.result,
    )


def of_classes(before: Run, after: Run, classes: Sequence[str]) -> Result | None:
    """Restrict a result to the samples of some classes; None if there are fewer than two."""
    first, other = before.outcomes.set_index("id"), after.outcomes.set_index("id")
    first = first[first["label"].isin(classes)]
    if len(first) < 2:
        return None
    other = other.loc[first.index]
    right = [(frame["prediction"] == frame["label"]).astype(float).tolist() for frame in (first, other)]
    clusters = [cluster_of(images, name) for name, images in zip(first.index, first["images"], strict=True)]
    difference = paired(right[1], right[0], clusters)
    title = f"the {len(classes)} classes with the lowest recall before"
    means = [sum(marks) / len(marks) for marks in right]
    return Result(
        task=title,
        score="accuracy",
        first=before.id,
        second=after.id,
        before=means[0],
        after=means[1],
        paired=difference,
        classes=tuple(classes),
    )
