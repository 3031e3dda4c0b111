"""What is taken for what?"""

from __future__ import annotations

from snellen.diagnose.part import Case, Finding, Part, Table
from snellen.metrics.classification import Confusion, per_class
from snellen.report.tables import pairs

MOST = 15


class Confusions(Part):
    """The pairs that are confused most, and whether in both directions; the classes that are found least."""

    name, order = "confusions", 90

    def examine(self, case: Case) -> Finding:
        """From the closed-set run."""
        truth, said = pairs(case.closed.outcomes)
        wrong = sum(t != s and s != "" for t, s in zip(truth, said, strict=True))
        unread = sum(s == "" for s in said)
        found = Confusion.of(truth, said).confused(MOST)
        known = {(t, s): n for t, s, n in Confusion.of(truth, said).confused(10**6)}
        rows = tuple((t, s or "(nothing)", str(n), str(known.get((s, t), 0))) for t, s, n in found)
        worst = sorted(per_class(truth, said), key=lambda row: (row["recall"], row["class"]))[:MOST]
        within = sum(n for t, s, n in found[:5] if s)
        verdict = (
            f"{wrong} of {len(truth)} images are taken for another class and {unread} for none; the five "
            f"most frequent confusions make {within} of them. Found least: "
            + ", ".join(f"{row['class']} ({100 * row['recall']:.0f} %)" for row in worst[:3])
            + "."
        )
        tables = (
            Table(("truth", "taken for", "times", "the other way round"), rows),
            Table(
                ("class", "recall", "samples"),
                tuple((row["class"], f"{100 * row['recall']:.0f} %", str(row["support"])) for row in worst),
            ),
        )
        figures = {"confused": [list(row) for row in found], "wrong": wrong, "unread": unread}
        return Finding(self.name, "Confusions", verdict, "", tables, (), figures, (case.closed.id,))


PART = Confusions()
