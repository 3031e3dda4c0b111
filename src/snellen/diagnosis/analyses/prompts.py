"""Does the prompt's wording matter?"""

from __future__ import annotations

from statistics import pstdev
from urllib.parse import quote

from snellen.diagnosis.analysis import (
    Analysis,
    Finding,
    ResultTable,
    Subject,
    estimate_of,
    little,
    understood,
    with_ci,
)
from snellen.prompts import OPEN_WORLD


class Prompts(Analysis):
    """The study's four wordings and your own, compared with the spread expected from sampling images.

    Source: Zhang et al., arXiv 2405.18415, "prompt variation".
    """

    name, order = "prompts", 30

    def run(self, case: Subject) -> Finding:
        """One open-world run per wording."""
        wordings = list(dict.fromkeys([*OPEN_WORLD, *case.prompts]))
        runs = {text: case.run(f"open-world?prompt={quote(text, safe=' ?.,')}") for text in wordings}
        rates = {text: estimate_of(run) for text, run in runs.items()}
        values = [100 * rate.value for rate in rates.values()]
        spread, half = pstdev(values), max(50 * (rate.high - rate.low) for rate in rates.values())
        pairs = [(a, b) for i, a in enumerate(wordings) for b in wordings[i + 1 :]]
        gaps = {pair: case.difference(runs[pair[0]], runs[pair[1]]).result for pair in pairs}
        apart = [pair for pair, gap in gaps.items() if gap.p * len(pairs) < 0.05]
        each = [little(gap.difference, real=pair in apart) for pair, gap in gaps.items()]
        shows = None if case.guesses else False if False in each else True if all(each) else None
        verdict = (
            f"Over {len(wordings)} wordings, accuracy ranges from {min(values):.1f}% to {max(values):.1f}% "
            f"(standard deviation {spread:.1f} points; sampling error alone is ± {half:.1f}): the "
            "wording "
            + {
                True: "matters little.",
                False: f"matters ({len(apart)} of {len(pairs)} pairs differ significantly).",
                None: "has no significant effect on these images.",
            }[shows]
        )
        rows = tuple(
            (text, with_ci(rates[text]), understood(run))
            for text, run in sorted(runs.items(), key=lambda item: -rates[item[0]].value)
        )
        note = "Prompts do not list the classes. Pairs are compared by McNemar's test (Bonferroni)."
        table = ResultTable(("wording", "accuracy (95%)", "parsed"), rows, note)
        figures = {
            "accuracy": {text: rate.as_dict() for text, rate in rates.items()},
            "standard_deviation": spread / 100,
            "pairs_parted": len(apart),
        }
        ids = tuple(run.id for run in runs.values())
        return Finding(
            part=self.name,
            title="Wordings",
            verdict=verdict,
            tables=(table,),
            figures=figures,
            runs=ids,
            shows=shows,
        )


PART = Prompts()
