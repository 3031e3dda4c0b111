"""How fast images are made ready for a model: read, hashed, decoded, and their previews stored.

``python benchmarks/feeding.py [IMAGES] [SIDE]`` runs a model that answers at once over photos drawn as JPEG,
once as if it computed on the processor (one thread makes ready) and once as if on a GPU (several threads), in
turn, each in a new workspace. Printed are images a second, medians, and the ratio within a repetition.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import snellen
from snellen.models.base import Model
from snellen.types import Request, Response

REPETITIONS = 3


class AtOnce(Model):
    """Answers at once, wherever it seems to be."""

    def __init__(self, place: str) -> None:
        self.name, self.place, self.batch_size = "at once", place, 64

    def identity(self) -> Mapping[str, Any]:
        return {"model": "at once"}

    async def respond(self, requests: Sequence[Request]) -> list[Response]:
        return [Response("a") for _ in requests]


def photos(folder: Path, count: int, side: int) -> None:
    """Draw clouds of colors with some noise, which compress like photos."""
    rng = np.random.default_rng(0)
    for number in range(count):
        small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)
        noisy = np.asarray(picture, dtype=np.int16) + rng.integers(-9, 10, (side * 3 // 4, side, 3))
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=88)


def rate(folder: Path, place: str, count: int) -> float:
    """Return images a second."""
    with tempfile.TemporaryDirectory() as workspace:
        began = time.perf_counter()
        run = snellen.run(
            model=AtOnce(place),
            data=f"folder:{folder}",
            protocol="closed-set?rounds=1",
            workspace=workspace,
            progress=False,
        )
        assert run.metrics.n == count
        return count / (time.perf_counter() - began)


def main() -> None:
    """Measure, and print."""
    count, side = (int(word) for word in [*sys.argv[1:], *("400", "1600")[len(sys.argv) - 1 :]])
    with tempfile.TemporaryDirectory() as folder:
        photos(Path(folder), count, side)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.jpg")) / count / 1000
        rates = [
            [rate(Path(folder), place, count) for place in ("cpu", "cuda:0")] for _ in range(REPETITIONS)
        ]
    one, several = (statistics.median(column) for column in zip(*rates, strict=True))
    times = sorted(row[1] / row[0] for row in rates)
    print(f"{count} photos of {side} x {side * 3 // 4}, {size:.0f} KB each")
    print(f"one thread: {one:.1f} images/s, several: {several:.1f} images/s")
    print(f"{times[len(times) // 2]:.2f} times ({times[0]:.2f} to {times[-1]:.2f})")


if __name__ == "__main__":
    main()
