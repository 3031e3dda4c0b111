"""Turn samples into training examples: a conversation and the answer to learn. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from snellen.images import Image
from snellen.parsing.choices import LETTERS
from snellen.prompts import CAPTION, CLOSED_SET, MULTIPLE_CHOICE, OPEN_WORLD, SHORT_ANSWER, YES_NO, fill
from snellen.types import Message, Sample, ask

__all__ = ["Example", "TrainFormat", "examples"]

#: The questions to train a class on: without the names, with them, or both.
TrainFormat = Literal["both", "open", "names"]
#: The longest complete list of names; longer sets, and every other question, use a partial list.
WHOLE, SOME = 50, 20


@dataclass(frozen=True, slots=True)
class Example:
    """A training example: a prompt, and the answer, on which alone the loss is computed.

    Attributes:
        every: whether the loss covers the assistant's earlier answers, too.
    """

    messages: tuple[Message, ...]
    answer: str
    every: bool = False

    @property
    def images(self) -> tuple[Image, ...]:
        """All images, in order."""
        return tuple(image for message in self.messages for image in message.images)


def examples(
    sample: Sample,
    protocol: str | None,
    options: Mapping[str, Any],
    *,
    train_format: TrainFormat = "both",
    confused: Sequence[str] = (),
    whole: bool = False,
    seed: int = 0,
) -> list[Example]:
    """Return a sample's training examples, by the purpose of its data set; empty if the answer is unknown.

    A conversation: one example of all answers, or one for each of the assistant's turns. A question with
    options: the letter. A question with references, or a caption: the first reference. A class: its name,
    asked openly in one of the study's four wordings, and from a list of names in random order (all of them,
    up to 50, in half of the cases; otherwise up to 20 including the true one).

    Args:
        protocol, options: how the data set's authors evaluate it (``Dataset.protocol``); examples use the
            same prompts.
        train_format: which questions to train a class on.
        whole: whether a conversation is one example, if all of its images come before the first answer.
        confused: names to include in a partial list: hard negatives.
        seed: of wordings and lists.

    Source: Zhang et al., arXiv 2405.18415, section "improving": classification data as questions.
    """
    if sample.turns:
        return _conversation(sample.turns, whole)
    if sample.choices:
        return _lettered(sample)
    classifies = protocol in (None, "closed-set") and sample.label is not None
    if not classifies:
        return _examples_of(sample, protocol, options)
    assert sample.label is not None
    rng = random.Random(f"snellen/teach/{seed}/{sample.id}")
    pairs = []
    if train_format != "names":
        pairs.append(_example(sample, rng.choice(OPEN_WORLD), sample.label))
    if train_format != "open":
        pairs.append(
            _example(sample, fill(CLOSED_SET, names=", ".join(_names(sample, confused, rng))), sample.label)
        )
    return pairs


def _conversation(turns: tuple[Message, ...], whole: bool) -> list[Example]:
    answers = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    if whole and not any(turn.images for turn in turns[answers[0] :]):
        return [Example(turns[: answers[-1]], turns[answers[-1]].text, every=True)]
    return [Example(turns[:i], turns[i].text) for i in answers]


def _example(sample: Sample, text: str, answer: str) -> Example:
    return Example(ask(sample.images, text).messages, answer)


def _lettered(sample: Sample) -> list[Example]:
    if len(sample.answers) != 1:
        return []
    rows = [f"{letter}. {text}" for letter, text in zip(LETTERS, sample.choices, strict=False)]
    text = fill(MULTIPLE_CHOICE, question=sample.question or "", options="\n".join(rows))
    return [_example(sample, text, LETTERS[sample.answers[0]])]


def _examples_of(sample: Sample, protocol: str | None, options: Mapping[str, Any]) -> list[Example]:
    if not sample.references or not sample.references[0].strip():
        return []
    question = sample.question or ""
    if protocol == "caption" or not question:
        prompt = CAPTION
    else:
        prompt = {"yes-no": YES_NO, "instruct": "{question}"}.get(protocol or "", SHORT_ANSWER)
    text = fill(str(options.get("prompt", prompt)), question=question)
    return [_example(sample, text, sample.references[0].strip())]


def _names(sample: Sample, confused: Sequence[str], rng: random.Random) -> list[str]:
    """Return the candidate names in random order, including the true one."""
    others = [name for name in sample.labels if name not in (sample.label, *sample.also)]
    if len(sample.labels) > WHOLE or rng.random() < 0.5:
        count = rng.randint(1, max(1, min(SOME, len(sample.labels)) - 1))
        hard = [name for name in confused if name in others][:count]
        rest = [name for name in others if name not in hard]
        others = hard + rng.sample(rest, min(len(rest), count - len(hard)))
    names = [str(sample.label), *others]
    rng.shuffle(names)
    return names
