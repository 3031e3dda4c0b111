"""A judge: a second model grades free-form answers against their references.

Sources: Zheng et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena" (arXiv 2306.05685):
grading by rubric, in both orders, because judges have a position bias. The wording is ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from snellen._util.redaction import redact
from snellen.metrics.answers import exact_match
from snellen.models.base import Model
from snellen.parsing import strip_thinking
from snellen.prompts import fill
from snellen.scorers.base import AskModel, SamplePrediction, TextModelScorer
from snellen.types import Decoding, Message, Outcome, Request, Sample

__all__ = ["RUBRIC", "Judge", "parse_grade"]

RUBRIC = """\
You are grading an answer to a question about an image, which you do not see. Two texts follow: a reference, \
which is right, and a candidate. Grade only what the candidate says, not its length or style:
5: it says what the reference says;
4: it says so but for a detail;
3: about half of it;
2: little of it;
1: nothing of it, or the contrary.
Question: {question}
{texts}
Reply with the grade of the candidate alone, a digit from 1 to 5."""


@dataclass
class Judge(TextModelScorer):
    """Grades from 1 to 5 as scores from 0 to 1, the mean of both orders of reference and candidate.

    A missing answer scores 0 and is not graded. Samples without a grade have no score, and are counted.

    Args:
        name: the judge, as for ``--model``.
        most: the number of samples per batch.

    Raises:
        BadOption: the model does not generate text, or needs an image.
    """

    option: ClassVar[str] = "judge"
    name: str
    most: int = 256

    def prefetch(self, sample: Sample, answer: str) -> tuple[Model, Sequence[Request]]:
        asked = _questions(SamplePrediction(sample, answer, Outcome.OK, {}, lambda: sample))
        return self.model, asked if sample.references else ()

    async def score(self, predictions: Sequence[SamplePrediction], ask: AskModel) -> list[dict[str, float]]:
        scores: list[dict[str, float]] = [{} for _ in predictions]
        asked = [
            i
            for i, prediction in enumerate(predictions)
            if prediction.answer and prediction.sample.references
        ]
        for i, prediction in enumerate(predictions):
            if prediction.sample.references and not prediction.answer:
                scores[i] = {"judge": 0.0}
        for start in range(0, len(asked), self.most):
            places = asked[start : start + self.most]
            requests = [request for i in places for request in _questions(predictions[i])]
            replies = list(await ask(self.model, requests))
            for i, pair in zip(places, zip(replies[::2], replies[1::2], strict=True), strict=True):
                failed = any(reply.outcome is Outcome.ERROR for reply in pair)
                scores[i] = {"_failed": 1.0} if failed else {}
                grades = [parse_grade(reply.text) for reply in pair if reply.outcome is Outcome.OK]
                given = [grade for grade in grades if grade is not None]
                if len(given) == 2:
                    scores[i] = {
                        "judge": (sum(given) / 2 - 1) / 4,
                        "_apart": abs(given[0] - given[1]) / 4,
                    }
        return scores

    def overall(
        self, predictions: Sequence[SamplePrediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, Any]:
        """Report the judge, how often both orders agreed, and how often the judge agrees with exact match."""
        graded = [
            (prediction, score)
            for prediction, score in zip(predictions, scores, strict=True)
            if "_apart" in score
        ]
        figures: dict[str, Any] = {"judge": redact(self.name)}
        known = sum(bool(prediction.sample.references) for prediction in predictions)
        # Errors are retried; a reply without a grade is a reply.
        figures["judge_errors"] = sum("_failed" in score for score in scores)
        figures["not_graded"] = known - sum("judge" in score for score in scores) - figures["judge_errors"]
        if graded:
            figures["judge_agrees_with_itself_swapped"] = _share([s["_apart"] == 0 for _, s in graded])
            figures["judge_agrees_with_exact_match"] = _share(
                [
                    (s["judge"] > 0.5) == bool(exact_match(prediction.answer, prediction.sample.references))
                    for prediction, s in graded
                ]
            )
        return figures


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _questions(prediction: SamplePrediction) -> list[Request]:
    """Build the rubric with the reference before the candidate, and after it."""
    reference = " / ".join(dict.fromkeys(prediction.sample.references))
    compared = [f"Reference: {reference}", f"Candidate: {prediction.answer}"]
    question = prediction.sample.question or "What does the image show?"
    decoding = Decoding(max_tokens=16)
    return [
        Request(
            (Message("user", (fill(RUBRIC, question=question, texts="\n".join(texts)),)),), decoding=decoding
        )
        for texts in (compared, compared[::-1])
    ]


def parse_grade(text: str) -> int | None:
    """Parse the one grade from 1 to 5 in a reply; None if there is none, or several.

    >>> parse_grade("**4**"), parse_grade("Grade: 5/5"), parse_grade("4 or 5"), parse_grade("10")
    (4, 5, None, None)
    """
    text = re.sub(r"\s*(?:/\s*5\b|out of 5\b)", "", strip_thinking(text)).strip(" *_`.\n")
    alone = re.fullmatch(r"[1-5]", text)
    given = re.findall(
        r"(?:\b(?:grade|score|rating)\b[^.\n\d-]{0,30}|give it a\s+)\**([1-5])\b(?![.,]?\d)", text, re.I
    )
    grades = {alone[0]} if alone else set(given)
    return int(grades.pop()) if len(grades) == 1 else None
