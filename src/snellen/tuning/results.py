"""Compare before and after fine-tuning on the same samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from snellen.metrics.format import detectable
from snellen.metrics.stats import Paired, holm, paired
from snellen.metrics.summary import cluster_of
from snellen.runs.compare import compare
from snellen.runs.run import Run
from snellen.tuning.deployment import Deployment

__all__ = [
    "ClassSpread",
    "Result",
    "SeedSpread",
    "TunedModel",
    "corrected",
    "of_classes",
    "remarks",
    "result_of",
    "still_falling",
]

#: The quantile of a one-sided 95% interval; and the share of one prediction that counts as always.
ONE_SIDED, CONSTANT = 1.6449, 0.9
#: The most classes that a sentence names.
SHOWN = 10
#: The fewest measurements by which a loss is judged; the factor by which one that still falls fell in the
#: last third; and the loss below which everything is learned.
SEEN, FELL, LEARNED = 5, 0.9, 0.02


@dataclass(frozen=True, kw_only=True)
class ClassSpread:
    """How predictions are spread over the classes that occur as labels.

    Attributes:
        balanced_accuracy, macro_f1: means over these classes.
        low: the lower end of the one-sided 95% interval of balanced accuracy.
        chance: what guessing at random reaches in balanced accuracy; always the same answer reaches as much.
        majority, majority_share: the largest class, and the accuracy of always answering it.
        top, top_share: the most frequent prediction, and its share.
        missing: the classes that are never predicted.
    """

    balanced_accuracy: float
    macro_f1: float
    low: float
    chance: float
    majority: str
    majority_share: float
    top: str
    top_share: float
    missing: tuple[str, ...]

    @classmethod
    def of(cls, labels: Sequence[str], predictions: Sequence[str]) -> ClassSpread | None:
        """Describe predictions; None for fewer than two classes.

        The interval adds to each class one right and one wrong sample (Laplace), so that a class with one or
        two samples is no certainty.
        """
        sizes = Counter(labels)
        if len(sizes) < 2:
            return None
        k = len(sizes)
        right = Counter(label for label, said in zip(labels, predictions, strict=True) if label == said)
        said = Counter(predictions)
        recalls = [right[name] / sizes[name] for name in sizes]
        f1 = [2 * right[name] / (sizes[name] + said[name]) for name in sizes]
        smooth = [(right[name] + 1, sizes[name] + 2) for name in sizes]
        error = sum(r / n * (1 - r / n) / n for r, n in smooth) ** 0.5 / k
        balanced = sum(recalls) / k
        majority, top = sizes.most_common(1)[0], said.most_common(1)[0]
        return cls(
            balanced_accuracy=balanced,
            macro_f1=sum(f1) / k,
            low=balanced - ONE_SIDED * error,
            chance=1 / k,
            majority=majority[0],
            majority_share=majority[1] / len(labels),
            top=top[0],
            top_share=top[1] / len(labels),
            missing=tuple(sorted(name for name in sizes if not said[name])),
        )

    @property
    def is_guessing(self) -> bool:
        """Whether balanced accuracy is not above chance, as far as these samples can tell."""
        return self.low <= self.chance

    @property
    def collapse(self) -> str:
        """What the predictions have become, in words."""
        if self.top_share >= CONSTANT:
            return f"collapsed to {self.top!r}" if self.top else "collapsed to no answer"
        return "no better than guessing"

    def __str__(self) -> str:
        parts = [
            f"balanced accuracy {100 * self.balanced_accuracy:.1f} (guessing {100 * self.chance:.1f})",
            f"macro F1 {100 * self.macro_f1:.1f}",
            f"{100 * self.top_share:.0f}% of "
            + (f"predictions are {self.top!r}" if self.top else "answers could not be parsed"),
        ]
        if self.missing:
            more = f" and {len(self.missing) - SHOWN} more" if len(self.missing) > SHOWN else ""
            parts.append(f"never predicted: {', '.join(self.missing[:SHOWN])}{more}")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A task before and after, on the same samples.

    Attributes:
        score: the compared score, such as accuracy.
        first, second: ids of the runs before and after.
        before, after: the scores.
        paired: after minus before.
        p_adjusted: its p, corrected (Holm) over the rows of a table; None for a single row.
        spread: how the answers are spread over the classes before and after; None without classes.
        classes: the classes that the samples are restricted to, if any.
    """

    task: str
    score: str
    first: str
    second: str
    before: float
    after: float
    paired: Paired
    p_adjusted: float | None = None
    spread: tuple[ClassSpread, ClassSpread] | None = None
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
        """``better``, ``worse``, ``no difference shown``, or ``collapsed``: more points than before, but a
        constant or a random answer would do as well.
        """
        if not self.paired.real(self.p_adjusted):
            return "no difference shown"
        if self.paired.difference.value < 0:
            return "worse"
        return "collapsed" if self.spread is not None and self.spread[1].is_guessing else "better"

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
        if self.verdict == "collapsed":
            assert self.spread is not None
            return self.spread[1].collapse
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
            **({} if self.p_adjusted is None else {"p_adjusted": self.p_adjusted}),
            **({} if self.spread is None else {"spread": [asdict(one) for one in self.spread]}),
            **({"classes": list(self.classes)} if self.classes else {}),
        }


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """A task's score after training with several seeds.

    Attributes:
        scores: one for each seed.
    """

    task: str
    scores: tuple[float, ...]

    def __str__(self) -> str:
        mean, spread = fmean(self.scores), stdev(self.scores)
        return (
            f"{self.task}, over {len(self.scores)} seeds: {100 * mean:.1f}% (standard deviation "
            f"{100 * spread:.1f} points, from {100 * min(self.scores):.1f} to {100 * max(self.scores):.1f})"
        )


