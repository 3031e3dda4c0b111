"""Look once: many questions about an image for the price of encoding it once."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from snellen.models.huggingface.prefix_cache.decode import MOST_NODES, Suffix, Suffixes, greedy
from snellen.models.huggingface.prefix_cache.inputs import ImageContext
from snellen.models.huggingface.prefix_cache.packed import PackedSuffixes
from snellen.models.huggingface.prefix_cache.prefill import Prefix, cached_bytes
from snellen.models.huggingface.prefix_cache.rows import BatchedSuffixes
from snellen.models.huggingface.prefix_cache.trie import common
from snellen.models.out_of_memory import Shrinking, release

if TYPE_CHECKING:
    from snellen.models.huggingface.prefix_cache.graphs import Graphs

__all__ = ["Question", "Scheduler", "group"]

T = TypeVar("T")

#: The tokens of a prefill from which on more images gain nothing: 64 images of 576 tokens with the questions
#: of a closed set, the most that was measured.
ENOUGH_TOKENS = 65_536
#: The most times that the budget is halved.
MOST_CUTS = 6


@dataclass(frozen=True, eq=False)
class Question:
    """A prompt with its image context, and continuations to score, if any.

    Attributes:
        prompt: as rendered by the chat template.
        ids: its tokens, including those of images.
        tails: the tokens of each continuation.
    """

    prompt: str
    look: ImageContext
    ids: list[int]
    tails: tuple[list[int], ...] = ()

    @property
    def shareable(self) -> int:
        """The number of tokens that may form a prefix: a prompt with continuations keeps its last token."""
        return len(self.ids) if self.tails else len(self.ids) - 1


def group(questions: Sequence[Question]) -> list[list[int]]:
    """Group questions, by index, that share their images and everything before them."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, question in enumerate(questions):
        look = question.look
        groups.setdefault((look.images, *question.ids[: max(1, look.seen)]), []).append(place)
    return list(groups.values())


def _length(members: Sequence[Question]) -> int:
    """Return the number of tokens that questions about an image share."""
    return min(common([question.ids for question in members]), *(q.shareable for q in members))


def _behind(members: Sequence[Question], length: int, more: int) -> int:
    """Return the number of tokens behind a prefix of this length, with as many more for each question. Shared
    ones are counted once per question, which overestimates it.
    """
    return sum(len(q.ids) - length + more + sum(map(len, q.tails)) for q in members)


