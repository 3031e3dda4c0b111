"""A model that kills its own process when it is asked a certain word."""

from __future__ import annotations

import os

from snellen.models.base import LocalModel
from snellen.registry import MODELS
from snellen.types import Response


@MODELS.register("deadly", example="deadly:WORD")
def deadly(word: str) -> Deadly:
    """Says a word, or dies."""
    return Deadly(word)


class Deadly(LocalModel):
    def __init__(self, word: str) -> None:
        self.word = word

    def identity(self):
        return {"deadly": self.word}

    def answer(self, requests):
        if any("bang" in request.messages[-1].text for request in requests):
            os._exit(1)
        return [Response(self.word) for _ in requests]


def known() -> None:
    """Told to every process that is to know this model."""
