"""Does it matter where in the list the right name stands?"""

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

#: Parts of the list that places are counted in, and rounds of the vote.
PARTS, ROUNDS = 5, 5


class Order(Analysis):
    """Fixed against shuffled lists, accuracy by the place of the true name, and what a vote over rounds adds.

    Source: Zhang et al., arXiv 2405.18415, "label order"; the vote is that of the vendor's study.
    """

    name, order = "order", 40

    def run(self, case: Subject) -> Finding:
        """A run with fixed order, and one of five shuffled rounds."""
        # Long: it measures, and words what it measured.
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
            f"Shuffled names instead of fixed ones change accuracy by {points(gap.result.difference)}; by "
            f"the place of the true name it goes from {with_ci(worst)} to {with_ci(best)}. A vote of "
            f"{ROUNDS} rounds gives {with_ci(estimate_of(voted))} after "
            f"{with_ci(estimate_of(case.closed))} for one. Order "
            + {
                True: "matters little.",
                False: "matters here.",
                None: "has no effect that these images tell.",
            }[shows]
        )
        places = ResultTable(
            ("true name stands in", "accuracy of the first round", "samples"),
            tuple(
                (f"fifth {p + 1} of the list", with_ci(wilson(right[p], asked[p])), str(asked[p]))
                for p in range(PARTS)
                if asked[p]
            ),
        )
        rounds_ = ResultTable(
            ("rounds", "accuracy of the vote", "votes that agree"),
            tuple(
                (str(r), with_ci(wilson(wins[r], len(rows))), f"{100 * agree[r]:.1f} %")
                for r in range(1, ROUNDS + 1)
            ),
            "Of equals, the name that was given first wins.",
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