class Scheduler:
    """Answers questions from shared prefixes.

    Args:
        model: a transformers decoder with images.
        branches: how branches grow: :class:`Packed` or :class:`BatchedSuffixes`.
        images: the number of contexts to prefill together.
        budget: bytes for everything except the weights.
        kept: the number of prefixes cached for later questions; more contexts than these are prefilled
            together only where there is memory for them.
        graphs: whether to take decoding steps at fixed addresses, and record them on a GPU.
    """

    def __init__(
        self,
        model: Any,
        branches: type[Suffixes],
        images: int,
        budget: Callable[[], int],
        kept: int = 16,
        *,
        graphs: bool = False,
    ) -> None:
        self._model, self.branches, self._images, self.budget = model, branches, images, budget
        self.graphs: Graphs | None = None
        if graphs and branches is PackedSuffixes:
            from snellen.models.huggingface.prefix_cache.graphs import Graphs

            self.graphs = Graphs(self._room, record=model.device.type == "cuda")
        self._prefixes: OrderedDict[ImageContext, Prefix] = OrderedDict()
        self._kept = kept
        self._cuts = 0
        #: The number of images, and of branches behind them, that fit into memory.
        self.memory, self.suffix_memory = Shrinking(self.free), Shrinking(self.free)

    def generate(
        self, questions: Sequence[Question], max_tokens: int, ends: frozenset[int]
    ) -> list[list[int]]:
        """Return the tokens of each greedy answer, including the final one."""

        def run(branches: Suffixes, _: Sequence[int]) -> list[list[int]]:
            return greedy(branches, max_tokens, ends)

        answers = self._over(questions, [[question.ids] for question in questions], run, max_tokens)
        return [answer for (answer,) in answers]

    def score(self, questions: Sequence[Question]) -> list[list[float]]:
        """Return the log-likelihood of each tail of each question."""

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
            wholes: the sequences of each question, from the prompt's first token.
            run: what to do with branches, and with the position in each suffix where its question's prompt
                ends.
            more: the number of tokens that each branch will grow; None if they are scored.
        """
        answers: dict[tuple[int, int], T] = {}
        for groups in self._alike(questions):
            while groups:
                together = groups[: self.memory.size(self._fitting(questions, groups, more or 0))]
                work = partial(self._over_groups, questions, together, wholes, run, more)
                fitted, results = self.memory.attempt(len(together), work)
                if fitted and results is not None:
                    answers |= results
                    groups = groups[len(together) :]
        return [[answers[i, number] for number in range(len(stem))] for i, stem in enumerate(wholes)]

    def _fitting(self, questions: Sequence[Question], groups: Sequence[Sequence[int]], more: int) -> int:
        """Return how many images to prefill together. Beyond a usual batch, as long as they are few tokens
        and take no more than half of the room.
        """
        if self._images <= self._kept:
            return self._images
        spare = min(ENOUGH_TOKENS, self._room() // (2 * cached_bytes(self._model)))
        for number, places in enumerate(groups[: self._images]):
            members = [questions[i] for i in places]
            spare -= (length := _length(members)) + _behind(members, length, more)
            if spare < 0:
                return max(self._kept, number)
        return self._images

    def _over_groups(
        self,
        questions: Sequence[Question],
        groups: Sequence[Sequence[int]],
        wholes: Sequence[Sequence[list[int]]],
        run: Callable[[Suffixes, Sequence[int]], list[T]],
        more: int | None,
    ) -> dict[tuple[int, int], T]:
        """Yield results by question and branch, for questions about images of the same shape."""
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
        """Run within the budget; if memory runs out anyway, halve the chunks from then on.

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
        suffixes = self.branches(prefix, [branches[i] for i in chunk], self.graphs)
        return run(suffixes, [begins[i] for i in chunk])

    def _alike(self, questions: Sequence[Question]) -> list[list[list[int]]]:
        """Group questions by images, and the groups by shape."""
        alike: dict[tuple[Any, ...], list[list[int]]] = {}
        for members in group(questions):
            alike.setdefault(questions[members[0]].look.shape, []).append(members)
        return list(alike.values())

    def prefixed(
        self, questions: Sequence[Question], more: int
    ) -> Iterator[tuple[Prefix, list[tuple[int, int]]]]:
        """Yield prefixes, each with the questions that start with it, as (image index, question)."""
        for groups in self._alike(questions):
            for first in range(0, len(groups), self._images):
                together = groups[first : first + self._images]
                prefix = self._prefix([[questions[i] for i in members] for members in together], more)
                yield prefix, [(number, i) for number, members in enumerate(together) for i in members]

    def _room(self) -> int:
        """Return the bytes that caches may take now, reduced after each out-of-memory error."""
        return max(1, self.budget() >> self._cuts)

    def clear(self) -> None:
        """Release what is kept for later questions."""
        self._prefixes.clear()
        if self.graphs is not None:
            self.graphs.clear()

    def free(self) -> None:
        """Release all caches, and halve the budget."""
        self.clear()
        self._cuts = min(self._cuts + 1, MOST_CUTS)
        release()

    def _prefix(self, groups: Sequence[Sequence[Question]], more: int) -> Prefix:
        """Return a cached prefix, or a new one."""
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
        length = min(map(_length, groups))
        looks = [members[0].look for members in groups]
        room = max(_behind(members, length, more) for members in groups)
        spare = self._room() // (4 * len(groups) * cached_bytes(self._model))
        ids = [members[0].ids for members in groups]
        room, recurrent = min(room, MOST_NODES, spare), self.branches is BatchedSuffixes
        return Prefix(self._model, looks, ids, length, room=room, recurrent=recurrent)
