"""The layout of kept eye tests: what pages may rely on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from snellen.storage.document_file import DocumentPart, Number

__all__ = ["CardDocument"]


class LevelDocument(DocumentPart):
    """A score at a level, with its interval."""

    level: Number
    value: Number
    low: Number
    high: Number


class FittedDocument(DocumentPart):
    """A point of a fitted curve."""

    level: Number
    value: Number


class ExampleDocument(DocumentPart):
    """What was shown at a level: the SHA-256 of an image."""

    level: Number
    image: str


class ResultDocument(DocumentPart):
    """A model's result.

    Attributes:
        threshold: the level halfway to guessing, with its interval, as far as they are known.
        plain: the score of undegraded images.
    """

    model: str
    run: str
    points: list[LevelDocument]
    curve: list[FittedDocument]
    threshold: Number | None
    low: Number | None
    high: Number | None
    plain: Number | None
    text: str


class PanelDocument(DocumentPart):
    """A chart, or a degradation; levels are from easy to hard."""

    name: str
    about: str
    score: str
    levels: Annotated[list[Number], Field(min_length=1)]
    guess: Number | None
    examples: list[ExampleDocument]
    results: Annotated[list[ResultDocument], Field(min_length=1)]


class CardDocument(DocumentPart):
    """:func:`snellen.eye_test.record.card_content`."""

    models: list[str]
    panels: Annotated[list[PanelDocument], Field(min_length=1)]
