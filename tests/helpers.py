"""A model that answers by script, and what drives a protocol without any model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from snellen.images import Image, encode
from snellen.models.base import MODELS, Model
from snellen.types import Examination, Kind, Outcome, Prediction, Request, Response, Sample, Score

T = TypeVar("T")
#: A text, a response, or the scores of continuations.
Script = Callable[[Request], Any]


#: The folder of the tests, and the repository's.
TESTS = Path(__file__).parent
ROOT = TESTS.parent


#: Texts that try to run in a page, a terminal or a database.
PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onfocus=alert(1) autofocus x='",
    "</textarea><script>alert(1)</script>",
    "</pre></details><iframe src=//evil.example></iframe>",
    "javascript:alert(1)",
    "[x](javascript:alert(1)) ![x](http://evil.example/x.png) <http://evil.example>",
    "{{ 7 * 7 }}{% raw %}",
    "\x00<\x00script>\u202e",
]


def until(value_of: Callable[[], T], seconds: float = 60) -> T:
    """Wait until there is what is looked for, and give it."""
    end = time.monotonic() + seconds
    while not (value := value_of()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return value


def made(kind: type[T], name: str, options: Mapping[str, str] | None = None) -> T:
    """A model of a known class, by its name."""
    model = MODELS.make(name, options or {})
    assert isinstance(model, kind)
    return model


def assert_alike(one: Any, other: Any, where: str = "") -> None:
    """The same, but for the last digits of a number, which vary with the batch and the processor."""
    if isinstance(one, float) and isinstance(other, float):
        assert one == other or math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-4), f"{where}: {one} {other}"
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_alike(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        assert len(one) == len(other), where
        for place, pair in enumerate(zip(one, other, strict=True)):
            assert_alike(*pair, f"{where}[{place}]")
    else:
        assert one == other, where


def as_response(reply: str | Response | Iterable[float]) -> Response:
    if isinstance(reply, Response):
        return reply
    if isinstance(reply, str):
        return Response(reply)
    return Response(scores=tuple(Score(value, 1) for value in reply))


class Scripted(Model):
    """Answers by function, and keeps every request and the sizes of the batches."""

    def __init__(self, script: Script, name: str = "scripted", batch_size: int = 4, workers: int = 1):
        self.script, self.name = script, name
        self.batch_size, self.workers = batch_size, workers
        self.asked: list[Request] = []
        self.batches: list[int] = []
        self.loads = 0

    def identity(self) -> Mapping[str, Any]:
        return {"scripted": self.name}

    def load(self) -> None:
        self.loads += 1

    async def respond(self, requests: Sequence[Request]) -> list[Response]:
        self.batches.append(len(requests))
        self.asked += requests
        return [as_response(self.script(request)) for request in requests]


def picture(color: str = "red", size: tuple[int, int] = (16, 16)) -> Image:
    from PIL import Image as pillow

    return Image(lambda: encode(pillow.new("RGB", size, color)), f"a {color} picture")


def sample(labels: Sequence[str], label: str | None = None, **more: Any) -> Sample:
    return Sample(more.pop("id", "s1"), (picture(),), label=label, labels=tuple(labels), **more)


def converse(
    exam: Examination, script: Script, request_batches: list[int] | None = None
) -> tuple[Prediction, list[Request]]:
    """Drive one examination by script; the prediction and all requests."""
    asked: list[Request] = []
    try:
        request_batch = next(exam)
        while True:
            asked += request_batch
            if request_batches is not None:
                request_batches.append(len(request_batch))
            request_batch = exam.send([as_response(script(request)) for request in request_batch])
    except StopIteration as stop:
        return stop.value, asked


def text_of(request: Request) -> str:
    return request.messages[-1].text


REFUSED = Response("", outcome=Outcome.REFUSED, reason="content filter")
FAILED = Response(outcome=Outcome.ERROR, reason="RuntimeError: out of luck")
__all__ = ["FAILED", "REFUSED", "Kind", "Scripted", "as_response", "converse", "picture", "sample", "text_of"]


#: What :func:`film` shows.
COLORS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]


def film(path: Path, colors: Any = COLORS, each: int = 6, codec: str = "mpeg4") -> None:
    """A video that shows each color for some frames."""
    import av
    from PIL import Image as pillow

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for color in colors:
            for _ in range(each):
                frame = av.VideoFrame.from_image(pillow.new("RGB", (64, 48), color))
                container.mux(stream.encode(frame))
        container.mux(stream.encode())


def command_line(*arguments: str) -> int:
    """Run a command in this process, and return its exit code."""
    import pytest

    from snellen import cli

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["snellen", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    return int(stop.value.code or 0)
