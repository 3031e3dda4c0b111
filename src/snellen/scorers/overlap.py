"""Word overlap: BLEU, ROUGE-L and CIDEr of captions against their references, through libraries.

Sources: Papineni et al., "BLEU" (ACL 2002), through sacrebleu; Lin, "ROUGE" (2004), through rouge-score;
Vedantam et al., "CIDEr" (arXiv 1411.5726), through pycocoevalcap. COCO's own server tokenizes with a Java
program; here, words are lower-cased runs of letters and digits for all three metrics, which is the same
in all but rare cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snellen.errors import require
from snellen.parsing.text import tokens
from snellen.scorers.base import AskModel, SamplePrediction, Scorer

__all__ = ["Overlap"]


class Overlap(Scorer):
    """BLEU-4 (per sentence, smoothed, and for the corpus), ROUGE-L and CIDEr; shares of 1, CIDEr up to 10.

    CIDEr weighs words by how rare they are among the references of the whole data set, so it says little
    about a few samples and nothing about one.
    """

    def check(self) -> None:
        for package in ("sacrebleu", "rouge_score.rouge_scorer", "pycocoevalcap.cider.cider"):
            require(package, "metrics", "Scoring captions by their words")

    async def score(self, predictions: Sequence[SamplePrediction], ask: AskModel) -> list[dict[str, float]]:
        rouge: Any = require("rouge_score.rouge_scorer", "metrics", "ROUGE")
        scorer = rouge.RougeScorer(["rougeL"], tokenizer=_Words())
        ciders = _cider(predictions)
        scores: list[dict[str, float]] = []
        for prediction, cider in zip(predictions, ciders, strict=True):
            references = list(prediction.sample.references)
            if not references:
                scores.append({})
                continue
            said = prediction.answer
            scores.append(
                {
                    "rouge_l": scorer.score_multi(references, said)["rougeL"].fmeasure if said else 0.0,
                    "cider": cider,
                    "bleu_4": _bleu(said, references) if said else 0.0,
                }
            )
        return scores

    def overall(
        self, predictions: Sequence[SamplePrediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Compute corpus BLEU, which is not a mean of sentences: counts are summed before they are
        divided.
        """
        sacrebleu: Any = require("sacrebleu", "metrics", "BLEU")
        known = [prediction for prediction in predictions if prediction.sample.references]
        if not known:
            return {}
        most = max(len(prediction.sample.references) for prediction in known)
        streams = [
            [
                _words(prediction.sample.references[i]) if i < len(prediction.sample.references) else None
                for prediction in known
            ]
            for i in range(most)
        ]
        bleu = sacrebleu.corpus_bleu(
            [_words(prediction.answer) for prediction in known], streams, tokenize="none"
        )
        return {"corpus_bleu_4": bleu.score / 100}


class _Words:
    """Tokenizes as our parsers do, in any script, for rouge-score, which only knows Latin letters."""

    def tokenize(self, text: str) -> list[str]:
        return list(tokens(text))


def _bleu(said: str, references: Sequence[str]) -> float:
    """Compute smoothed BLEU-4 of one text; exp and log leave it slightly above 1."""
    sacrebleu: Any = require("sacrebleu", "metrics", "BLEU")
    bleu = sacrebleu.sentence_bleu(_words(said), [_words(text) for text in references], tokenize="none")
    return min(1.0, round(float(bleu.score) / 100, 12))


def _words(text: str) -> str:
    return " ".join(tokens(text))


def _cider(predictions: Sequence[SamplePrediction]) -> list[float]:
    """Compute CIDEr of each prediction; 0 if there is no answer or no reference."""
    cider: Any = require("pycocoevalcap.cider.cider", "metrics", "CIDEr")
    known = [i for i, prediction in enumerate(predictions) if prediction.sample.references]
    values = [0.0] * len(predictions)
    if not known:
        return values
    references = {i: [_words(text) for text in predictions[i].sample.references] for i in known}
    answers = {i: [_words(predictions[i].answer)] for i in known}
    _, each = cider.Cider().compute_score(references, answers)
    for i, value in zip(known, each, strict=True):
        values[i] = float(value)
    return values
