"""A judge: a second model grades free-form answers against their references.

Sources: Zheng et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena" (arXiv 2306.05685):
grading by rubric, in both orders, because judges have a position bias. The wording is ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal

from snellen._util.redaction import redact
from snellen.metrics.answers import exact_match
from snellen.models.base import Model
from snellen.parsing import strip_thinking
from snellen.prompts import fill
from snellen.scorers.base import AskModel, SamplePrediction, TextModelScorer
from snellen.types import Decoding, Message, Outcome, Request, Sample

__all__ = ["CORRECTNESS", "RUBRIC", "Judge", "Rubric", "parse_grade", "parse_share"]

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


CORRECTNESS = """\
You are grading an answer to a question about an image, which you do not see. The reference is right. In it, \
<AND> stands between parts of which the candidate must say all, <OR> between alternatives of which one is \
enough. How right is the candidate? 0.0 is wholly wrong and 1.0 wholly right; half of the parts are 0.5.
Question: {question}
{texts}
Reply with one number alone: 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9 or 1.0."""

Rubric = Literal["grades", "correctness"]


@dataclass
class Judge(TextModelScorer):
    """Grades from 1 to 5 as scores from 0 to 1, the mean of both orders of reference and candidate; or the
    correctness from 0.0 to 1.0, the reference first, as in MM-Vet (Yu et al., arXiv 2308.02490).

    A missing answer scores 0 and is not graded. Samples without a grade have no score, and are counted.

    Args:
        name: the judge, as for ``--model``.
        rubric: ``grades`` or ``correctness``.
        most: the number of samples per batch.

    Raises:
        BadOption: the model does not generate text, or needs an image.
    """

    option: ClassVar[str] = "judge"
    name: str
    rubric: Rubric = "grades"
    most: int = 256

    def prefetch(self, sample: Sample, answer: str) -> tuple[Model, Sequence[Request]]:
        asked = self._questions(SamplePrediction(sample, answer, Outcome.OK, {}, lambda: sample))
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
            questions = [self._questions(predictions[i]) for i in places]
            replies = iter(await ask(self.model, [request for some in questions for request in some]))
            for i, some in zip(places, questions, strict=True):
                of_sample = list(islice(replies, len(some)))
                failed = any(reply.outcome is Outcome.ERROR for reply in of_sample)
                scores[i] = {"_failed": 1.0} if failed else {}
                grades = [self._share(reply.text) for reply in of_sample if reply.outcome is Outcome.OK]
                given = [grade for grade in grades if grade is not None]
                if len(given) == len(some):
                    scores[i] = {"judge": sum(given) / len(given)}
                    if len(given) > 1:
                        scores[i]["_apart"] = abs(given[0] - given[1])
        return scores

    def _questions(self, prediction: SamplePrediction) -> list[Request]:
        """Build the rubric with the reference before the candidate and, for grades, after it."""
        between = "\n" if self.rubric == "correctness" else " / "
        reference = between.join(dict.fromkeys(prediction.sample.references))
        compared = [f"Reference: {reference}", f"Candidate: {prediction.answer}"]
        question = prediction.sample.question or "What does the image show?"
        decoding = Decoding(max_tokens=16)
        prompt = CORRECTNESS if self.rubric == "correctness" else RUBRIC
        orders = [compared] if self.rubric == "correctness" else [compared, compared[::-1]]
        filled = [fill(prompt, question=question, texts="\n".join(texts)) for texts in orders]
        return [Request((Message("user", (text,)),), decoding=decoding) for text in filled]

    def _share(self, text: str) -> float | None:
        """Return a reply's grade from 0 to 1."""
        if self.rubric == "correctness":
            return parse_share(text)
        grade = parse_grade(text)
        return None if grade is None else (grade - 1) / 4

    def overall(
        self, predictions: Sequence[SamplePrediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, Any]:
        """Report the judge, how often both orders agreed, and how often the judge agrees with exact match."""
        graded = [
            (prediction, score)
            for prediction, score in zip(predictions, scores, strict=True)
            if "judge" in score and prediction.answer
        ]
        figures: dict[str, Any] = {"judge": redact(self.name)}
        twice = [score["_apart"] for score in scores if "_apart" in score]
        known = sum(bool(prediction.sample.references) for prediction in predictions)
        # Errors are retried; a reply without a grade is a reply.
        figures["judge_errors"] = sum("_failed" in score for score in scores)
        figures["not_graded"] = known - sum("judge" in score for score in scores) - figures["judge_errors"]
        if twice:
            figures["judge_agrees_with_itself_swapped"] = _share([apart == 0 for apart in twice])
        if graded:
            figures["judge_agrees_with_exact_match"] = _share(
                [
                    (s["judge"] > 0.5) == bool(exact_match(prediction.answer, prediction.sample.references))
                    for prediction, s in graded
                ]
            )
        return figures


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


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


def parse_share(text: str) -> float | None:
    """Parse the one number from 0 to 1 in a reply; None if there is none, or another one.

    >>> parse_share("0.7"), parse_share("**Correctness: 1.0**"), parse_share("7"), parse_share("0.5 or 0.6")
    (0.7, 1.0, None, None)
    """
    numbers = set(re.findall(r"-?\d+(?:[.,]\d+)?", strip_thinking(text)))
    value = float(numbers.pop().replace(",", ".")) if len(numbers) == 1 else -1.0
    return value if 0 <= value <= 1 else None
