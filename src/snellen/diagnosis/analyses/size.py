"""Does it miss small objects?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snellen.diagnosis.analysis import Analysis, Finding, ResultTable, Skipped, Subject, with_ci
from snellen.metrics.stats import Estimate, rate

#: Groups of numeric sizes.
QUARTERS = ("the smallest quarter", "the second", "the third", "the largest quarter")


class Size(Analysis):
    """Accuracy by object size: as given in the data (``size``), by bounding box, or by the image's pixels."""

    name, order = "size", 85

    def run(self, case: Subject) -> Finding:
        """Group the samples of the closed-set run."""
        sizes, what = self._sizes(case)
        groups: dict[str, list[bool]] = {}
        for row in case.closed.findings():
            if row["id"] in sizes:
                groups.setdefault(sizes[row["id"]], []).append(row["prediction"] == row["label"])
        if len(groups) < 2:
            raise Skipped(f"all samples have the same {what}")
        accuracies = {name: rate(marks, range(len(marks))) for name, marks in groups.items()}
        order = [name for name in QUARTERS if name in accuracies] or sorted(
            accuracies, key=lambda n: -accuracies[n].value
        )
        worst, best = (
            min(accuracies, key=lambda n: accuracies[n].value),
            max(accuracies, key=lambda n: accuracies[n].value),
        )
        apart = _apart(accuracies[worst], accuracies[best])
        verdict = (
            f"By {what}, accuracy ranges from {with_ci(accuracies[worst])} ({worst}) to "
            f"{with_ci(accuracies[best])} ({best}): "
            + ("size matters here." if apart else "the difference is not significant on these images.")
        )
        rows = tuple((name, with_ci(accuracies[name]), str(len(groups[name]))) for name in order)
        table = ResultTable((what, "accuracy (95%)", "samples"), rows)
        figures = {name: accuracy.as_dict() for name, accuracy in accuracies.items()}
        return Finding(
            part=self.name,
            title="Size",
            verdict=verdict,
            tables=(table,),
            figures=figures,
            runs=(case.closed.id,),
        )

    def _sizes(self, case: Subject) -> tuple[dict[str, str], str]:
        """Return each sample's group, and the grouping variable."""
        samples = [(case.selection.id(i), case.selection[i]) for i in range(len(case.selection))]
        named = {id: str(s.meta["size"]) for id, s in samples if isinstance(s.meta.get("size"), str)}
        if named:
            return named, "size of the object"
        boxed = {
            id: _share(s.regions[0].box, s.images[0].size) for id, s in samples if s.regions and s.images
        }
        if boxed:
            return _quarters(boxed), "share of the image covered by the object"
        pixels = {id: float(s.images[0].size[0] * s.images[0].size[1]) for id, s in samples if s.images}
        if len(set(pixels.values())) < 2:
            raise Skipped("all images have the same size, and the data does not include object sizes")
        return _quarters(pixels), "pixels of the image"


def _apart(first: Estimate, other: Estimate) -> bool:
    return first.high < other.low


def _share(box: tuple[float, float, float, float], size: tuple[int, int]) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top) / (size[0] * size[1])


def _quarters(values: Mapping[str, Any]) -> dict[str, str]:
    """Form four groups of similar size, keeping ties together."""
    ordered = sorted(values.values())
    edges = [ordered[len(ordered) * k // 4] for k in (1, 2, 3)]
    return {id: QUARTERS[sum(value >= edge for edge in edges)] for id, value in values.items()}


PART = Size()
