"""Compare runs on the samples that they share: is the difference significant?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from snellen._util.words import counted
from snellen.errors import UsageError
from snellen.metrics.stats import Paired, holm, paired
from snellen.metrics.summary import cluster_of

if TYPE_CHECKING:
    import pandas as pd

    from snellen.runs.run import Run

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs on their shared samples.

    Attributes:
        first, second: run ids.
        result: see :class:`snellen.metrics.stats.Paired`.
        p_adjusted: p after Holm's correction over all pairs compared together.
        left_out: samples that only one of the two has.
        score: the compared score ("accuracy", or another protocol's score).
        classes: each class with its difference in recall and its number of samples, largest difference first.
        unfinished: what is missing of runs that are not finished, in words.
        raced: whether a race ended one of them by what it had seen, so that its interval and p do not hold.
        software: what software differs that can change answers, in words.
        disagreements: ids of samples that exactly one got right, or on which one scored higher, with the
            reference and both predictions.
    """

    first: str
    second: str
    result: Paired
    p_adjusted: float
    left_out: int
    classes: list[tuple[str, float, int]]
    disagreements: list[dict[str, Any]]
    score: str = "accuracy"
    unfinished: tuple[str, ...] = ()
    raced: bool = False
    software: tuple[str, ...] = ()

    @property
    def real(self) -> bool:
        """Whether the difference is significant at the 5% level, adjusted for all pairs; never after a race,
        which has its own evidence.
        """
        return not self.raced and self.result.real(self.p_adjusted)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "first": self.first,
            "second": self.second,
            **self.result.as_dict(),
            "p_adjusted": self.p_adjusted,
            "real": self.real,
            "score": self.score,
            "left_out": self.left_out,
            "unfinished": list(self.unfinished),
            "raced": self.raced,
            "software": list(self.software),
            "classes": [
                {"class": name, "difference": difference, "samples": count}
                for name, difference, count in self.classes
            ],
            "disagreements": self.disagreements,
        }


def compare(runs: Iterable[Run], *, across: bool = False) -> list[Comparison]:
    """Compare every pair of runs on their shared samples, matched by id.

    Args:
        across: also compare runs with different protocols, prompts or protocol options.

    Raises:
        UsageError: fewer than two runs; a run without results, or without references; a shared id with a
            different image or reference; different candidate class names; no shared samples; or different
            protocol options, unless ``across``.
    """
    runs = list(runs)
    if len(runs) < 2:
        raise UsageError("A comparison needs at least two runs. List them with: snellen ls runs")
    frames = {run.id: _frame(run) for run in runs}
    pairs = list(combinations(runs, 2))
    results = []
    for first, other in pairs:
        _refuse_mismatch(first, other, across)
        classes = first.classifies and other.classifies
        results.append(_pair(first.id, other.id, frames[first.id], frames[other.id], of_classes=classes))
    adjusted = holm([result.p for result, *_ in results])
    return [
        Comparison(
            first=first.id,
            second=other.id,
            result=result,
            p_adjusted=p,
            left_out=left_out,
            classes=classes,
            disagreements=disagreements,
            score=first.primary,
            unfinished=tuple(
                f"{run.id} is {run.status} at {run.metrics.n} of {run.manifest.data.n} samples"
                + (
                    " by a race, so that intervals for a fixed number do not hold"
                    if run.manifest.raced
                    else ""
                )
                for run in (first, other)
                if run.status != "finished"
            ),
            raced=first.manifest.raced or other.manifest.raced,
            software=tuple(_software(first, other)),
        )
        for (first, other), (result, left_out, classes, disagreements), p in zip(
            pairs, results, adjusted, strict=True
        )
    ]


def _software(first: Run, other: Run) -> Iterator[str]:
    """Yield what read the images, or ran the models, in another way."""
    a, b = (run.manifest.model.identity for run in (first, other))
    for name in ("transformers", "pixels"):
        if name in a and name in b and a[name] != b[name]:
            what = "resized images" if name == "pixels" else "ran"
            say = (v if name == "pixels" else f"transformers {v}" for v in (a[name], b[name]))
            yield f"{first.id} {what} with {next(say)} and {other.id} with {next(say)}, which changes answers"


def _frame(run: Run) -> pd.DataFrame:
    if not run.metrics.n:
        raise UsageError(f"{run.id} has no results yet ({run.status}). Resume it with: {run.resuming}")
    frame = run.outcomes
    if run.classifies:
        if frame["label"].isna().any():
            raise UsageError(f"{run.id}: samples without a label cannot be compared by accuracy.")
        return frame.assign(right=(frame["prediction"] == frame["label"]).astype(float)).set_index("id")
    right = frame["metrics"].map(lambda scores: scores.get(run.primary))
    if right.isna().any():
        raise UsageError(
            f"{run.id}: {counted(int(right.isna().sum()), 'sample')} without the score {run.primary!r}."
        )
    return frame.assign(right=right.astype(float)).set_index("id")


def _refuse_mismatch(first: Run, other: Run, across: bool) -> None:
    a, b = first.manifest, other.manifest
    if first.primary != other.primary:
        raise UsageError(
            f"{first.id} is scored by {first.primary}, but {other.id} by {other.primary}, so "
            "they cannot be compared."
        )
    names = [set(m.data.labels) for m in (a, b)]
    if names[0] != names[1]:
        differ = ", ".join(sorted(names[0] ^ names[1])[:5])
        raise UsageError(f"{first.id} and {other.id} have different candidate class names ({differ} …).")
    if across:
        return
    if a.protocol.name != b.protocol.name:
        what = f"{a.protocol.name} and {b.protocol.name}"
    else:
        own, theirs = a.protocol.options, b.protocol.options
        what = ", ".join(key for key in own if own[key] != theirs.get(key))
    if what:
        raise UsageError(
            f"{first.id} and {other.id} have different prompts or options ({what}). To compare them "
            "anyway, add: --across"
        )


def _pair(
    first: str, second: str, a: pd.DataFrame, b: pd.DataFrame, *, of_classes: bool
) -> tuple[Paired, int, list[tuple[str, float, int]], list[dict[str, Any]]]:
    shared = a.index.intersection(b.index, sort=False)
    if not len(shared):
        raise UsageError(f"{first} and {second} share no samples (by id).")
    left_out = len(a) + len(b) - 2 * len(shared)
    a, b = a.loc[shared], b.loc[shared]
    labels = a["label"].fillna("") != b["label"].fillna("")
    other = (a["images"].map(tuple) != b["images"].map(tuple)) | labels
    if other.any():
        raise UsageError(
            f"{first} and {second}: the sample {shared[other.to_numpy()][0]!r} has a different image or "
            "label in "
            "the two runs. They were not evaluated on the same data."
        )
    clusters = [cluster_of(images, name) for name, images in zip(a.index, a["images"], strict=True)]
    result = paired(a["right"].tolist(), b["right"].tolist(), clusters)
    classes = []
    if of_classes:
        table = (a["right"] - b["right"]).groupby(a["label"]).agg(["mean", "size"])
        classes = [(str(name), float(row["mean"]), int(row["size"])) for name, row in table.iterrows()]
    classes.sort(key=lambda row: (-abs(row[1] * row[2]), row[0]))
    apart = a["right"] != b["right"]
    rows = zip(a.index[apart], a["label"][apart], a["prediction"][apart], b["prediction"][apart], strict=True)
    disagreements = [
        {"id": str(id_), "label": label, "first": said, "second": other_said}
        for id_, label, said, other_said in rows
    ]
    return result, left_out, classes, disagreements
