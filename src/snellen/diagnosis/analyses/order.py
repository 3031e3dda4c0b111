"""Does the position of the right name in the list matter?"""

from __future__ import annotations

from collections import Counter

from snellen.diagnosis.analysis import (
    Analysis,
    Finding,
    ResultTable,
    Subject,
    estimate_of,
    little,
    points,
    with_ci,
)
from snellen.metrics.stats import wilson
from snellen.protocols.base import shuffled
from snellen.types import Sample

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
        apart = worst.high < best.low
        shows = False if apart else None if case.guesses else little(gap.result.difference, real=gap.real)
        verdict = (
            f"Shuffling the names changes accuracy by {points(gap.result.difference)}. By "
            f"position of the true name, accuracy ranges from {with_ci(worst)} to {with_ci(best)}. A vote "
            "over "
            f"{ROUNDS} rounds reaches {with_ci(estimate_of(voted))}, against "
            f"{with_ci(estimate_of(case.closed))} for one. Order "
            + {
                True: "matters little.",
                False: "matters here.",
                None: "has no significant effect on these images.",
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


PART = Order()
