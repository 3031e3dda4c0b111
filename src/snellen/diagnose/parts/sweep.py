"""Do fewer names on offer narrow the gap?"""

from __future__ import annotations

from dataclasses import replace

from snellen.diagnose.part import Case, Finding, Part, Table, estimate_of, told
from snellen.errors import UsageError
from snellen.report.charts import Point, curves
from snellen.runs import Run

#: As the study's label-set sizes, and those of the vendor's sweep.
SIZES = (2, 5, 10, 20, 25, 50, 75, 100, 150, 200)


class Sweep(Part):
    """Accuracy against the number of names on offer: the right one and random others, fewer among more.

    Source: Zhang et al., arXiv 2405.18415, "label set size".
    """

    name, order = "sweep", 20
    about = "accuracy against the number of class names offered"

    def examine(self, case: Case) -> Finding:
        """One run for each number, of the model and the references; and of the images of N classes alone."""
        whole = len(case.labels)
        sizes = [*(n for n in SIZES if n < whole), whole]
        lines: dict[str, dict[int, Run]] = {case.model: {n: self._run(case, n, whole) for n in sizes}}
        for name in case.references:
            try:
                lines[name] = {
                    n: case.run(f"rank?offer={n}" if n < whole else "rank", model=name) for n in sizes
                }
            except UsageError as error:
                case.missing[name] = str(error)
        drawn = {name: [_point(n, run) for n, run in runs.items()] for name, runs in lines.items()}
        drawn["guessing"] = [Point(n, 100 / n, "") for n in sizes]
        fewer = {
            n: case.run("closed-set?rounds=1", filters=replace(case.filters, num_classes=n))
            for n in sizes[:-1]
        }
        rows = [
            (
                str(n),
                *(told(estimate_of(runs[n])) for runs in lines.values()),
                f"{100 / n:.1f} %",
                f"{told(estimate_of(fewer[n]))} of {fewer[n].metrics['n']}" if n in fewer else "–",
            )
            for n in sizes
        ]
        table = Table(
            ("names on offer", *lines, "guessing", "images of so many classes alone"),
            tuple(rows),
            "The right name and random others, in which those of a smaller offer are among those of a larger "
            "one. The last column keeps only the images of so many classes, and offers these.",
        )
        verdict, shows = self._verdict(case, lines, sizes)
        chart = curves(drawn, x="number of class names on offer", y="accuracy %")
        figures = {
            name: {n: estimate_of(run).as_dict() for n, run in runs.items()} for name, runs in lines.items()
        }
        figures["classes alone"] = {n: estimate_of(run).as_dict() for n, run in fewer.items()}
        ids = tuple(run.id for runs in (*lines.values(), fewer) for run in runs.values())
        charts = () if chart is None else ({"kind": "curves", **chart},)
        return Finding(self.name, "Fewer names", verdict, "", (table,), charts, figures, ids, shows)

    def _run(self, case: Case, n: int, whole: int) -> Run:
        return case.closed if n == whole else case.run(f"closed-set?rounds=1&offer={n}")

    def _verdict(
        self, case: Case, lines: dict[str, dict[int, Run]], sizes: list[int]
    ) -> tuple[str, bool | None]:
        few, all_ = sizes[0], sizes[-1]
        mine = lines[case.model]
        begun = (
            f"With {few} names on offer it is right about {told(estimate_of(mine[few]))}, with all {all_} "
            f"about {told(estimate_of(mine[all_]))}."
        )
        others = [name for name in lines if name != case.model]
        if not others:
            return begun, None
        best = max(others, key=lambda name: estimate_of(lines[name][all_]).value)
        gaps = {n: case.difference(lines[best][n], mine[n]) for n in (few, all_)}
        small, large = (100 * gaps[n].result.difference.value for n in (few, all_))
        narrower = abs(small) < abs(large)
        closed = not gaps[few].real
        told_ = "fewer names narrow the gap" if narrower else "fewer names do not narrow the gap"
        end = (
            " and close it, as far as these images show"
            if narrower and closed
            else " and do not close it"
            if narrower
            else ""
        )
        return f"{begun} {best} is ahead by {small:+.1f} and {large:+.1f} points: {told_}{end}.", narrower


def _point(n: int, run: Run) -> Point:
    figure = estimate_of(run)
    return Point(n, 100 * figure.value, "", 100 * figure.low, 100 * figure.high)


PART = Sweep()
