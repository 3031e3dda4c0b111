"""Which classes are confused?"""

from __future__ import annotations

from itertools import combinations

from snellen.diagnosis.analysis import Analysis, Finding, ResultTable, Subject
from snellen.metrics.classification import Confusion, per_class
from snellen.parsing import tokens
from snellen.reports.tables import pairs

MOST = 15


def siblings(first: str, other: str) -> bool:
    """Return whether two names share a word, as related classes often do, for lack of a class hierarchy.

    >>> siblings("polar bear", "Brown bears"), siblings("polar bear", "teddy-bear"), siblings("cat", "dog")
    (False, True, False)
    """
    return bool(set(tokens(first)) & set(tokens(other)))


class Confusions(Analysis):
    """The most confused pairs, whether they are confused in both directions and share a word; and the
    classes with the lowest recall.
    """

    name, order = "confusions", 90

    def run(self, case: Subject) -> Finding:
        """From the closed-set run."""
        truth, said = pairs(case.closed.outcomes)
        wrong = sum(t != s and s != "" for t, s in zip(truth, said, strict=True))
        unread = sum(s == "" for s in said)
        confused = Confusion.of(truth, said).confused(MOST)
        known = {(t, s): n for t, s, n in Confusion.of(truth, said).confused(10**6)}
        sorts = any(siblings(a, b) for a, b in combinations(case.labels, 2))
        rows = tuple(
            (t, s or "(nothing)", str(n), str(known.get((s, t), 0)))
            + (("yes" if siblings(t, s) else "no",) if sorts else ())
            for t, s, n in confused
        )
        kin = sum(n for (t, s), n in known.items() if siblings(t, s))
        worst = sorted(per_class(truth, said), key=lambda row: (row["recall"], row["class"]))[:MOST]
        within = sum(n for t, s, n in confused[:5] if s)
        verdict = (
            f"{wrong} of {len(truth)} images are assigned to a wrong class and {unread} to none; the five "
            f"most frequent confusions account for {within} of them"
            + (f", and {kin} are between classes whose names share a word. " if sorts else ". ")
            + "Lowest recall: "
            + ", ".join(f"{row['class']} ({100 * row['recall']:.0f}%)" for row in worst[:3])
            + "."
        )
        tables = (
            ResultTable(
                (
                    "true class",
                    "predicted class",
                    "count",
                    "reverse count",
                    *(["share a word"] if sorts else []),
                ),
                rows,
            ),
            ResultTable(
                ("class", "recall", "samples"),
                tuple((row["class"], f"{100 * row['recall']:.0f}%", str(row["support"])) for row in worst),
            ),
        )
        figures = {
            "confused": [list(row) for row in confused],
            "wrong": wrong,
            "unread": unread,
            "siblings": kin if sorts else None,
        }
        return Finding(
            part=self.name,
            title="Confusions",
            verdict=verdict,
            tables=tables,
            figures=figures,
            runs=(case.closed.id,),
        )


PART = Confusions()
