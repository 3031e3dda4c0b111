"""Token sequences with common prefixes, as a forest whose shared parts are computed once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Trie", "chunks", "common", "plant"]

Tokens = list[int]


def common(rows: Sequence[Tokens]) -> int:
    """Return the length of the longest common prefix.

    >>> common([[1, 2, 3], [1, 2, 4], [1, 2]])
    2
    """
    shortest, longest = min(rows), max(rows)  # what the first and last share, all between them share
    for i, (a, b) in enumerate(zip(shortest, longest, strict=False)):
        if a != b:
            return i
    return min(len(shortest), len(longest))


@dataclass(frozen=True, slots=True)
class Trie:
    """Tries of token sequences that all follow the same prefix.

    Nodes are numbered so that the ``wanted`` ones, whose logits are needed, come last. A node's logits
    predict the token after it.

    Attributes:
        tokens: of each node.
        depths: of each node; 0 for the first token after the prefix.
        paths: for each sequence, the node of each of its tokens.
        wanted: the number of wanted nodes, which are the last ones.
        sees: bool [nodes, nodes], whether the row's node attends to the column's: its ancestors and itself.
    """

    tokens: list[int]
    depths: list[int]
    paths: list[list[int]]
    wanted: int
    sees: npt.NDArray[np.bool_]


def plant(sequences: Sequence[Tokens], begins: Sequence[int]) -> Trie:
    """Build the forest of sequences; wanted are the logits after each token from ``begins`` of its sequence
    on.

    Common prefixes share nodes, so that duplicates are free.
    """
    tokens: list[int] = []
    parents: list[int] = []
    index: dict[tuple[int, int], int] = {}
    paths: list[list[int]] = []
    wanted: list[bool] = []
    for sequence, begin in zip(sequences, begins, strict=True):
        node = -1
        path = []
        for place, token in enumerate(sequence):
            child = index.setdefault((node, token), len(tokens))
            if child == len(tokens):
                tokens.append(token)
                parents.append(node)
                wanted.append(False)
            node = child
            wanted[node] |= place >= begin
            path.append(node)
        paths.append(path)
    sees = np.eye(len(tokens), dtype=bool)
    depths = [0] * len(tokens)
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] |= sees[parent]
            depths[node] = depths[parent] + 1
    order = sorted(range(len(tokens)), key=wanted.__getitem__)  # stable: parents stay before children
    place_of = {node: place for place, node in enumerate(order)}
    return Trie(
        [tokens[node] for node in order],
        [depths[node] for node in order],
        [[place_of[node] for node in path] for path in paths],
        sum(wanted),
        sees[np.ix_(order, order)],
    )


def chunks(sequences: Sequence[Tokens], limit: int, more: int = 0) -> list[list[int]]:
    """Group sequences so that each group's forest has at most ``limit`` nodes (or one sequence), including
    ``more`` nodes that each sequence will grow.

    Sequences with common prefixes are grouped together as far as possible.
    """
    groups: list[list[int]] = []
    nodes = 0
    before: Tokens = []
    for i in sorted(range(len(sequences)), key=lambda i: sequences[i]):
        # In sorted order, a sequence shares its longest prefix with the one before it.
        new = len(sequences[i]) - common([before, sequences[i]])
        if not groups or nodes + new + more > limit:
            groups.append([])
            nodes, new = 0, len(sequences[i])
        groups[-1].append(i)
        nodes += new + more
        before = sequences[i]
    return groups
