"""Local models on different devices race side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import snellen
from snellen.models.base import EVERYWHERE, LocalModel
from snellen.types import Kind, Response

PROTOCOL = "closed-set?rounds=1"


class Placed(LocalModel):
    """A model somewhere, whose threads meet at each answer."""

    kinds = frozenset({Kind.GENERATE})

    def __init__(self, name: str, place: str, meet: Callable[[], object]) -> None:
        self.name, self.place, self.meet = name, place, meet

    def identity(self):
        return {"placed": self.name}

    def answer(self, requests):
        self.meet()
        return [Response(str(request.sample.label)) for request in requests]


class TestPlaces:
    """Local models on different devices answer at the same time, those on one take turns."""

    def models(self, places: tuple[str, str], meet: Callable[[], object]) -> list[Placed]:
        return [Placed(name, place, meet) for name, place in zip("ab", places, strict=True)]

    def test_side_by_side(self, tmp_path):
        barrier = threading.Barrier(2)
        models = self.models(("cuda:0", "cuda:1"), lambda: barrier.wait(30))
        decision = snellen.choose(
            models=models, data="chart:shapes?n=28", protocols=[PROTOCOL], within=0.5, workspace=tmp_path
        )
        assert decision.choice is not None
        assert not barrier.broken

    @pytest.mark.parametrize("places", [("cuda:0", "cuda:0"), ("cuda:0", EVERYWHERE), ("cpu", "cpu")])
    def test_in_turn(self, places, tmp_path):
        lock = threading.Lock()

        def meet():
            assert lock.acquire(blocking=False)
            time.sleep(0.01)  # long enough for another one to come, if it could
            lock.release()

        decision = snellen.choose(
            models=self.models(places, meet),
            data="chart:shapes?n=28",
            protocols=[PROTOCOL],
            within=0.5,
            workspace=tmp_path,
        )
        assert decision.arms[0].errors == decision.arms[1].errors == 0
