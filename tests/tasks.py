"""What the tests of tasks share."""

from __future__ import annotations

from helpers import sample
from snellen.types import Sample

OPTIONS = ("a star", "a circle", "a ring", "a moon")


def question(options=OPTIONS, answers=(1,), **more) -> Sample:
    return sample((), question="What is it?", choices=tuple(options), answers=tuple(answers), **more)
