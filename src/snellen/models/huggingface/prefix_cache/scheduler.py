"""Look once: many questions about an image for the price of one look at it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
from snellen.models.out_of_memory import Shrinking, release

__all__ = ["Question", "Scheduler", "group"]

T = TypeVar("T")

#: How often the budget is halved at most.
MOST_CUTS = 6


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
        self._cuts = 0
        #: How many images, and how many branches behind them, fit into memory at once.
        self.memory, self.suffix_memory = Shrinking(self._free), Shrinking(self._free)

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
        for groups in self._alike(questions):
            while groups:
                together = groups[: self.memory.size(self._images)]
                work = partial(self._over_groups, questions, together, wholes, run, more)
                fitted, results = self.memory.attempt(len(together), work)
                if fitted and results is not None:
                    answers |= results
                    groups = groups[len(together) :]
        return [[answers[i, number] for number in range(len(stem))] for i, stem in enumerate(wholes)]

    def _over_groups(
        self,
        questions: Sequence[Question],
        groups: Sequence[Sequence[int]],
        wholes: Sequence[Sequence[list[int]]],
        run: Callable[[Suffixes, Sequence[int]], list[T]],
        more: int | None,
    ) -> dict[tuple[int, int], T]:
        """Results by question and number of its branch, of questions about images of one shape."""
        prefix = self._prefix([[questions[i] for i in members] for members in groups], more or 0)
        branches: list[Suffix] = []
        places: list[tuple[int, int]] = []
        for image, members in enumerate(groups):
            for question in members:
                for number, stem in enumerate(wholes[question]):
                    branches.append((image, stem[prefix.length :]))
                    places.append((question, number))
        begins = [len(questions[question].ids) - prefix.length for question, _ in places]
        results: dict[tuple[int, int], T] = {}
        for chunk, values in self._in_chunks(prefix, branches, begins, run, more):
            results |= zip((places[i] for i in chunk), values, strict=True)
        return results

    def _in_chunks(
        self,
        prefix: Prefix,
        branches: Sequence[Suffix],
        begins: Sequence[int],
        run: Callable[[Suffixes, Sequence[int]], list[T]],
        more: int | None,
    ) -> Iterator[tuple[list[int], list[T]]]:
        """Run within the budget; where memory runs out all the same, half as many from then on.

        Raises:
            OutOfMemory: a single branch does not fit.
        """
        todo = deque(self.branches.cut(prefix, branches, self._room(), more))
        while todo:
            chunk = todo.popleft()
            size = self.suffix_memory.size(len(chunk))
            if len(chunk) > size:
                todo.appendleft(chunk[size:])
                chunk = chunk[:size]
            fitted, results = self.suffix_memory.attempt(
                len(chunk), partial(self._run_chunk, prefix, branches, begins, run, chunk)
            )
            if fitted and results is not None:
                yield chunk, results
            else:
                todo.appendleft(chunk)

    def _run_chunk(
        self,
        prefix: Prefix,
        branches: Sequence[Suffix],
        begins: Sequence[int],
        run: Callable[[Suffixes, Sequence[int]], list[T]],
        chunk: Sequence[int],
    ) -> list[T]:
        return run(self.branches(prefix, [branches[i] for i in chunk]), [begins[i] for i in chunk])

    def _alike(self, questions: Sequence[Question]) -> list[list[list[int]]]:
        """Groups of questions about the same images, by the shape of those."""
        alike: dict[tuple[Any, ...], list[list[int]]] = {}
        for members in group(questions):
            alike.setdefault(questions[members[0]].look.shape, []).append(members)
        return list(alike.values())

    def prefixed(
        self, questions: Sequence[Question], more: int
    ) -> Iterator[tuple[Prefix, list[tuple[int, int]]]]:
        """Prefixes, each with the questions that begin with it, as (number of the image, question)."""
        for groups in self._alike(questions):
            for first in range(0, len(groups), self._images):
                together = groups[first : first + self._images]
                prefix = self._prefix([[questions[i] for i in members] for members in together], more)
                yield prefix, [(number, i) for number, members in enumerate(together) for i in members]

    def _room(self) -> int:
        """Bytes that caches may take now: less and less, where memory ran out within the budget."""
        return max(1, self.budget() >> self._cuts)

    def _free(self) -> None:
        """Give back the prefixes that are kept, and plan with half the budget."""
        self._prefixes.clear()
        self._cuts = min(self._cuts + 1, MOST_CUTS)
        release()

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
            or sum(prefix.nbytes for prefix in self._prefixes.values()) > self._room() // 4
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
        spare = self._room() // (4 * len(groups) * cached_bytes(self._model))
        ids = [members[0].ids for members in groups]
        room, recurrent = min(room, MOST_NODES, spare), self.branches is BatchedSuffixes
        return Prefix(self._model, looks, ids, length, room=room, recurrent=recurrent)
