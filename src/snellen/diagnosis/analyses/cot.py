"""Does thinking step by step help?"""

from __future__ import annotations

from snellen.diagnosis.analysis import (
    Analysis,
    Finding,
    ResultTable,
    Subject,
    estimate_of,
    little,
    points,
    understood,
    with_ci,
)


class ChainOfThought(Analysis):
    """The open question with and without a chain of thought, and what it costs.

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
        shows = None if case.guesses else little(gap.result.difference, real=gap.real)
        what = "helps." if gap.result.difference.value > 0 else "harms."
        verdict = (
            f"A chain of thought changes accuracy by {points(gap.result.difference)}, for {tokens[1]:.0f} "
            f"tokens an answer instead of {tokens[0]:.0f}; {lost} of {n} such answers could not be read. It "
            + {True: "matters little.", False: what, None: "has no effect that these images tell."}[shows]
        )
        rows = tuple(
            (title, with_ci(estimate_of(run)), understood(run), f"{each:.1f}")
            for title, run, each in (("plain", plain, tokens[0]), ("step by step", thought, tokens[1]))
        )
        table = ResultTable(("asked", "accuracy (95 %)", "understood", "tokens an answer"), rows)
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


PART = ChainOfThought()
