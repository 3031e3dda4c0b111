"""Samples, predictions and answers as the rows that are stored: plain values that JSON can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from snellen.types import Outcome, Prediction, Response, Sample, Score

__all__ = ["RETRIED", "CacheEntry", "RunRows", "SampleResult", "response_of", "response_row", "written"]

#: Outcomes of predictions that are asked again when a run is resumed.
RETRIED = frozenset({Outcome.ERROR})


class CacheEntry(NamedTuple):
    """A response on its way into the memory."""

    key: str
    model: str
    request: Mapping[str, Any]
    response: Response


class SampleResult(NamedTuple):
    """What came of one sample."""

    position: int
    sample: Sample
    prediction: Prediction
    keys: Sequence[str]
    metrics: Mapping[str, float] = {}
    truth: str | None = None


class RunRows(NamedTuple):
    """What came of some samples, as rows of the tables ``samples`` and ``predictions``."""

    samples: list[dict[str, Any]]
    predictions: list[dict[str, Any]]


def written(run: str, findings: Sequence[SampleResult]) -> RunRows:
    """Findings as rows, in the order of the samples' ids: two that write the same in different orders would
    wait for each other.
    """
    ordered = sorted(findings, key=lambda finding: finding.sample.id)
    return RunRows([_sample_row(run, f) for f in ordered], [_prediction_row(run, f) for f in ordered])


def _content(sample: Sample) -> dict[str, Any]:
    """What reading a stored answer again may need, as JSON (what is none of it is shown as text)."""
    content = {
        "background": sample.background,
        "synonyms": {key: list(names) for key, names in sample.synonyms.items()},
        "question": sample.question,
        "choices": list(sample.choices),
        "answers": list(sample.answers),
        "references": list(sample.references),
        "regions": [asdict(region) for region in sample.regions],
        # Where a region lies is told by the size of the image alone, once the image is gone.
        "sizes": [image.size for image in sample.images] if sample.regions else [],
        "meta": dict(sample.meta),
    }
    kept = {key: value for key, value in content.items() if value}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return plain


def _finite(value: float) -> float | None:
    return None if value == -math.inf else value


def response_row(row: CacheEntry) -> dict[str, Any]:
    """An answer as a row of the table ``responses``, without when it was written."""
    reply = row.response
    return {
        "key": row.key,
        "model": row.model,
        "request": row.request,
        "prompt": reply.prompt,
        "text": reply.text,
        "scores": [[_finite(s.value), s.tokens] for s in reply.scores],
        "outcome": reply.outcome,
        "reason": reply.reason,
        "latency": reply.latency,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "thinking": reply.thinking,
        "meta": dict(reply.meta),
    }


def response_of(row: Mapping[Any, Any]) -> Response:
    """The answer that a row holds."""
    return Response(
        row["text"],
        scores=tuple(Score(-math.inf if value is None else value, n) for value, n in row["scores"]),
        outcome=Outcome(row["outcome"]),
        reason=row["reason"],
        latency=row["latency"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        prompt=row["prompt"],
        thinking=row["thinking"],
        meta=row["meta"],
    )


def _sample_row(run: str, finding: SampleResult) -> dict[str, Any]:
    return {
        "run": run,
        "id": finding.sample.id,
        "position": finding.position,
        "label": finding.sample.label if finding.truth is None else finding.truth,
        "images": [image.sha256 for image in finding.sample.images],
        "content": _content(finding.sample),
    }


def _prediction_row(run: str, finding: SampleResult) -> dict[str, Any]:
    prediction = finding.prediction
    return {
        "run": run,
        "sample": finding.sample.id,
        "label": prediction.label,
        "outcome": prediction.outcome,
        "reason": prediction.reason,
        "questions": prediction.questions,
        "ranking": list(prediction.ranking),
        "details": dict(prediction.details),
        "responses": list(finding.keys),
        "metrics": dict(finding.metrics),
    }
