"""Images are made ready while a model computes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helpers import Scripted, sample, text_of
from snellen.api import run
from snellen.engine.loop import first_requests
from snellen.errors import ImageError
from snellen.images import Image
from snellen.protocols.closed_set import ClosedSet
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan
from snellen.types import Request


class Elsewhere(Scripted):
    """A model of some place, whose images are only looked at by so many threads together."""

    def __init__(self, place: str, hands: int) -> None:
        super().__init__(lambda request: "star", batch_size=4)
        self.place = place
        self.threads: set[int] = set()
        self.barrier = threading.Barrier(hands)

    def prepare(self, image: Image) -> None:
        self.barrier.wait(timeout=60)
        self.threads.add(threading.get_ident())


@pytest.mark.parametrize(("place", "hands"), [("cpu", 1), ("cuda:0", 2)])
def test_a_model_on_a_gpu_leaves_the_processor_to_its_images(
    place: str, hands: int, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    model = Elsewhere(place, hands)
    result = run(model=model, data="chart:shapes", protocol="closed-set?rounds=1", limit=8)
    assert result.metrics.n == 8
    assert [row["position"] for row in result.findings()] == list(range(8))
    assert len(model.threads) >= hands


@pytest.mark.parametrize("place", ["cpu", "cuda:0"])
def test_a_broken_image_is_named_or_left_out(
    place: str, workspace: Path, photos: Path, tmp_path: Path
) -> None:
    for number, kind in enumerate(("star", "key") * 3):
        file = tmp_path / "photos" / kind / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        data = (photos / kind / "0.png").read_bytes()
        file.write_bytes(data[:60] if number == 3 else data)
    asked: dict[str, Any] = {"data": f"folder:{tmp_path}/photos", "protocol": "closed-set?rounds=1"}
    with pytest.raises(ImageError, match=r"3\.png.*--skip-invalid"):
        run(model=Elsewhere(place, 1), **asked)
    result = run(model=Elsewhere(place, 1), **asked, skip_invalid=True)
    assert (result.metrics.n, result.metrics.skipped) == (5, 1)


class TestForesight:
    """A model learns what will be asked next while it answers."""

    class Foreseeing(Scripted):
        def __init__(self, script):
            super().__init__(script, batch_size=4)
            self.foreseen: list[Request] = []

        prefetches = True

        def prefetch(self, requests):
            self.foreseen += requests

    def run(self, model, workspace, **more):
        plan = Plan(
            models=[model],
            data=["chart:shapes"],
            protocols=["closed-set?rounds=2"],
            filters=Filters(limit=12),
            workspace=workspace,
            **more,
        )
        plan.run()
        return model

    def test_the_first_wave_of_each_block(self, workspace):
        model = self.run(self.Foreseeing(lambda r: "star"), workspace)
        assert [text_of(r) for r in model.foreseen] == [text_of(r) for r in model.asked]
        assert len(model.asked) == 24

    def test_not_what_is_remembered(self, workspace):
        self.run(self.Foreseeing(lambda r: "star"), workspace)
        again = self.Foreseeing(lambda r: "star")
        # Another run of the same questions: at most until the memory is seen to hold them.
        plan = Plan(
            models=[again],
            data=["chart:shapes"],
            protocols=["closed-set?rounds=2"],
            filters=Filters(limit=13),
            workspace=workspace,
        )
        plan.run()
        assert len(again.asked) == 2
        assert len(again.foreseen) < 24

    def test_a_protocol_that_fails_is_not_reported_twice(self):
        class Broken(ClosedSet):
            def examine(self, sample):
                raise RuntimeError("no")
                yield

        assert first_requests([(i, sample(("cat", "dog"), id=f"s{i}")) for i in range(3)], Broken()) == []


def test_two_images_are_read_at_the_same_time() -> None:
    """On every version of Python: no lock is shared by all images."""
    barrier = threading.Barrier(2)

    def load() -> bytes:
        barrier.wait(timeout=60)
        return b"picture"

    images = [Image(load, name) for name in "ab"]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda image: image.sha256, images)) == [images[0].sha256] * 2
    assert images[0].data is images[0].data, "it is read once"
