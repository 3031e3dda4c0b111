"""A model that kills its own process when it is asked a certain word, or when it is loaded."""

from __future__ import annotations

import os
import time
from pathlib import Path

from snellen.models.base import MODELS, LocalModel
from snellen.types import Response


@MODELS.register("deadly", example="deadly:WORD")
def deadly(word: str, *, log: str | None = None, loads: bool = True, pause: float = 0.0) -> Deadly:
    """Says a word, or dies. Options: ``log`` (a file for what was asked), ``loads`` (false: dies then),
    ``pause`` (seconds a batch).
    """
    return Deadly(word, log, loads, pause)


class Deadly(LocalModel):
    def __init__(self, word: str, log: str | None, loads: bool, pause: float) -> None:
        self.word, self.log, self.loads, self.pause = word, log, loads, pause

    def identity(self):
        return {"deadly": self.word}

    def load(self):
        if not self.loads:
            os._exit(1)

    def answer(self, requests):
        asked = [request.messages[-1].text.splitlines()[0] for request in requests]
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write("".join(f"{line}\n" for line in asked))
        time.sleep(self.pause)
        if any("bang" in line for line in asked):
            os._exit(1)
        return [Response(self.word) for _ in requests]
