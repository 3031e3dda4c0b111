"""Whether a model supports a protocol."""

from __future__ import annotations

from snellen.datasets.base import Selection
from snellen.engine.asking import examination
from snellen.errors import Unsupported
from snellen.models.base import Model, PromptSize
from snellen.protocols.base import Protocol
from snellen.types import Kind

__all__ = ["incompatibility", "refuse_too_long", "size_of_first"]


def incompatibility(model: Model, protocol: Protocol) -> str | None:
    """Return why a model does not support a protocol, or None if it does."""
    if protocol.requires not in model.kinds:
        kinds = model.kinds - {Kind.CONSTRAIN} - ({Kind.CHOOSE} if Kind.SCORE in model.kinds else set())
        can = " and ".join(sorted(kinds))
        return f"{model.name} can {can}, but {protocol.name} needs {protocol.requires}"
    if protocol.shots and (Kind.GENERATE not in model.kinds or model.fixed):
        return f"{model.name} sees one question at a time, but {protocol.name} is to show examples (shots)"
    if protocol.repeats > 1 and model.fixed:
        return f"{model.name} has recorded answers, but {protocol.name} is to ask several times (repeats)"
    if protocol.permutes_choices and model.fixed:
        return f"{model.name} has recorded answers, but {protocol.name} (circular) permutes option letters"
    if protocol.without_image and not model.text_only:
        return f"{model.name} needs an image in every request, but {protocol.name} (pmi) omits it"
    return None


def size_of_first(model: Model, protocol: Protocol, data: Selection) -> PromptSize | None:
    """Return the size of the first prompt for the first sample; None if the model does not know it."""
    request = next(iter(next(examination(protocol, data.first()))), None)
    return None if request is None else model.prompt_size(request)


def refuse_too_long(model: Model, protocol: Protocol, data: Selection) -> None:
    """Refuse a protocol whose text alone, for the first sample, exceeds a loaded model's context.

    Raises:
        Unsupported: as stated.
    """
    size = size_of_first(model, protocol, data)
    if size is not None and size.context is not None and size.text_tokens > size.context:
        raise Unsupported(
            f"The prompt of {protocol.name} for {data.name} has {size.text_tokens:,} tokens, and the context "
            f"of {model.name} is {size.context:,}. {protocol.if_too_long}"
        )
