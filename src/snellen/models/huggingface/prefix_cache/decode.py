"""Branches that grow from a shared prefix, packed into one row or in separate rows; greedy decoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from snellen.models.huggingface.prefix_cache.prefill import CannotShare, Prefix

if TYPE_CHECKING:
    import torch

    from snellen.models.huggingface.prefix_cache.graphs import Graphs

__all__ = ["FEWEST", "MOST_NODES", "Suffix", "Suffixes", "greedy", "picked"]

#: The most nodes per forest: attention grows with their square.
MOST_NODES = 1024
#: The logits over which softmax is taken at once: in a processor's cache, or enough to keep a GPU busy.
AT_ONCE = (2**20, 2**27)
#: The fewest steps that are worth their own buffers.
FEWEST = 2
#: A suffix, and the index of its image.
Suffix = tuple[int, list[int]]


class Suffixes(ABC):
    """Branches that grow from a prefix, some tokens at a time.

    Args:
        graphs: the steps that a GPU repeats, if any.
    """

    def __init__(self, prefix: Prefix, branches: Sequence[Suffix], graphs: Graphs | None = None) -> None:
        self.prefix, self.branches, self.graphs = prefix, branches, graphs

    @classmethod
    @abstractmethod
    def cut(
        cls, prefix: Prefix, branches: Sequence[Suffix], budget: int, more: int | None
    ) -> list[list[int]]:
        """Cut branches into groups of at most about ``budget`` bytes each.

        Args:
            more: the number of tokens that each will grow; None if they are scored.
        """

    @abstractmethod
    def plant(self) -> torch.Tensor:
        """Return the logits [K, V] after each branch's suffix, none of which is empty."""

    def prepare(self, steps: int) -> None:
        """Prepare for so many steps of :meth:`extend`."""

    def extend(self, tokens: Sequence[int], kept: Sequence[int]) -> list[int]:
        """As :meth:`grow`, but return the most likely next tokens."""
        chosen: list[int] = self.grow(tokens, kept).float().argmax(-1).tolist()
        return chosen

    def repeated(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return the logits [K, V] after one more token on every branch, by the step that :meth:`extend`
        repeats.

        Raises:
            CannotShare: there is no such step.
        """
        raise CannotShare("steps are taken one by one")

    @abstractmethod
    def grow(self, tokens: Sequence[int], kept: Sequence[int]) -> torch.Tensor:
        """Return the logits [L, V] after one more token on L branches, given by index among those that grew
        last; the others are dropped.
        """

    @abstractmethod
    def likelihoods(self, begins: Sequence[int]) -> list[float]:
        """Return the sum of log P(token | all before it) over each suffix from its position ``begins`` on."""


def picked(
    logits: torch.Tensor, rows: Sequence[int], places: Sequence[int], tokens: Sequence[int]
) -> torch.Tensor:
    """Return log P of a token at each (row, position) of logits [R, n, V], in float64 on the CPU. The
    softmax is in float32, some positions at a time, since vocabularies are large.
    """
    import torch

    device = logits.device
    row, place, token = (torch.tensor(given, device=device) for given in (rows, places, tokens))
    step = max(1, AT_ONCE[device.type == "cuda"] // logits.shape[-1])
    sums = []
    for part in range(0, len(rows), step):
        chosen = logits[row[part : part + step], place[part : part + step]].float()
        sums.append(torch.nn.functional.cross_entropy(chosen, token[part : part + step], reduction="none"))
    return -torch.cat(sums).cpu().double()


def greedy(branches: Suffixes, max_tokens: int, ends: frozenset[int]) -> list[list[int]]:
    """Extend each branch with the most likely token up to an end, which is included, or to ``max_tokens``."""
    chosen: list[int] = branches.plant().float().argmax(-1).tolist()
    branches.prepare(max_tokens - 1)
    answers: list[list[int]] = [[] for _ in branches.branches]
    live = list(range(len(answers)))
    while True:
        for branch, token in zip(live, chosen, strict=True):
            answers[branch].append(token)
        kept = [i for i, token in enumerate(chosen) if token not in ends]
        if not kept or len(answers[live[0]]) >= max_tokens:
            return answers
        live = [live[i] for i in kept]
        chosen = branches.extend([chosen[i] for i in kept], kept)
