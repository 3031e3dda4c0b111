"""The layout of kept decisions and reviews of labels: what pages may rely on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from snellen.storage.document_file import Count, DocumentPart, Number

__all__ = ["DecisionDocument", "ReviewDocument"]


class GapDocument(DocumentPart):
    """A difference with its confidence sequence."""

    value: Number
    low: Number
    high: Number
    more: Count | None
    evidence: Number


class ArmDocument(DocumentPart):
    """A model in the race."""

    name: str
    run: str
    score: Number
    images: Count
    gap: GapDocument | None
    cost: Number | None
    status: str


class LookDocument(DocumentPart):
    """How models stood to the recommended one after so many images."""

    images: Count
    gaps: dict[str, GapDocument]


class DecisionDocument(DocumentPart):
    """:meth:`snellen.decisions.decision.Decision.as_dict`, as far as pages show it."""

    choice: str | None
    tied: list[str]
    leader: str
    sentence: str
    effort: str
    images: Count
    of: Count
    within: Number
    confidence: Number
    score: str
    weighing: str
    population: bool
    enough: Number
    arms: Annotated[list[ArmDocument], Field(min_length=1)]
    history: list[LookDocument]
    notes: list[str]


class SuspectDocument(DocumentPart):
    """An image whose label models contradict."""

    id: str
    label: str
    suggested: str
    agreeing: Count
    of: Count
    quality: Number
    image: str


class ReviewDocument(DocumentPart):
    """:meth:`snellen.decisions.labels.LabelReview.as_dict`, as far as pages show it."""

    data: str
    fingerprint: str
    runs: list[str]
    classes: list[str]
    n: Count
    sentence: str
    suspects: list[SuspectDocument]
    contradicted: Count
    duplicates: list[tuple[str, str, str, str]]
    unfit: list[str]
    notes: list[str]