@dataclass(frozen=True, kw_only=True)
class TunedModel:
    """The result of fine-tuning.

    Attributes:
        model: the name to evaluate it or chat with it by.
        results: before and after on the same samples, one per task.
        weakest: the same for the third of classes with the lowest recall on held-out images.
        notes: for the user.
        seeds: of each task, the scores with several seeds; empty for one.
        deployments: how to serve it, for each server that it was exported for.
    """

    model: str
    folder: Path
    results: tuple[Result, ...]
    weakest: Result | None
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    seeds: tuple[SeedSpread, ...] = ()
    deployments: tuple[Deployment, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "model": self.model,
            "folder": str(self.folder),
            "results": [result.as_dict() for result in self.results],
            "weakest": None if self.weakest is None else self.weakest.as_dict(),
            **self.facts,
            "notes": list(self.notes),
            "seeds": [{"task": spread.task, "scores": list(spread.scores)} for spread in self.seeds],
            "deployments": [asdict(deployment) for deployment in self.deployments],
        }


def result_of(before: Run, after: Run) -> Result:
    """Compare two runs on the same samples, possibly under two protocols (a head ranks names that the
    model generated).
    """
    (comparison,) = compare([after, before], across=True)
    asked, now = (run.manifest.protocol.name for run in (before, after))
    title = f"{after.data}, {asked}" + (f" → {now}" if now != asked else "")
    scores = [float(run.metrics[run.primary].value) for run in (before, after)]
    spread = [_spread(run) for run in (before, after)] if before.classifies and after.classifies else []
    return Result(
        task=title,
        score=comparison.score,
        first=before.id,
        second=after.id,
        before=scores[0],
        after=scores[1],
        paired=comparison.result,
        spread=(spread[0], spread[1]) if spread and spread[0] and spread[1] else None,
    )


def _spread(run: Run) -> ClassSpread | None:
    frame = run.outcomes
    frame = frame[frame["label"].notna()]
    return ClassSpread.of(frame["label"].tolist(), frame["prediction"].tolist())


def corrected(results: Sequence[Result]) -> list[Result]:
    """Return the rows of a table with their p-values corrected for their number (Holm)."""
    if len(results) < 2:
        return list(results)
    adjusted = holm([result.paired.p for result in results])
    return [replace(result, p_adjusted=p) for result, p in zip(results, adjusted, strict=True)]


def remarks(results: Sequence[Result]) -> Iterator[str]:
    """Yield what accuracy alone does not tell about the classes, and what to try after a collapse."""
    for result in results:
        if result.spread is None:
            continue
        before, after = result.spread
        yield (
            f"{result.task}: always answering {after.majority!r} reaches {100 * after.majority_share:.1f}% "
            f"accuracy. Before: {before}. After: {after}."
        )
        if result.verdict == "collapsed":
            yield (
                "The model answers alike whatever it sees. Try longer training (-T max_steps=N), a recipe "
                "that trains more (--train-parts vision,projector,decoder, or --recipe full), more images of "
                "rare classes, larger images, or another model."
            )


def still_falling(log: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a note if the held-out loss of the last stage fell until the end, so that it was cut short.

    Learning rates fall to zero, and a loss levels off with them; one that loses a tenth in the last third of
    the steps had more to learn.
    """
    rows = [row for row in [*log.values()][-1] if "eval_loss" in row] if log else []
    if len(rows) < SEEN or not rows[-1].get("step"):
        return []
    steps, end = rows[-1]["step"], rows[-1]["eval_loss"]
    total = sum(max(row.get("step", 0) for row in stage) for stage in log.values() if stage)
    before = [row["eval_loss"] for row in rows if row["step"] <= 2 * steps / 3][-1]
    if not end < FELL * before or end < LEARNED:
        return []
    return [
        f"The held-out loss was still falling at the end (from {before:.2f} at two thirds of the steps to "
        f"{end:.2f}), so training for longer may help: -T max_steps={3 * total}"
    ]


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
    many = f"the {len(classes)} classes" if len(classes) > 1 else "the class"
    title = f"{many} with the lowest recall before"
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
