"""How the built-in metrics are displayed, except rules for short answers (see
:mod:`snellen.metrics.answers`). Their values come from :mod:`snellen.metrics.summary` (means and F1 of
predictions), from a protocol's ``score_sample``, or from a scorer in :mod:`snellen.scorers`.
"""

from __future__ import annotations

import math

from snellen.metrics.registry import METRICS, Metric

__all__: list[str] = []

for _metric in (
    Metric(name="accuracy", heading="accuracy"),
    Metric(name="balanced_accuracy", heading="balanced accuracy"),
    Metric(name="macro_f1", heading="macro F1"),
    Metric(name="weighted_f1", heading="weighted F1"),
    Metric(name="top5", heading="top-5"),
    # Cosines.
    *(
        Metric(name=name, heading=name.replace("_", " "), low=-1.0, graded=True, protocols=protocols)
        for name, protocols in (
            ("similarity", ("caption", "instruct")),
            ("label_similarity", ("rationale",)),
            ("rationale_similarity", ("rationale",)),
        )
    ),
    # Shared words.
    Metric(name="rouge_l", heading="rouge l", graded=True),
    Metric(name="bleu_4", heading="bleu 4", graded=True),
    Metric(name="corpus_bleu_4", heading="corpus bleu 4", graded=True),
    # CIDEr is printed in hundredths, as usual, but is not a share.
    Metric(name="cider", heading="cider", high=10.0, graded=True, unit="", protocols=("caption", "instruct")),
    Metric(name="clipscore", heading="clipscore", high=2.5, graded=True, protocols=("caption", "instruct")),
    # The primary score over several answers to the same question: their mean, the best, the worst.
    Metric(name="mean_of_repeats", heading="mean of repeats"),
    Metric(name="pass_at_k", heading="pass@k"),
    Metric(name="all_of_k", heading="all of k"),
    # The primary score, with the answers that an extractor read.
    Metric(name="with_extractor", heading="with extractor"),
    # Open questions among lettered ones, by the rule of MMMU's authors.
    Metric(name="open_lenient", heading="open answers by MMMU's rule", protocols=("multiple-choice",)),
    # Lengths of captions.
    Metric(
        name="words",
        heading="words",
        high=math.inf,
        higher_is_better=False,
        graded=True,
        scale=1.0,
        unit="",
    ),
):
    METRICS.add(_metric)
