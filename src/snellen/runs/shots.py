"""Choose the examples of a few-shot evaluation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from snellen._util.words import counted
from snellen.datasets.base import DATASETS, Dataset, Selection
from snellen.datasets.splits import named_split
from snellen.errors import BadOption, DataError, UsageError
from snellen.images.perceptual import pixel_hash
from snellen.protocols.base import Protocol
from snellen.types import Message, Sample

__all__ = ["few_shot"]


def few_shot(protocol: Protocol, selection: Selection, options: Mapping[str, Any], seed: int) -> Selection:
    """Return the samples with the examples that the protocol wants to show before each question.

    Examples are drawn from the data set's training split, or from ``shots_from``: at random by ``seed``,
    class by class if there are classes, the same for all samples. None has the pixels of a tested image.

    Args:
        options: of the data set.

    Raises:
        BadOption: there is no training split.
        DataError: there are too few examples.
    """
    if not protocol.shots:
        return selection
    source = _source(protocol, selection, options)
    tested: set[str] = set()
    for index in selection.indices:
        tested |= _looks(selection.data, index, selection) or set()
    shots: list[Message] = []
    count = 0
    for index in _order(source, selection, seed):
        looks = _looks(source, index, selection)
        if looks is None or tested & looks:
            continue
        turns = _turns(protocol, source.sample(index, selection.labels, selection.background))
        if turns is None:
            continue
        shots += turns
        count += 1
        if count == protocol.shots:
            return selection.after(tuple(shots))
    raise DataError(
        f"shots={protocol.shots}: {source.name} has only {counted(count, 'example')} with an answer "
        f"for {protocol.name} "
        "and an image that is not tested."
    )


def _looks(data: Dataset, index: int, selection: Selection) -> set[str] | None:
    """Return hashes of the pixels of an item's images, in whatever format; None if one cannot be read and may
    be skipped.

    Raises:
        DataError: one cannot be read.
    """
    try:
        return set(map(pixel_hash, data.sample(index, selection.labels, selection.background).images))
    except DataError:
        if not selection.skip_invalid:
            raise
        return None


def _source(protocol: Protocol, selection: Selection, options: Mapping[str, Any]) -> Dataset:
    """Open the data set that examples come from.

    Raises:
        BadOption: there is none.
    """
    if protocol.shots_from is not None:
        return DATASETS.make(protocol.shots_from)
    try:
        return named_split(selection.name, options, "train")
    except UsageError as error:
        raise BadOption(
            f"shots={protocol.shots}: {selection.name} has no training split to take examples from ({error}) "
            "Set where they are: -P shots_from=DATA"
        ) from error


def _order(source: Dataset, selection: Selection, seed: int) -> Iterator[int]:
    """Yield positions in random order; with classes, one of each class in turn."""
    rng = random.Random(f"snellen/shots/{seed}")
    order = rng.sample(range(len(source)), len(source))
    if not selection.labels:
        yield from order
        return
    decks: dict[str, list[int]] = {name: [] for name in rng.sample(selection.labels, len(selection.labels))}
    for index in order:
        label = source.row(index).label
        if label in decks:
            decks[label].append(index)
    for turn in range(max(map(len, decks.values()))):
        yield from (deck[turn] for deck in decks.values() if turn < len(deck))


def _turns(protocol: Protocol, sample: Sample) -> list[Message] | None:
    """Return the protocol's question about a sample, and the right answer; None if that is unknown."""
    answer = None if protocol.missing_fields(sample) else protocol.right_answer(sample)
    request = next(iter(next(protocol.examine(sample))), None)
    if answer is None or request is None:
        return None
    *asked, last = request.messages
    if last.role == "assistant":  # the start of the answer
        return [*asked, Message("assistant", (f"{last.text} {answer}",))]
    return [*request.messages, Message("assistant", (answer,))]
