"""The layout of documents that are kept for the browser: what pages may rely on."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Count", "DocumentFile", "DocumentPart", "Number"]

#: Finite, and of a size that can be drawn.
Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**12)]


class DocumentPart(BaseModel):
    """What all parts share: nothing is converted; what is not known is kept."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


Content = TypeVar("Content", bound=BaseModel)


class DocumentFile(DocumentPart, Generic[Content]):
    """A file in a folder of a workspace.

    Attributes:
        process: that wrote it, and will again while it is running.
    """

    schema_version: Literal[1] = Field(alias="schema")
    id: str
    created: str
    data: str
    status: Literal["running", "interrupted", "finished"]
    process: dict[str, Any]
    content: Content
