"""Look once: many questions about an image for the price of one look at it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from snellen.models.huggingface.prefix_cache.decode import (
    MOST_NODES,
    BatchedSuffixes,
    Suffix,
    Suffixes,
    greedy,
)
from snellen.models.huggingface.prefix_cache.inputs import ImageContext
from snellen.models.huggingface.prefix_cache.prefill import Prefix, cached_bytes
from snellen.models.huggingface.prefix_cache.trie import common

__all__ = ["Question", "Scheduler", "group"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Question:
    """A prompt about a look, and the continuations that are scored, if any.

    Attributes:
        prompt: as the chat template rendered it.
        ids: its tokens, images included.
        tails: the tokens of each continuation.
    """

    prompt: str
    look: ImageContext
    ids: list[int]
    tails: tuple[list[int], ...] = ()

    @property
    def shareable(self) -> int:
        """How many tokens may be a prefix: a prompt that is continued keeps one to continue from."""
        return len(self.ids) if self.tails else len(self.ids) - 1


def group(questions: Sequence[Question]) -> list[list[int]]:
    """The places of questions that have their images, and all before them, in common."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, question in enumerate(questions):
        look = question.look
        groups.setdefault((look.images, *question.ids[: max(1, look.seen)]), []).append(place)
    return list(groups.values())


class Scheduler:
    """Answers questions from shared prefixes.

    Args:
        model: a decoder with images of transformers.
        branches: how branches grow: :class:`Packed` or :class:`BatchedSuffixes`.
        images: how many looks are prefilled together.
        budget: bytes for everything but the weights.
        kept: how many prefixes are kept for questions to come.
    """

    def __init__(
        self, model: Any, branches: type[Suffixes], images: int, budget: Callable[[], int], kept: int = 16
    ) -> None:
        self._model, self.branches, self._images, self.budget = model, branches, images, budget
        self._prefixes: OrderedDict[ImageContext, Prefix] = OrderedDict()
        self._kept = kept
        #: How many branches fitted into memory, once some did not.
        self._fits: int | None = None

    def generate(
        self, questions: Sequence[Question], max_tokens: int, ends: frozenset[int]
    ) -> list[list[int]]:
        """The tokens of each greedy answer, the one that ends it included."""

        def run(branches: Suffixes, _: Sequence[int]) -> list[list[int]]:
            return greedy(branches, max_tokens, ends)

        answers = self._over(questions, [[question.ids] for question in questions], run, max_tokens)
        return [answer for (answer,) in answers]

    def score(self, questions: Sequence[Question]) -> list[list[float]]:
        """The log-likelihood of each tail of each question."""

        def run(branches: Suffixes, begins: Sequence[int]) -> list[float]:
            return branches.likelihoods(begins)

        wholes = [[[*question.ids, *tail] for tail in question.tails] for question in questions]
        return self._over(questions, wholes, run, None)

    def _over(
        self,
        questions: Sequence[Question],
        wholes: Sequence[Sequence[list[int]]],
        run: Callable[[Suffixes, Sequence[int]], list[T]],
        more: int | None,
    ) -> list[list[T]]:
        """Run over all branches of all questions.

        Args:
            wholes: the sequences of each question that branches follow, from the prompt's first token.
            run: what to do with branches, and with where, in each suffix, its question's prompt ends.
            more: how many tokens each branch is yet to grow; None where they are scored.
        """
        answers: dict[tuple[int, int], T] = {}
        for prefix, members in self.prefixed(questions, more):
            branches: list[Suffix] = []
            places: list[tuple[int, int]] = []
            for image, question in members:
                for number, stem in enumerate(wholes[question]):
                    branches.append((image, stem[prefix.length :]))
                    places.append((question, number))
            begins = [len(questions[question].ids) - prefix.length for question, _ in places]
            for chunk, results in self._in_chunks(prefix, branches, begins, run, more):
                answers |= zip((places[i] for i in chunk), results, strict=True)
        return [[answers[i, number] for number in range(len(stem))] for i, stem in enumerate(wholes)]

    def _in_chunks(
        self,
        prefix: Prefix,
        branches: Sequence[Suffix],
        begins: Sequence[int],
        run: Callable[[Suffixes, Sequence[int]], list[T]],
        more: int | None,
    ) -> Iterator[tuple[list[int], list[T]]]:
        """Run within the budget; where memory runs out all the same, over half as many from then on.

        Raises:
            torch.OutOfMemoryError: a single branch does not fit.
        """
        import torch

        budget = self.budget()
        todo = deque(self.branches.cut(prefix, branches, budget, more))
        while todo:
            chunk = todo.popleft()
            if self._fits is not None and len(chunk) > self._fits:
                todo.appendleft(chunk[self._fits :])
                chunk = chunk[: self._fits]
            suffixes = self.branches(prefix, [branches[i] for i in chunk])
            try:
                results = run(suffixes, [begins[i] for i in chunk])
            except torch.OutOfMemoryError:
                if len(chunk) == 1:
                    raise
                self._fits = len(chunk) // 2
                todo.appendleft(chunk)
                continue
            yield chunk, results

    def prefixed(
        self, questions: Sequence[Question], more: int | None
    ) -> Iterator[tuple[Prefix, list[tuple[int, int]]]]:
        """Prefixes, each with the questions that begin with it, as (number of the image, question)."""
        import torch

        alike: dict[tuple[Any, ...], list[list[int]]] = {}
        for members in group(questions):
            alike.setdefault(questions[members[0]].look.shape, []).append(members)
        for groups in alike.values():
            while groups:
                together = groups[: self._images]
                try:
                    prefix = self._prefix(
                        [[questions[i] for i in members] for members in together], more or 0
                    )
                except torch.OutOfMemoryError:
                    if len(together) == 1:
                        raise
                    self._images = len(together) // 2
                    continue
                groups = groups[len(together) :]
                yield prefix, [(number, i) for number, members in enumerate(together) for i in members]

    def _prefix(self, groups: Sequence[Sequence[Question]], more: int) -> Prefix:
        """A kept prefix, or a new one."""
        if len(groups) > 1:
            return self._prefill(groups, more)
        look = groups[0][0].look
        kept = self._prefixes.pop(look, None)
        if kept is None or not all(kept.begins(question.ids, question.shareable) for question in groups[0]):
            kept = self._prefill(groups, more)
        self._prefixes[look] = kept
        while len(self._prefixes) > 1 and (
            len(self._prefixes) > self._kept
            or sum(prefix.nbytes for prefix in self._prefixes.values()) > self.budget() // 4
        ):
            self._prefixes.popitem(last=False)
        return kept

    def _prefill(self, groups: Sequence[Sequence[Question]], more: int) -> Prefix:
        length = min(
            min(common([question.ids for question in members]), *(q.shareable for q in members))
            for members in groups
        )
        looks = [members[0].look for members in groups]
        # Nodes that suffixes share are counted for each: more room than is needed.
        room = max(
            sum(len(q.ids) - length + more + sum(map(len, q.tails)) for q in members) for members in groups
        )
        spare = self.budget() // (4 * len(groups) * cached_bytes(self._model))
        ids = [members[0].ids for members in groups]
        room, recurrent = min(room, MOST_NODES, spare), self.branches is BatchedSuffixes
        return Prefix(self._model, looks, ids, length, room=room, recurrent=recurrent)
