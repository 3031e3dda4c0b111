"""Do fewer candidate names narrow the gap?"""

from __future__ import annotations

from dataclasses import replace

from snellen.diagnosis.analysis import (
    Analysis,
    Finding,
    ResultTable,
    Subject,
    estimate_of,
    points,
    undecided,
    unreadable,
    with_ci,
)
from snellen.errors import UsageError
from snellen.metrics.stats import Paired, paired
from snellen.metrics.summary import cluster_of
from snellen.reports.charts import ChartPoint, curves
from snellen.runs.run import Run

#: The label-set sizes of the study, and of the vendor's sweep.
SIZES = (2, 5, 10, 20, 25, 50, 75, 100, 150, 200)


class Sweep(Analysis):
    """Accuracy against the number of candidates: the right name and nested random subsets of the others.

    Source: Zhang et al., arXiv 2405.18415, "label set size".
    """

    name, order = "sweep", 20

    def run(self, case: Subject) -> Finding:
        """One run per number, of the model and the references; and runs on the images of N classes only."""
        total = len(case.labels)
        sizes = [*(n for n in SIZES if n < total), total]
        lines: dict[str, dict[int, Run]] = {case.model: {n: self._run(case, n, total) for n in sizes}}
        for name in case.references:
            try:
                lines[name] = {
                    n: case.run(f"rank?candidates={n}" if n < total else "rank", model=name) for n in sizes
                }
            except UsageError as error:
                case.missing[name] = str(error)
        drawn = {name: [_point(n, run) for n, run in runs.items()] for name, runs in lines.items()}
        drawn["guessing"] = [ChartPoint(x=n, y=100 / n, name="") for n in sizes]
        fewer = {
            n: case.run("closed-set?rounds=1", filters=replace(case.filters, num_classes=n))
            for n in sizes[:-1]
        }
        rows = [
            (
                str(n),
                *(with_ci(estimate_of(runs[n])) for runs in lines.values()),
                f"{100 / n:.1f}%",
                f"{with_ci(estimate_of(fewer[n]))} of {fewer[n].metrics.n}" if n in fewer else "–",
            )
            for n in sizes
        ]
        table = ResultTable(
            ("candidates", *lines, "chance", "images of that many classes only"),
            tuple(rows),
            "The right name and random others; smaller sets of candidates are subsets of larger ones. "
            "The last column uses only the images of that many classes, with these classes as candidates.",
        )
        verdict, shows = self._verdict(case, lines, sizes)
        chart = curves(drawn, x="number of candidate class names", y="accuracy %")
        figures = {
            name: {n: estimate_of(run).as_dict() for n, run in runs.items()} for name, runs in lines.items()
        }
        figures["classes alone"] = {n: estimate_of(run).as_dict() for n, run in fewer.items()}
        ids = tuple(run.id for runs in (*lines.values(), fewer) for run in runs.values())
        charts = () if chart is None else ({"kind": "curves", **chart},)
        return Finding(
            part=self.name,
            title="Fewer names",
            verdict=verdict,
            tables=(table,),
            charts=charts,
            figures=figures,
            runs=ids,
            shows=shows,
        )

    def _run(self, case: Subject, n: int, total: int) -> Run:
        return case.closed if n == total else case.run(f"closed-set?rounds=1&candidates={n}")

    def _verdict(
        self, case: Subject, lines: dict[str, dict[int, Run]], sizes: list[int]
    ) -> tuple[str, bool | None]:
        few, all_ = sizes[0], sizes[-1]
        line = lines[case.model]
        begun = (
            f"With {few} candidates it reaches {with_ci(estimate_of(line[few]))}, "
            f"with all {all_} it reaches {with_ci(estimate_of(line[all_]))}."
        )
        others = [name for name in lines if name != case.model]
        if not others:
            return begun, None
        best = max(others, key=lambda name: estimate_of(lines[name][all_]).value)
        gaps = {n: case.difference(lines[best][n], line[n]) for n in (few, all_)}
        small, large = (100 * gaps[n].result.difference.value for n in (few, all_))
        change = _change(lines[best], line, few, all_)
        if why := case.undecidable or unreadable(line[few], f"{{}} answers to {few} candidates"):
            return f"{begun} About the gap to {best}, {why}.", None
        narrower = change.difference.value < 0 if change.real() else None
        what = {
            True: "fewer candidates narrow the gap"
            + ("" if gaps[few].real else ", until no significant gap is left"),
            False: "fewer candidates widen the gap",
            None: f"whether fewer candidates narrow the gap: {undecided(change)}",
        }[narrower]
        return (
            f"{begun} {best} is ahead by {small:+.1f} and {large:+.1f} points, a change of "
            f"{points(change.difference)}; guessing alone rises from {100 / all_:.1f}% to {100 / few:.1f}%: "
            f"{what}."
        ), narrower


def _change(ahead: dict[int, Run], first: dict[int, Run], few: int, all_: int) -> Paired:
    """The lead with few names minus the lead with all, on the same images."""
    marks: dict[int, dict[str, float]] = {}
    clusters: dict[str, int] = {}
    for n in (few, all_):
        right = [
            {row["id"]: float(row["prediction"] == row["label"]) for row in run.findings()}
            for run in (ahead[n], first[n])
        ]
        marks[n] = {id: value - right[1][id] for id, value in right[0].items() if id in right[1]}
    for row in first[all_].findings():
        clusters[row["id"]] = cluster_of(row["images"], row["id"])
    ids = [id for id in marks[all_] if id in marks[few]]
    return paired(
        [marks[few][id] for id in ids], [marks[all_][id] for id in ids], [clusters[id] for id in ids]
    )


def _point(n: int, run: Run) -> ChartPoint:
    figure = estimate_of(run)
    return ChartPoint(x=n, y=100 * figure.value, name="", low=100 * figure.low, high=100 * figure.high)


PART = Sweep()
