"""Does it know more than it says? Generated names against likelihoods, and against constrained generation."""

from __future__ import annotations

from snellen.diagnosis.analysis import (
    SCORED,
    Analysis,
    Finding,
    ResultTable,
    Skipped,
    Subject,
    estimate_of,
    points,
    with_ci,
)

#: Likelihoods, by length normalization.
WAYS = {
    "log-likelihood": "rank",
    "per token": "rank?normalize=tokens",
    "per byte": "rank?normalize=bytes",
    "minus the likelihood without the image (PMI)": "rank?pmi=true",
}


class DecodingRules(Analysis):
    """The generated name against the most likely one.

    Source: Zhang et al., arXiv 2405.18415, "probabilistic inference".
    """

    name, order = "decoding", 60

    def run(self, case: Subject) -> Finding:
        """One run per normalization, if the model provides likelihoods."""
        if not case.scores:
            raise Skipped(f"{case.model} does not provide likelihoods of names")
        if len(case.labels) * len(case.selection) > SCORED:
            raise Skipped(
                f"{len(case.labels)} names for each of {len(case.selection)} images are more than {SCORED:,} "
                "likelihoods; use fewer with --limit"
            )
        runs = {title: case.run(protocol) for title, protocol in WAYS.items()}
        runs["generated, constrained to the names"] = case.run("closed-set?rounds=1&constrained=true")
        gaps = case.differences(runs, case.closed)
        best = max(runs, key=lambda title: estimate_of(runs[title]).value)
        gap = gaps[best]
        verdict = (
            f"The best other decoding rule ({best}) reaches {with_ci(estimate_of(runs[best]))}; free "
            "generation reaches "
            f"{with_ci(estimate_of(case.closed))}: {points(gap.result.difference)}. "
            + (
                "The model knows more than it says in free generation."
                if gap.real and gap.result.difference.value > 0
                else "The gain is not significant on these images."
            )
        )
        rows = [("generated from the list", with_ci(estimate_of(case.closed)), "–")]
        rows += [(t, with_ci(estimate_of(run)), points(gaps[t].result.difference)) for t, run in runs.items()]
        table = ResultTable(
            ("decoding", "accuracy (95%)", "difference to generated"),
            tuple(rows),
            "Paired on the same images; p-values adjusted by Holm.",
        )
        figures = {
            "accuracy": {title: estimate_of(run).as_dict() for title, run in runs.items()},
            "difference": {
                title: comparison.result.difference.as_dict() for title, comparison in gaps.items()
            },
        }
        ids = (case.closed.id, *(run.id for run in runs.values()))
        return Finding(
            part=self.name,
            title="Decoding",
            verdict=verdict,
            tables=(table,),
            figures=figures,
            runs=ids,
        )


PART = DecodingRules()
