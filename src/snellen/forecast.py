"""What an examination will ask, and cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from snellen.datasets.base import Selection
from snellen.models.base import Model
from snellen.protocols.base import Protocol
from snellen.types import Kind, Request, Response, Sample, Score

__all__ = ["Forecast", "forecast"]

#: Samples that are asked about in vain, to learn what the others will take.
PROBED = 20
#: Characters a token, of English text.
CHARACTERS = 4


@dataclass(frozen=True)
class Forecast:
    """What an examination takes, each figure from the least to the most.

    Args:
        samples: how many are to be examined.
        requests: fewer where a protocol can stop early.
        tokens_in: about; texts by their length, images by :func:`image_tokens`.
        tokens_out: up to ``max_tokens`` a request.
        cost: US dollars, where prices are known.
    """

    model: str
    data: str
    protocol: str
    samples: int
    requests: tuple[int, int]
    tokens_in: tuple[int, int]
    tokens_out: tuple[int, int]
    cost: tuple[float, float] | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def forecast(model: Model, data: Selection, protocol: Protocol, title: str) -> Forecast:
    """Foretell from a few samples, spread over the data: the least is what each asks first, the most what it
    asks when no answer is of any use. What is remembered is not taken off.

    Raises:
        DataError: a sample cannot be read.
    """
    places = range(0, len(data), max(1, len(data) // PROBED))
    least, most = [0, 0, 0], [0, 0, 0]
    for place in places:
        waves = _waves(protocol, data[place])
        for totals, requests in ((least, waves[0]), (most, [r for wave in waves for r in wave])):
            totals[0] += sum(map(model.calls, requests))
            totals[1] += sum(_tokens(request, model.calls(request)) for request in requests)
            totals[2] += sum(r.decoding.max_tokens if r.kind is Kind.GENERATE else 1 for r in requests)
    scale = len(data) / len(places)
    low, high = [round(x * scale) for x in least], [round(x * scale) for x in most]
    # An answer may be one token long; what the most would be is known.
    prices = [model.price(low[0], low[1], low[0]), model.price(*high)]
    return Forecast(
        model.name,
        data.name,
        title,
        len(data),
        (low[0], high[0]),
        (low[1], high[1]),
        (low[0], high[2]),
        None if prices[0] is None or prices[1] is None else (prices[0], prices[1]),
    )


def _waves(protocol: Protocol, sample: Sample) -> list[Sequence[Request]]:
    """All that is asked about a sample whose every answer says nothing."""
    exam = protocol.examine(sample)
    waves = []
    try:
        wave = next(exam)
        while True:
            waves.append(wave)
            wave = exam.send([Response(scores=(Score(0.0),) * len(r.continuations)) for r in wave])
    except StopIteration:
        return waves or [[]]


def _tokens(request: Request, calls: int) -> int:
    """About how many tokens go in, over all prompts of a request."""
    text = sum(len(m.text) for m in request.messages) / CHARACTERS
    once = text + sum(image_tokens(image.size) for image in request.images)
    names = sum(map(len, request.continuations)) if calls > 1 else 0
    return round(once * calls + names / CHARACTERS)


def image_tokens(size: tuple[int, int]) -> int:
    """Tokens of an image of so many pixels, as OpenAI counts them for GPT-4o at high detail: 85, and 170 for
    each tile of 512 pixels a side, once it fits into 2048 pixels a side and its shorter side into 768
    (https://platform.openai.com/docs/guides/images-vision). Others count otherwise.

    >>> image_tokens((1024, 1024))
    765
    """
    width, height = size
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / (min(width, height)))
    tiles = -(-round(width * scale) // 512) * -(-round(height * scale) // 512)
    return 85 + 170 * tiles
