"""How a protocol's questions are put to a model: after examples, with a temperature, several times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from statistics import fmean, stdev
from typing import Any

from snellen.protocols.base import Protocol
from snellen.types import Examination, Kind, Prediction, Request, Sample

__all__ = ["examination", "repeat_scores", "spread"]


def examination(protocol: Protocol, sample: Sample) -> Examination:
    """Return the evaluation of a sample by a protocol, with the options that all protocols have: a sample's
    ``shots`` come before every question, and with ``repeats`` every question is asked as often; the first
    prediction counts, and its details tell of all of them.
    """
    if protocol.repeats == 1:
        return _turn(protocol, sample, 0)
    return _repeated(protocol, sample)


def _turn(protocol: Protocol, sample: Sample, turn: int) -> Examination:
    exam = protocol.examine(sample)
    if not sample.shots and not protocol.temperature:
        return exam
    return _changed(protocol, sample, exam, turn)


def _changed(protocol: Protocol, sample: Sample, exam: Examination, turn: int) -> Examination:
    number = 0
    try:
        requests = next(exam)
        while True:
            replies = yield [
                _request(request, protocol, sample, f"{turn}/{number + place}")
                for place, request in enumerate(requests)
            ]
            number += len(requests)
            requests = exam.send(replies)
    except StopIteration as stop:
        prediction: Prediction = stop.value
        return prediction


def _request(request: Request, protocol: Protocol, sample: Sample, which: str) -> Request:
    decoding = request.decoding
    if protocol.temperature and request.kind is Kind.GENERATE:
        # Each question about each sample, and each repetition, has its own random numbers.
        key = f"snellen/draw/{protocol.draws}/{sample.id}/{which}"
        draw = int.from_bytes(sha256(key.encode()).digest()[:4], "big")
        decoding = replace(decoding, temperature=protocol.temperature, draw=draw)
    return replace(request, messages=(*sample.shots, *request.messages), decoding=decoding)


def _repeated(protocol: Protocol, sample: Sample) -> Examination:
    exams = [_turn(protocol, sample, turn) for turn in range(protocol.repeats)]
    waiting: dict[int, Sequence[Request]] = {}
    predictions: dict[int, Prediction] = {}

    def advance(turn: int, replies: Sequence[Any] | None) -> None:
        try:
            waiting[turn] = next(exams[turn]) if replies is None else exams[turn].send(replies)
        except StopIteration as stop:
            waiting.pop(turn, None)
            predictions[turn] = stop.value

    for turn in range(protocol.repeats):
        advance(turn, None)
    while waiting:
        asked = list(waiting.items())
        replies = yield [request for _, requests in asked for request in requests]
        start = 0
        for turn, requests in asked:
            advance(turn, replies[start : start + len(requests)])
            start += len(requests)
    return _merged(protocol, sample, [predictions[turn] for turn in range(protocol.repeats)])


def _merged(protocol: Protocol, sample: Sample, predictions: Sequence[Prediction]) -> Prediction:
    first = predictions[0]
    repeats = {
        "predictions": [prediction.label for prediction in predictions],
        "outcomes": [str(prediction.outcome) for prediction in predictions],
        "scores": [_score(protocol, sample, prediction) for prediction in predictions],
    }
    questions = sum(prediction.questions for prediction in predictions)
    return replace(first, questions=questions, details={**first.details, "repeats": repeats})


def _score(protocol: Protocol, sample: Sample, prediction: Prediction) -> float | None:
    if not protocol.classifies:
        return protocol.score_sample(sample, prediction).get(protocol.primary)
    if sample.label is None:
        return None
    return float(prediction.label in (sample.label, *sample.also))


def repeat_scores(details: Mapping[str, Any]) -> dict[str, float]:
    """Return a sample's scores over its repetitions: their mean, the best (pass@k), and the worst."""
    scores = [score for score in details.get("repeats", {}).get("scores", ()) if score is not None]
    if not scores:
        return {}
    return {"mean_of_repeats": fmean(scores), "pass_at_k": max(scores), "all_of_k": min(scores)}


def spread(details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean score of each repetition over all samples, and their standard deviation."""
    rows = [row["repeats"]["scores"] for row in details if "repeats" in row]
    known = [scores for scores in rows if all(score is not None for score in scores)]
    if not known:
        return {}
    means = [fmean(column) for column in zip(*known, strict=True)]
    return {"repeats": means, "repeats_standard_deviation": stdev(means)}
