"""The layout of a stored decision: what pages may rely on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["DecisionDocument", "DecisionFile"]

#: Finite, and of a size that can be drawn.
Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**12)]


class DecisionPart(BaseModel):
    """What all parts share: nothing is converted; what is not known is kept."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class GapDocument(DecisionPart):
    """A difference with its confidence sequence."""

    value: Number
    low: Number
    high: Number


class ArmDocument(DecisionPart):
    """A model in the race."""

    name: str
    run: str
    score: Number
    images: Count
    gap: GapDocument | None
    cost: Number | None
    status: str


class LookDocument(DecisionPart):
    """How models stood to the recommended one after so many images."""

    images: Count
    gaps: dict[str, GapDocument]


class DecisionDocument(DecisionPart):
    """:meth:`snellen.decisions.decision.Decision.as_dict`, as far as pages show it."""

    choice: str | None
    tied: list[str]
    leader: str
    sentence: str
    within: Number
    confidence: Number
    score: str
    weighing: str
    population: bool
    arms: Annotated[list[ArmDocument], Field(min_length=1)]
    history: list[LookDocument]
    notes: list[str]


class DecisionFile(DecisionPart):
    """A file in the folder ``decisions`` of a workspace."""

    schema_version: Literal[1] = Field(alias="schema")
    id: str
    created: str
    data: str
    decision: DecisionDocument
