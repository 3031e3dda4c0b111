"""Words in common: BLEU, ROUGE-L and CIDEr of captions against their references, through libraries.

Sources: Papineni et al., "BLEU" (ACL 2002), through sacrebleu; Lin, "ROUGE" (2004), through rouge-score;
Vedantam et al., "CIDEr" (arXiv 1411.5726), through pycocoevalcap. COCO's own server splits words by a Java
program; here they are lower-cased runs of letters and digits for all three, which is what that comes to in
all but rare cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snellen.errors import require
from snellen.parsing.text import tokens
from snellen.scorers.base import AskModel, SamplePrediction, Scorer

__all__ = ["Overlap"]


class Overlap(Scorer):
    """BLEU-4 (of each sentence, smoothed, and of the whole), ROUGE-L and CIDEr; shares of 1, CIDEr up to 10.

    CIDEr weighs words by how rare they are among the references of the whole data set, so it says little of a
    few samples and nothing of one.
    """

    def check(self) -> None:
        for package in ("sacrebleu", "rouge_score.rouge_scorer", "pycocoevalcap.cider.cider"):
            require(package, "metrics", "Scoring captions by their words")

    async def score(self, found: Sequence[SamplePrediction], ask: AskModel) -> list[dict[str, float]]:
        rouge: Any = require("rouge_score.rouge_scorer", "metrics", "ROUGE")
        scorer = rouge.RougeScorer(["rougeL"], tokenizer=_Words())
        ciders = _cider(found)
        scores: list[dict[str, float]] = []
        for one, cider in zip(found, ciders, strict=True):
            references = list(one.sample.references)
            if not references:
                scores.append({})
                continue
            said = one.answer
            scores.append(
                {
                    "rouge_l": scorer.score_multi(references, said)["rougeL"].fmeasure if said else 0.0,
                    "cider": cider,
                    "bleu_4": _bleu(said, references) if said else 0.0,
                }
            )
        return scores

    def overall(
        self, found: Sequence[SamplePrediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """BLEU of the whole, which is no mean of sentences: counts are summed before they are divided."""
        sacrebleu: Any = require("sacrebleu", "metrics", "BLEU")
        known = [one for one in found if one.sample.references]
        if not known:
            return {}
        most = max(len(one.sample.references) for one in known)
        streams = [
            [_words(one.sample.references[i]) if i < len(one.sample.references) else None for one in known]
            for i in range(most)
        ]
        bleu = sacrebleu.corpus_bleu([_words(one.answer) for one in known], streams, tokenize="none")
        return {"corpus_bleu_4": bleu.score / 100}


class _Words:
    """Words as our parsers see them, in any script, for rouge-score, which knows Latin letters alone."""

    def tokenize(self, text: str) -> list[str]:
        return list(tokens(text))


def _bleu(said: str, references: Sequence[str]) -> float:
    """BLEU-4 of one text, smoothed; exp and log leave it a hair above 1."""
    sacrebleu: Any = require("sacrebleu", "metrics", "BLEU")
    found = sacrebleu.sentence_bleu(_words(said), [_words(text) for text in references], tokenize="none")
    return min(1.0, round(float(found.score) / 100, 12))


def _words(text: str) -> str:
    return " ".join(tokens(text))


def _cider(found: Sequence[SamplePrediction]) -> list[float]:
    """CIDEr of each prediction; 0 where there is no answer, or no reference."""
    cider: Any = require("pycocoevalcap.cider.cider", "metrics", "CIDEr")
    known = [i for i, one in enumerate(found) if one.sample.references]
    values = [0.0] * len(found)
    if not known:
        return values
    references = {i: [_words(text) for text in found[i].sample.references] for i in known}
    answers = {i: [_words(found[i].answer)] for i in known}
    _, each = cider.Cider().compute_score(references, answers)
    for i, value in zip(known, each, strict=True):
        values[i] = float(value)
    return values
