"""Estimate the requests and cost of an evaluation before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from snellen.datasets.base import Selection
from snellen.engine.asking import examination
from snellen.errors import DataError
from snellen.models.base import Model
from snellen.protocols.base import Protocol
from snellen.types import Request, Response, Sample, Score, Usage

__all__ = ["Forecast", "forecast", "forecast_scorers"]

#: Samples to simulate, in order to estimate the others.
PROBED = 20


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The requests and cost of an evaluation, each as a range from minimum to maximum.

    Args:
        samples: the number of samples to evaluate.
        requests: fewer if a protocol can stop early.
        tokens_in: estimated; texts by their length, images by :func:`snellen._util.tokens.image_tokens`.
        tokens_out: up to ``max_tokens`` per request.
        cost: US dollars, if prices are known.
        host: where requests go; empty for a local model.
        images: how many images go there, each time counted.
        image_bytes: their bytes, as sent.
    """

    model: str
    data: str
    protocol: str
    samples: int
    requests: tuple[int, int]
    tokens_in: tuple[int, int]
    tokens_out: tuple[int, int]
    cost: tuple[float, float] | None
    host: str = ""
    images: tuple[int, int] = (0, 0)
    image_bytes: tuple[int, int] = (0, 0)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def forecast(model: Model, data: Selection, protocol: Protocol, title: str) -> Forecast:
    """Estimate from a few samples, spread over the data: the minimum is the first batch of each, the maximum
    what it sends if no answer can be parsed. Cached answers are not subtracted.

    Raises:
        DataError: a sample cannot be read.
    """
    places = range(0, len(data), max(1, len(data) // PROBED))
    least, most = [0.0] * 5, [0.0] * 5
    read = 0
    for place in places:
        try:
            request_batches = _request_batches(protocol, data[place])
            first, every = request_batches[0], chain.from_iterable(request_batches)
            expected = [[_expected(model, request) for request in some] for some in (first, every)]
        except DataError:
            if not data.skip_invalid:
                raise
            continue
        read += 1
        for totals, parts in zip((least, most), expected, strict=True):
            for content in parts:
                for i, part in enumerate(content):
                    totals[i] += part
    scale = len(data) / max(1, read)
    return _foretold(model, data, title, [x * scale for x in least], [x * scale for x in most])


def forecast_scorers(data: Selection, protocol: Protocol, title: str) -> list[Forecast]:
    """Estimate the most that judges and other scorers will be asked, for answers of maximum length."""
    places = range(0, len(data), max(1, len(data) // PROBED))
    forecasts = []
    for scorer in protocol.scorers():
        most, asked = [0.0] * 5, None
        for place in places:
            try:
                sample = data[place]
            except DataError:
                if not data.skip_invalid:
                    raise
                continue
            answers = [
                r.decoding.max_tokens
                for request_batch in _request_batches(protocol, sample)
                for r in request_batch
            ]
            requests: Sequence[Request] = ()
            if (foreseen := scorer.prefetch(sample, "word " * max(answers, default=1))) is not None:
                asked, requests = foreseen
            for request in requests:
                for i, part in enumerate(_expected(asked, request) if asked is not None else ()):
                    most[i] += part
        if asked is not None:
            scale = len(data) / len(places)
            forecasts.append(_foretold(asked, data, f"scores {title}", [0.0] * 5, [x * scale for x in most]))
    return forecasts


def _expected(model: Model, request: Request) -> tuple[float, ...]:
    return (*model.expects(request), *model.sends(request))


def _foretold(
    model: Model, data: Selection, title: str, least: Sequence[float], most: Sequence[float]
) -> Forecast:
    low, high = [round(x) for x in least], [round(x) for x in most]
    # An answer may be a single token; the maximum is known.
    prices = [model.price(Usage(low[0], low[1], low[0])), model.price(Usage(*high[:3]))]
    return Forecast(
        model=model.name,
        data=data.name,
        protocol=title,
        samples=len(data),
        requests=(low[0], high[0]),
        tokens_in=(low[1], high[1]),
        tokens_out=(low[0], high[2]),
        cost=None if prices[0] is None or prices[1] is None else (prices[0], prices[1]),
        host=urlsplit(getattr(model, "address", "")).netloc,
        images=(low[3], high[3]),
        image_bytes=(low[4], high[4]),
    )


def _request_batches(protocol: Protocol, sample: Sample) -> list[Sequence[Request]]:
    """Yield all requests for a sample if every answer is empty and the reference is unknown, since a wrong
    answer would end what a right one continues.
    """
    exam = examination(protocol, replace(sample, answers=()))
    request_batches = []
    try:
        request_batch = next(exam)
        while True:
            request_batches.append(request_batch)
            request_batch = exam.send(
                [Response(scores=(Score(0.0),) * len(r.continuations)) for r in request_batch]
            )
    except StopIteration:
        return request_batches or [[]]
