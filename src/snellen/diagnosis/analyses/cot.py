"""Does step-by-step reasoning help?"""

from __future__ import annotations

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
from snellen.runs.run import Run

#: An answer with a chain of thought has at least this many more characters.
CHAIN = 30


class ChainOfThought(Analysis):
    """The open question with and without a chain of thought, and its cost.

    Source: Zhang et al., arXiv 2405.18415, "chain of thought".
    """

    name, order = "cot", 50

    def run(self, case: Subject) -> Finding:
        """Two open-world runs."""
        plain, thought = case.run("open-world"), case.run("open-world?cot=true")
        gap = case.difference(thought, plain)
        n = plain.metrics.n
        tokens = [run.metrics.completion_tokens / n for run in (plain, thought)]
        lost = n - thought.metrics.outcomes["ok"]
        length, reasoned = (_characters(run) / n for run in (plain, thought))
        written = reasoned >= length + CHAIN
        why = case.undecidable or (
            "" if written else "nothing can be concluded, as the model wrote no chain of thought"
        )
        shows = None if why else little(gap.result.difference, real=gap.real)
        what = "helps." if gap.result.difference.value > 0 else "harms."
        verdict = (
            f"A chain of thought changes accuracy by {points(gap.result.difference)}, for {tokens[1]:.0f} "
            f"tokens per answer instead of {tokens[0]:.0f}; {lost} of {n} answers could not be parsed. "
            + {
                True: "It matters little: within 5 points.",
                False: f"It {what}",
                None: f"About reasoning, {why}." if why else f"Whether it helps: {undecided(gap.result)}.",
            }[shows]
        )
        rows = tuple(
            (title, with_ci(estimate_of(run)), understood(run), f"{each:.1f}")
            for title, run, each in (("plain", plain, tokens[0]), ("step by step", thought, tokens[1]))
        )
        table = ResultTable(("prompt", "accuracy (95%)", "parsed", "tokens per answer"), rows)
        figures = {"difference": gap.result.difference.as_dict(), "tokens": tokens}
        return Finding(
            part=self.name,
            title="Chain of thought",
            verdict=verdict,
            tables=(table,),
            figures=figures,
            runs=(plain.id, thought.id),
            shows=shows,
        )


def _characters(run: Run) -> int:
    """Count the characters that were written."""
    return sum(len(one.text) + len(one.thinking) for _, answers in run.answered() for one in answers)


PART = ChainOfThought()
