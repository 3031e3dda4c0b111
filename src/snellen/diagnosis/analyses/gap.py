"""How far is it behind dedicated classifiers?"""

from __future__ import annotations

from collections.abc import Sequence

from snellen.diagnosis.analysis import (
    MARGIN,
    SCORED,
    Analysis,
    Finding,
    ResultTable,
    Skipped,
    Subject,
    estimate_of,
    points,
    undecided,
    understood,
    with_ci,
)
from snellen.errors import UsageError
from snellen.runs.compare import Comparison
from snellen.runs.run import Run

#: With more classes, the yes/no question per class is skipped.
BINARY = 60


class Gap(Analysis):
    """The model under every protocol next to its references, on the same images.

    Source: Zhang et al., arXiv 2405.18415, table 1: open- and closed-world accuracy against CLIP.
    """

    name, order = "gap", 10

    def run(self, case: Subject) -> Finding:
        """Runs under each protocol, and paired differences with the best reference."""
        # Long: it measures, and puts the result into words.
        own: dict[str, Run] = {"closed-set, one round": case.closed}
        wanted = {"open-world": "open-world"}
        if len(case.labels) <= BINARY:
            wanted["binary"] = "binary"
        if case.scores and len(case.labels) * len(case.selection) <= SCORED:
            wanted["rank (log-likelihood)"] = "rank"
        for title, protocol in wanted.items():
            try:
                own[title] = case.run(protocol)
            except UsageError as error:
                case.missing[title] = str(error)
        references = case.reference_runs()
        if not references:
            reasons = "; ".join(case.missing.values()) or "none was given"
            raise Skipped(f"no other model to compare with ({reasons}). Add one: --reference clip:ORG/NAME")
        best = max(references.values(), key=lambda run: estimate_of(run).value)
        rows = []
        gaps = case.differences(own, best)
        for title, run in own.items():
            comparison = gaps[title]
            rows.append(
                (
                    title,
                    with_ci(estimate_of(run)),
                    understood(run),
                    points(comparison.result.difference),
                    "yes" if comparison.real else "no",
                )
            )
        rows += [
            (
                name,
                with_ci(estimate_of(run)),
                understood(run),
                "–",
                "–",
            )
            for name, run in references.items()
        ]
        first = max(own, key=lambda title: estimate_of(own[title]).value)
        gap = gaps[first].result.difference
        names = f"{best.model}'s"
        useless = case.inconclusive(best, f"{names} {{}} answers", f"{names} answers are")
        standing, shows = (
            (f"About the gap, {useless}.", None)
            if useless and not case.undecidable
            else _standing(case, list(gaps.values()), gaps[first])
        )
        verdict = (
            f"At its best ({first}), {case.model} classifies {with_ci(estimate_of(own[first]))} of the "
            "images "
            f"correctly, {best.model} {with_ci(estimate_of(best))}: {points(gap)}. {standing}"
        )
        table = ResultTable(
            ("protocol", "accuracy (95%)", "parsed", f"difference to {best.model}", "significant"),
            tuple(rows),
            "Paired on the same images; significance at the 5% level, adjusted for all comparisons (Holm). "
            "Unparsed answers count as wrong.",
        )
        figures = {
            "accuracy": {title: estimate_of(run).as_dict() for title, run in (own | references).items()},
            "difference": {
                title: comparison.result.difference.as_dict() for title, comparison in gaps.items()
            },
            "best_reference": best.model,
        }
        runs = tuple(run.id for run in (*own.values(), *references.values()))
        return Finding(
            part=self.name,
            title="The gap",
            verdict=verdict,
            tables=(table,),
            figures=figures,
            runs=runs,
            shows=shows,
        )


def _standing(case: Subject, gaps: Sequence[Comparison], best: Comparison) -> tuple[str, bool | None]:
    """Say where the model stands to its reference, and whether that is as in the study.

    Args:
        gaps: its protocols minus the reference; ``best``: that of its best protocol.
    """
    if case.undecidable:
        return f"About the model, {case.undecidable}.", None
    behind = [gap.real and gap.result.difference.value < 0 for gap in gaps]
    level = best.result.difference.low >= -MARGIN
    if all(behind):
        return "It is behind under every protocol.", True
    if not any(behind):
        if level:
            return "It is not behind by more than 5 points.", False
        return f"Whether it is behind: {undecided(best.result)}.", None
    if best.real and best.result.difference.value < 0:
        if level:
            return "It is behind under some protocols, but not at its best by more than 5 points.", True
        return "It is behind under some protocols, but not all.", True
    if level:
        return "It is behind under some protocols, but not at its best by more than 5 points.", False
    return f"It is behind under some protocols; at its best: {undecided(best.result)}.", None


PART = Gap()
