"""Hosted classifiers and taggers without a chat interface: an image is sent, labels and scores are
returned.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from snellen.errors import BadOption, require
from snellen.images import Image
from snellen.images.sending import as_sent
from snellen.models.base import MODELS, Model
from snellen.models.classifier import match, read_mapping
from snellen.models.remote.base import RemoteModel
from snellen.models.remote.connection import Connection, check_connection
from snellen.models.remote.prices import Prices
from snellen.models.remote.providers import PILLOW
from snellen.models.remote.retry import RequestError, RetryPolicy
from snellen.models.remote.urls import ApiKey, address_of, storable_option
from snellen.models.remote.wire import in_base64, parse
from snellen.types import Kind, Request, Response, Score, Usage

__all__ = ["Endpoint", "endpoint"]

#: The size in bytes above which images are shrunk.
MAX_IMAGE = 4_500_000
#: The placeholder of the image in a body.
SLOT = "{image}"


@MODELS.register("endpoint", example="endpoint:URL")
def endpoint(
    url: str,
    *,
    labels: str = "[].label",
    scores: str = "[].score",
    body: str | None = None,
    query: str = "",
    api_key_env: str | None = None,
    scheme: str = "Bearer",
    mapping: str | None = None,
    max_side: int | None = None,
    timeout: float = 120.0,
    total_timeout: float = 600.0,
    tries: int = 8,
    max_consecutive_failures: int = 20,
    requests_per_minute: float | None = None,
    price: float | None = None,
) -> Model:
    """A hosted classifier or tagger: posts the image, reads labels and scores from the JSON; supports rank.

    Options: ``labels`` and ``scores``, their location as JMESPath expressions (the defaults fit Hugging
    Face's inference endpoints; another vendor's might be ``outputs[0].data.concepts[].name``); ``body``,
    a JSON template with ``"{image}"`` for the base64 image (default: the bytes are the body); ``query``
    of the URL; ``api_key_env``, the environment variable of the key, and ``scheme``, the word before the
    key in the Authorization header; ``mapping`` of class names, as for classifier; ``max_side`` of images
    (pixels); ``timeout``, ``total_timeout``, ``tries``, ``max_consecutive_failures``,
    ``requests_per_minute`` as for openai; ``price`` in US dollars per thousand requests.

    Raises:
        BadOption: an invalid URL, expression or template.
        ModelError: the key is missing.
        DataError: the mapping file cannot be read.
    """
    # Long for its options alone.
    jmespath = require("jmespath", "api", "endpoint:")
    paths = []
    for option, expression in (("labels", labels), ("scores", scores)):
        try:
            paths.append(jmespath.compile(expression))
        except jmespath.exceptions.JMESPathError as error:
            said = str(error).splitlines()[0]
            raise BadOption(
                f"{option}={expression!r} is not allowed; allowed: a JMESPath expression ({said})."
            ) from error
    if body is not None:
        try:
            json.loads(body)
        except ValueError as error:
            raise BadOption(f"body={body!r} is not allowed; allowed: JSON ({error}).") from error
        if f'"{SLOT}"' not in body:
            raise BadOption(f'body={body!r} is not allowed: it must contain "{SLOT}".')
    return Endpoint(
        address_of("endpoint", url),
        query=storable_option("query", query) or "",
        paths=(paths[0], paths[1]),
        body=storable_option("body", body),
        key=ApiKey(api_key_env, needed=True) if api_key_env else None,
        scheme=scheme,
        mapping=read_mapping(mapping),
        max_side=max_side,
        retry_policy=RetryPolicy(
            timeout=timeout,
            total_timeout=total_timeout,
            tries=tries,
            max_consecutive_failures=max_consecutive_failures,
            requests_per_minute=requests_per_minute,
        ),
        price=price,
    )


class Endpoint(RemoteModel):
    """See :func:`endpoint`. Scores are used unchanged (their token count is 0); if several labels mean the
    same class, the highest score counts; a class without a label has the score -inf.
    """

    kinds = frozenset({Kind.SCORE})
    text_only = False

    def __init__(
        self,
        address: str,
        *,
        query: str,
        paths: tuple[Any, Any],
        body: str | None,
        key: ApiKey | None,
        scheme: str,
        mapping: Mapping[str, list[str]],
        max_side: int | None,
        retry_policy: RetryPolicy,
        price: float | None,
    ) -> None:
        if price is not None and not 0 <= price < math.inf:
            raise BadOption(f"price={price:g} is not allowed; allowed: 0 or more.")
        # Priced per request, as if each took one token.
        prices = None if price is None else Prices(price * 1000, 0)
        self._price = price
        super().__init__(f"endpoint:{address}", address, retry_policy, prices)
        self._query, self._paths, self._body = query, paths, body
        self._key, self._scheme, self.mapping, self.max_side = key, scheme, dict(mapping), max_side

    def identity(self) -> Mapping[str, Any]:
        return {
            "kind": "endpoint",
            "address": self.address,
            "query": self._query,
            "labels": self._paths[0].expression,
            "scores": self._paths[1].expression,
            "body": self._body,
            "mapping": self.mapping,
            "max_side": self.max_side,
        }

    def price(self, usage: Usage) -> float | None:
        return self.prices.cost(usage.requests, 0) if self.prices else None

    def metadata(self) -> Mapping[str, Any]:
        known = {k: v for k, v in super().metadata().items() if k not in ("price_in", "price_out")}
        return known if self._price is None else {**known, "price": self._price}

    def estimate_tokens(self, payload: Any) -> tuple[float, float]:
        return 1.0, 0.0

    def encode(self, image: Image) -> tuple[str, bytes]:
        return as_sent(image, PILLOW, self.max_side, MAX_IMAGE)

    def size_of(self, encoded: tuple[str, bytes]) -> int:
        return len(encoded[1])

    def check(self) -> None:
        if self._key is not None:
            self._key.check()
        check_connection(self.address, "endpoint:")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[None]:
        self._connection = Connection(self.address, self._key, self._scheme)
        async with self._connection.opened(self.max_concurrency):  # the caller enforces the timeout
            yield

    async def ask(self, request: Request) -> Response:
        if len(request.shown) != 1:
            raise RequestError(
                f"{len(request.shown)} images, but an endpoint takes one at a time", again=False
            )
        data = await self.send(request.shown[0])
        value = data["found"]
        labels, scores = (path.search(value) for path in self._paths)
        if not isinstance(labels, list) or not isinstance(scores, list) or len(labels) != len(scores):
            raise RequestError(
                f"labels={self._paths[0].expression!r} and scores={self._paths[1].expression!r} find no two "
                f"equally long lists in {json.dumps(value)[:200]}",
                again=False,
            )
        try:
            values = [float(score) for score in scores]
        except (TypeError, ValueError) as error:
            raise RequestError(f"scores that are not numbers: {scores[:3]!r}", again=False) from error
        own = dict(enumerate(map(str, labels)))
        ids = match(request.continuations, own, self.mapping)
        return Response(scores=tuple(Score(max((values[i] for i in of), default=-math.inf)) for of in ids))

    async def send_once(self, payload: Image) -> Mapping[str, Any]:
        media, data = await self.encoded(payload)
        if self._body is not None:
            media = "application/json"
            data = self._body.replace(SLOT, in_base64(data).decode()).encode()
        where = f"{self.address}?{self._query}" if self._query else self.address
        headers = {"Content-Type": media}
        answer = await self._connection.exchange("POST", where, data=data, headers=headers)
        return {"found": parse(answer.text), "usage": {"prompt_tokens": 1, "completion_tokens": 0}}
