"""Replay answers stored in the data set: a person's, or another model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from snellen.errors import BadOption
from snellen.models.base import MODELS, Model, failure
from snellen.types import Kind, Request, Response, Sample

__all__ = ["Replay", "replay"]


@MODELS.register("replay", example="replay:COLUMN")
def replay(column: str) -> Replay:
    """Answers from a column of the data set, a person's or another model's, for comparison with models.

    Raises:
        BadOption: no column is given.
    """
    if not column:
        raise BadOption("replay: needs a column of the data set; write replay:COLUMN.")
    return Replay(column)


class Replay(Model):
    """See :func:`replay`. Every question about a sample gets the text in its column."""

    kinds = frozenset({Kind.GENERATE})
    fixed = True

    def __init__(self, column: str) -> None:
        self.column = column
        self.name = f"replay:{column}"

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "replay", "column": self.column}

    def context(self, request: Request) -> Mapping[str, Any]:
        """The answer itself, so that a changed column is not confused with a cached one."""
        meta = request.sample.meta if request.sample else {}
        return {"answer": str(meta.get(self.column)), "there": self.column in meta}

    def missing_fields(self, sample: Callable[[], Sample]) -> str | None:
        meta = sample().meta
        if self.column in meta:
            return None
        known = ", ".join(meta) or "none"
        return f"a column {self.column!r} in the data, whose columns are: {known}"

    async def respond(self, requests: Sequence[Request]) -> list[Response]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Response:
        meta = request.sample.meta if request.sample else {}
        if self.column not in meta:
            known = ", ".join(meta) or "none"
            return failure(LookupError(f"no column {self.column!r} in the data; its columns: {known}"))
        value = meta[self.column]
        return Response("" if value is None else str(value))
