"""Does the position of the right name in the list matter?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from snellen.diagnosis.analysis import (
    Analysis,
    Finding,
    ResultTable,
    Subject,
    estimate_of,
    little,
    points,
    undecided,
    with_ci,
)
from snellen.metrics.stats import wilson
from snellen.protocols.base import shuffled
from snellen.types import Sample

#: Order matters little only if the accuracy at each position is known to within this.
PLACES = 0.1
#: Sections of the list to group positions by, and rounds of the vote.
PARTS, ROUNDS = 5, 5


class Order(Analysis):
    """Fixed against shuffled lists, accuracy by the position of the true name, and the gain from voting over
    rounds.

    Source: Zhang et al., arXiv 2405.18415, "label order"; the vote follows the vendor's study.
    """

    name, order = "order", 40

    def run(self, case: Subject) -> Finding:
        """One run with fixed order, and one with five shuffled rounds."""
        # Long: it measures, and puts the result into words.
        fixed = case.run("closed-set?rounds=1&order=fixed")
        voted = case.run(f"closed-set?rounds={ROUNDS}")
        gap = case.difference(case.closed, fixed)
        asked: Counter[int] = Counter()
        right: Counter[int] = Counter()
        wins: Counter[int] = Counter()
        agree = [0.0] * (ROUNDS + 1)
        rows = list(voted.findings())
        options = voted.manifest.protocol.options
        for row in rows:
            votes = row["details"].get("votes", [None] * ROUNDS)
            names = shuffled(case.labels, options["seed"], Sample(row["id"]), 0)
            place = PARTS * names.index(row["label"]) // len(names)
            asked[place] += 1
            right[place] += votes[0] == row["label"]
            for rounds in range(1, ROUNDS + 1):
                cast = Counter(vote for vote in votes[:rounds] if vote is not None)
                top = cast.most_common(1)
                wins[rounds] += bool(top) and top[0][0] == row["label"]
                agree[rounds] += (top[0][1] / rounds if top else 0.0) / len(rows)
        by_place = [wilson(right[p], asked[p]) for p in range(PARTS) if asked[p]]
        worst, best = min(by_place, key=lambda e: e.value), max(by_place, key=lambda e: e.value)
        cells = [(right[p], asked[p] - right[p]) for p in range(PARTS) if asked[p]]
        p = differ(cells)
        wide = max(place.high - place.low for place in by_place) / 2
        effect = little(gap.result.difference, real=gap.real)
        matters = p < 0.05 or effect is False
        # The same on average is not enough: places could differ.
        shows = False if matters else True if effect and wide <= PLACES else None
        if case.undecidable:
            shows = None
        verdict = (
            f"Shuffling the names changes accuracy by {points(gap.result.difference)}. By "
            f"position of the true name, accuracy ranges from {with_ci(worst)} to {with_ci(best)} "
            f"(chi-squared test: p = {p:.2g}). A vote "
            "over "
            f"{ROUNDS} rounds reaches {with_ci(estimate_of(voted))}, against "
            f"{with_ci(estimate_of(case.closed))} for one. "
            + {
                True: "Order matters little: within 5 points.",
                False: "Order matters here.",
                None: f"About order, {case.undecidable}."
                if case.undecidable
                else "On average order matters little, within 5 points; there are not enough images to tell "
                f"of each position, whose accuracy is known to ± {100 * wide:.0f} points."
                if effect
                else f"Whether order matters: {undecided(gap.result)}, and each position's accuracy is known "
                f"to ± {100 * wide:.0f} points.",
            }[shows]
        )
        places = ResultTable(
            ("position of the true name", "accuracy of the first round", "samples"),
            tuple(
                (f"fifth {p + 1} of the list", with_ci(wilson(right[p], asked[p])), str(asked[p]))
                for p in range(PARTS)
                if asked[p]
            ),
        )
        rounds_ = ResultTable(
            ("rounds", "accuracy of the vote", "agreement of votes"),
            tuple(
                (str(r), with_ci(wilson(wins[r], len(rows))), f"{100 * agree[r]:.1f}%")
                for r in range(1, ROUNDS + 1)
            ),
            "Ties go to the name that was answered first.",
        )
        figures = {
            "shuffled_less_fixed": gap.result.difference.as_dict(),
            "p_places": p,
            "by_place": [e.as_dict() for e in by_place],
            "by_rounds": {r: wins[r] / len(rows) for r in range(1, ROUNDS + 1)},
        }
        ids = (fixed.id, voted.id, case.closed.id)
        return Finding(
            part=self.name,
            title="Order of names",
            verdict=verdict,
            tables=(places, rounds_),
            figures=figures,
            runs=ids,
            shows=shows,
        )


def differ(cells: Sequence[tuple[int, int]]) -> float:
    """Return p of Pearson's chi-squared test that rows of (right, wrong) share one accuracy.

    >>> differ([(5, 5), (10, 10)]), differ([(10, 0), (10, 0)])
    (1.0, 1.0)
    """
    from scipy.stats import chi2_contingency

    if len(cells) < 2 or any(sum(cell[k] for cell in cells) == 0 for k in (0, 1)):
        return 1.0
    return float(chi2_contingency(cells, correction=False).pvalue)


PART = Order()
