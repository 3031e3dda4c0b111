"""Convert samples, predictions and answers to stored rows: plain values that JSON can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from snellen.types import Outcome, Prediction, Response, Sample, Score

__all__ = ["RETRIED", "CacheEntry", "RunRows", "SampleResult", "response_of", "response_row", "written"]

#: Outcomes that are retried when a run is resumed.
RETRIED = frozenset({Outcome.ERROR})


class CacheEntry(NamedTuple):
    """A response to be stored in the cache."""

    key: str
    model: str
    request: Mapping[str, Any]
    response: Response


class SampleResult(NamedTuple):
    """The result for one sample."""

    position: int
    sample: Sample
    prediction: Prediction
    keys: Sequence[str]
    metrics: Mapping[str, float] = {}
    truth: str | None = None


class RunRows(NamedTuple):
    """Results as rows of the tables ``samples`` and ``predictions``."""

    samples: list[dict[str, Any]]
    predictions: list[dict[str, Any]]


def written(run: str, findings: Sequence[SampleResult]) -> RunRows:
    """Convert results to rows, sorted by sample id: two writers with different orders would wait for each
    other.
    """
    ordered = sorted(findings, key=lambda finding: finding.sample.id)
    return RunRows([_sample_row(run, f) for f in ordered], [_prediction_row(run, f) for f in ordered])


def _content(sample: Sample) -> dict[str, Any]:
    """Return what parsing a stored answer again may need, as JSON (other values become text)."""
    content = {
        "also": list(sample.also),
        "background": sample.background,
        "synonyms": {key: list(names) for key, names in sample.synonyms.items()},
        "question": sample.question,
        "choices": list(sample.choices),
        "answers": list(sample.answers),
        "references": list(sample.references),
        "regions": [asdict(region) for region in sample.regions],
        # Without the image, a region can only be located if the image's size is known.
        "sizes": [image.size for image in sample.images] if sample.regions else [],
        "meta": dict(sample.meta),
    }
    kept = {key: value for key, value in content.items() if value}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return plain


def _finite(value: float) -> float | None:
    return None if value == -math.inf else value


def response_row(row: CacheEntry) -> dict[str, Any]:
    """Convert an answer to a row of the table ``responses``, without its time."""
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
    """Convert a row to an answer."""
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
