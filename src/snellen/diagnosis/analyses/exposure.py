"""Are classes that occur more often in the training data recognized better?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

from snellen.diagnosis.analysis import Analysis, Finding, ResultTable, Skipped, Subject
from snellen.diagnosis.exposure_counts import TrainingText, count, texts
from snellen.metrics.classification import per_class
from snellen.metrics.stats import LEVEL
from snellen.reports.charts import ChartPoint, scatter
from snellen.reports.tables import pairs

#: The study's exposure bins.
BINS = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 1000, 10_000, 100_000)
REPLICATES = 2000


class Exposure(Analysis):
    """How often each class name occurs in the training data, against its recall.

    Source: Zhang et al., arXiv 2405.18415, "data": class exposure and accuracy.
    """

    name, order = "exposure", 80

    def run(self, case: Subject) -> Finding:
        """Count, correlate and bin."""
        # Long: it measures, and puts the result into words.
        lines, source = self._lines(case)
        known = {label: case.selection.data.synonyms.get(label, ()) for label in case.labels}
        counted = count(known, lines)
        total = counted.texts
        truth, said = pairs(case.closed.outcomes)
        recall = {
            row["class"]: (row["recall"], row["support"]) for row in per_class(truth, said) if row["support"]
        }
        rows = [(name, counted.answers[name], *recall[name]) for name in case.labels if name in recall]
        if len(rows) < 4 or len({n for _, n, _, _ in rows}) < 2:
            raise Skipped(
                f"too few classes ({len(rows)}) or different counts ({len({n for _, n, _, _ in rows})})"
            )
        if len({r for _, _, r, _ in rows}) < 2:
            raise Skipped("all classes have the same recall, so there is nothing to explain")
        spearman, pearson = _correlations([n for _, n, _, _ in rows], [r for _, _, r, _ in rows])
        shows = True if spearman[1] > 0 else False if spearman[2] < 0 else None
        verdict = (
            f"Over {len(rows)} classes and {total:,} texts ({source}), exposure in answers and recall have a "
            f"Spearman correlation of {spearman[0]:.2f} ({spearman[1]:.2f} to {spearman[2]:.2f}): "
            + (
                "classes seen more often are recognized better."
                if shows
                else "no significant correlation on these images."
            )
        )
        bins = []
        for low, high in zip(BINS, (*BINS[1:], math.inf), strict=True):
            some = [(r, s) for _, n, r, s in rows if low <= n < high]
            if some:
                mean = sum(r * s for r, s in some) / sum(s for _, s in some)
                name = f"{low:,}–{high - 1:,}" if high < math.inf else f"{low:,} and more"
                bins.append((name, str(len(some)), f"{100 * mean:.1f}%"))
        below = _below(rows)
        tables = (
            ResultTable(
                ("texts whose answers name the class", "classes", "recall"),
                tuple(bins),
                "Bins as in the study.",
            ),
            ResultTable(
                ("class", "in answers", "in prompts", "recall", "expected"),
                tuple(
                    (name, f"{n:,}", f"{counted.prompts[name]:,}", f"{100 * r:.0f}%", f"{100 * e:.0f}%")
                    for name, n, r, e in below[:10]
                ),
                "Classes furthest below the recall expected from exposure (a linear fit of recall on log "
                "exposure).",
            ),
        )
        chart = scatter(
            [ChartPoint(x=n + 1, y=100 * r, name=f"{name} ({n:,})") for name, n, r, _ in rows],
            x="texts whose answers name the class, plus one",
            y="recall %",
            pareto_line=False,
        )
        figures = {
            "counts": {name: n for name, n, _, _ in rows},
            "prompt_counts": {name: counted.prompts[name] for name, _, _, _ in rows},
            "texts": total,
            "spearman": dict(zip(("value", "low", "high"), spearman, strict=True)),
            "pearson_of_log": dict(zip(("value", "low", "high"), pearson, strict=True)),
        }
        charts = () if chart is None else ({"kind": "scatter", **chart},)
        about = (
            f"Pearson's correlation with log(1 + exposure) is {pearson[0]:.2f} ({pearson[1]:.2f} to "
            f"{pearson[2]:.2f}); intervals over classes. Correlation is not causation: rare classes may be "
            "harder."
        )
        return Finding(
            part=self.name,
            title="Exposure",
            verdict=verdict,
            about=about,
            tables=tables,
            charts=charts,
            figures=figures,
            runs=(case.closed.id,),
            shows=shows,
        )

    def _lines(self, case: Subject) -> tuple[Iterator[TrainingText], str]:
        if case.captions:
            return chain.from_iterable(map(texts, case.captions)), ", ".join(p.name for p in case.captions)
        if case.model.startswith("pico:llava"):
            return _pico(skewed="skewed" in case.model), "its training examples with images"
        raise Skipped("the model's training data is unknown. Provide its captions: --captions FILE")


def _pico(*, skewed: bool) -> Iterator[TrainingText]:
    """Yield the questions and answers about images that a built-in LLaVA was trained on."""
    from snellen.pico_recipe.curriculum import training_figures
    from snellen.pico_recipe.train import stages

    for page in stages(training_figures(skewed, 0), 0, skewed, "answer"):
        for lesson in page:
            yield TrainingText(lesson.answer, lesson.question)


def _correlations(
    exposure: list[int], recall: list[float]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Compute Spearman's correlation, and Pearson's with log(1 + exposure), with bootstrap intervals over
    classes.
    """
    import numpy as np
    from scipy.stats import rankdata

    x, y = np.log1p(exposure), np.asarray(recall)
    rng = np.random.default_rng(0)

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else math.nan

    rows = []
    for of in (rankdata, np.asarray):
        value = correlation(of(x), of(y))
        drawn = []
        for _ in range(REPLICATES):
            pick = rng.integers(len(x), size=len(x))
            drawn.append(correlation(of(x[pick]), of(y[pick])))
        low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        rows.append((value, float(low), float(high)))
    return rows[0], rows[1]


def _below(rows: list[tuple[str, int, float, int]]) -> list[tuple[str, int, float, float]]:
    """Return classes with their expected recall, the furthest below it first."""
    import numpy as np

    x, y = np.log1p([n for _, n, _, _ in rows]), np.array([r for _, _, r, _ in rows])
    slope, start = np.polyfit(x, y, 1)
    expected = np.clip(start + slope * x, 0, 1)
    residuals = [(name, n, r, float(e)) for (name, n, r, _), e in zip(rows, expected, strict=True)]
    return sorted(residuals, key=lambda row: row[2] - row[3])


PART = Exposure()
