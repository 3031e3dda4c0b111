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
    points,
    undecided,
    understood,
    with_ci,
)
from snellen.metrics.stats import holm
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
        spread = pstdev(values)
        pairs = [(a, b) for i, a in enumerate(wordings) for b in wordings[i + 1 :]]
        gaps = {pair: case.difference(runs[pair[0]], runs[pair[1]]).result for pair in pairs}
        adjusted = dict(zip(gaps, holm([gap.p for gap in gaps.values()]), strict=True))
        apart = [pair for pair, gap in gaps.items() if gap.real(adjusted[pair])]
        widest = max(gaps.values(), key=lambda gap: abs(gap.difference.value))
        each = [little(gap.difference, real=pair in apart) for pair, gap in gaps.items()]
        shows = None if case.undecidable else False if False in each else True if all(each) else None
        verdict = (
            f"Over {len(wordings)} wordings, accuracy ranges from {min(values):.1f}% to {max(values):.1f}%; "
            f"the widest difference on the same images is {points(widest.difference)}: "
            + {
                True: "the wording matters little: all pairs lie within 5 points.",
                False: f"the wording matters ({len(apart)} of {len(pairs)} pairs differ significantly).",
                None: f"{case.undecidable}."
                if case.undecidable
                else f"whether the wording matters: {undecided(widest)}.",
            }[shows]
        )
        rows = tuple(
            (text, with_ci(rates[text]), understood(run))
            for text, run in sorted(runs.items(), key=lambda item: -rates[item[0]].value)
        )
        note = "Prompts do not list the classes. Pairs are compared by McNemar's test (Holm)."
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
