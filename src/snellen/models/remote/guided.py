"""Answers that a server makes one of several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

__all__ = ["guide", "unguided"]


def guide(how: Literal["none", "choice", "schema"], answers: Sequence[str]) -> dict[str, Any]:
    """Return what a request's body needs so that the answer is one of these.

    Args:
        how: ``choice``: structured outputs of vLLM (docs.vllm.ai, features/structured_outputs); ``schema``:
            a JSON schema with an enumeration, as OpenAI's (platform.openai.com, guides/structured-outputs).
        answers: what may be answered.
    """
    if how == "choice":
        # Some templates end where the answer's first token begins with a space: without one, the model
        # would be made to say what it never says (0 of 28 answers were right, with one 28).
        return {"structured_outputs": {"choice": [*answers, *(f" {answer}" for answer in answers)]}}
    if how == "schema":
        answer = {"type": "string", "enum": list(dict.fromkeys(answers))}
        schema = {
            "type": "object",
            "properties": {"answer": answer},
            "required": ["answer"],
            "additionalProperties": False,
        }
        form = {"name": "answer", "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    return {}


def unguided(text: str) -> str:
    """Return the answer within a text of that schema; the text itself if it has another form (cut off).

    >>> unguided('{"answer": "star"}')
    'star'
    """
    try:
        return str(json.loads(text)["answer"])
    except (ValueError, KeyError, TypeError):
        return text
