"""Branches packed into one row: tree attention (Miao et al., "SpecInfer", arXiv 2305.09781).

The suffixes of all questions run in one forward pass, under a mask that lets each token attend only to its
own ancestors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from snellen.models.huggingface.prefix_cache.decode import FEWEST, MOST_NODES, Suffix, Suffixes, picked
from snellen.models.huggingface.prefix_cache.masks import added, masks
from snellen.models.huggingface.prefix_cache.prefill import CannotShare, Prefix, cached_bytes
from snellen.models.huggingface.prefix_cache.trie import Trie, chunks, plant

if TYPE_CHECKING:
    import torch

    from snellen.models.huggingface.prefix_cache.graphs import Steps

__all__ = ["PackedSuffixes"]


class PackedSuffixes(Suffixes):
    """All branches of an image in one row, as a forest: each token attends to its ancestors and the prefix.

    The prefix is never copied per branch, and shared parts of suffixes are computed once.
    """

    #: Steps at fixed addresses, if any.
    _steps: Steps | None = None

    @classmethod
    def cut(
        cls, prefix: Prefix, branches: Sequence[Suffix], budget: int, more: int | None
    ) -> list[list[int]]:
        # Attention takes [nodes, prefix + nodes] of masks, and of scores if it is eager.
        wide = prefix.length + MOST_NODES
        width = 4 if prefix.attention == "sdpa" else 4 * prefix.heads
        taken = prefix.count * prefix.length * cached_bytes(prefix.model)
        room = (budget - taken) // (prefix.bytes_per_token + width * wide)
        limit = max(1, min(room, MOST_NODES * prefix.count) // prefix.count)
        groups = []
        for number in range(prefix.count):
            members = [i for i, (image, _) in enumerate(branches) if image == number]
            stems = [branches[i][1] if more is not None else branches[i][1][:-1] for i in members]
            groups.append([[members[i] for i in chunk] for chunk in chunks(stems, limit, more or 0)])
        return [list(chain(*parts)) for parts in zip_longest(*groups, fillvalue=())]

    def plant(self) -> torch.Tensor:
        import torch

        forests = self._forests(
            [suffix for _, suffix in self.branches], [len(s) - 1 for _, s in self.branches]
        )
        logits = self._start(forests)
        rows, ends, seen = [], [], []
        for number, path in self._paths(forests):
            forest = forests[number]
            rows.append(number)
            ends.append(path[-1] - len(forest.tokens))  # counted from the end, where rows are aligned
            seen.append(torch.from_numpy(self._padded(forest.sees[path[-1]])))
        self._rows, self._depths = rows, [len(suffix) for _, suffix in self.branches]
        self._seen = torch.stack(seen).to(logits.device)
        return logits[rows, ends]

    def prepare(self, steps: int) -> None:
        prefix = self.prefix
        layers = [(layer.keys, layer.values) for layer in self._cache.layers if hasattr(layer, "rewound")]
        if self.graphs is None or steps < FEWEST or len(layers) < len(self._cache.layers):
            return
        if prefix.crossed is not None or {keys.device for keys, _ in layers} != {prefix.model.device}:
            return
        self._places, answers = self._numbered()
        self._layers, self._begun = layers, False
        tokens = prefix.length + self._placed.shape[1] + answers * steps
        self._steps = self.graphs.steps(prefix, layers, answers, tokens)

    def extend(self, tokens: Sequence[int], kept: Sequence[int]) -> list[int]:
        if self._steps is None:
            return super().extend(tokens, kept)
        if not self._begun:
            self._begin(self._steps, tokens, kept)
        self._rows = [self._rows[i] for i in kept]
        self._places = [self._places[i] for i in kept]
        chosen = self._steps.step()
        return [chosen[row][place] for row, place in zip(self._rows, self._places, strict=True)]

    def repeated(self, tokens: Sequence[int]) -> torch.Tensor:
        if self._steps is None:
            return super().repeated(tokens)
        for _ in range(2):
            self._begin(self._steps, tokens, range(len(tokens)))
            self._steps.step()
        if self._steps.failure:
            raise CannotShare(self._steps.failure)
        assert self._steps.logits is not None
        return self._steps.logits[self._rows, self._places]

    def _numbered(self) -> tuple[list[int], int]:
        """Return each branch's place among those of its image, and the most branches of an image."""
        places, count = [], [0] * self.prefix.count
        for row in self._rows:
            places.append(count[row])
            count[row] += 1
        return places, max(count)

    def _begin(self, steps: Steps, tokens: Sequence[int], kept: Sequence[int]) -> None:
        import torch

        self._begun = True
        depths = torch.tensor([self._depths[i] for i in kept], device=self._seen.device)
        rows, places = [self._rows[i] for i in kept], [self._places[i] for i in kept]
        branches = (rows, places, self._seen[list(kept)], depths)
        steps.begin(self.prefix, self._layers, self._placed, branches, tokens)

    def grow(self, tokens: Sequence[int], kept: Sequence[int]) -> torch.Tensor:
        import torch

        self._rows = [self._rows[i] for i in kept]
        self._depths = [self._depths[i] for i in kept]
        columns, most = self._numbered()
        shape = (self.prefix.count, most)
        device = self._seen.device
        own_columns = torch.nn.functional.one_hot(torch.tensor(columns), shape[1]).bool().to(device)
        self._seen = torch.cat([self._seen[list(kept)], own_columns], 1)
        ids = torch.zeros(shape, dtype=torch.long, device=device)
        depths = torch.zeros(shape, dtype=torch.long, device=device)
        sees = torch.zeros((*shape, self._seen.shape[1]), dtype=torch.bool, device=device)
        ids[self._rows, columns] = torch.tensor(tokens, device=device)
        depths[self._rows, columns] = torch.tensor(self._depths, device=device)
        sees[self._rows, columns] = self._seen
        self._depths = [depth + 1 for depth in self._depths]
        return self.step_at(ids, depths, sees, shape[1])[self._rows, columns]

    def likelihoods(self, begins: Sequence[int]) -> list[float]:
        import torch

        # The last token needs no forward pass: nothing is predicted from it.
        stems = [suffix[:-1] for _, suffix in self.branches]
        forests = self._forests(stems, [max(0, begin - 1) for begin in begins])
        width = max(forest.wanted for forest in forests)
        logits = self._start(forests) if width else None
        # Each predicted token, as (branch, row, previous node); -1 is the prefix itself.
        places: list[tuple[int, int, int, int]] = []
        for branch, ((row, path), begin) in enumerate(zip(self._paths(forests), begins, strict=True)):
            suffix, size = self.branches[branch][1], len(forests[row].tokens)
            for place in range(begin, len(suffix)):
                node = path[place - 1] - size + width if place else -1
                places.append((branch, row, node, suffix[place]))
        sums = torch.zeros(len(self.branches), dtype=torch.float64)
        for first in (True, False):
            chosen = [p for p in places if (p[2] < 0) == first]
            if not chosen:
                continue
            branches, rows, nodes, wanted = map(list, zip(*chosen, strict=True))
            if first:
                likelihoods = picked(self.prefix.last[:, None], rows, [0] * len(rows), wanted)
            else:
                assert logits is not None
                likelihoods = picked(logits, rows, nodes, wanted)
            sums.index_add_(0, torch.tensor(branches), likelihoods)
        return sums.tolist()

    def _forests(self, sequences: Sequence[list[int]], begins: Sequence[int]) -> list[Trie]:
        """One forest per image. Most images are asked the same."""
        asked: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in range(self.prefix.count)]
        for (image, _), sequence, begin in zip(self.branches, sequences, begins, strict=True):
            asked[image].append((tuple(sequence), begin))
        grown: dict[Any, Trie] = {}
        for of_image in map(tuple, asked):
            if of_image not in grown:
                grown[of_image] = plant(
                    [list(sequence) for sequence, _ in of_image], [b for _, b in of_image]
                )
        return [grown[tuple(of_image)] for of_image in asked]

    def _paths(self, forests: Sequence[Trie]) -> list[tuple[int, list[int]]]:
        """Return each branch's row, and its nodes there."""
        paths = [iter(forest.paths) for forest in forests]
        return [(image, next(paths[image])) for image, _ in self.branches]

    def _padded(self, seen: Any) -> Any:
        """Pad on the left to the width of all rows."""
        import numpy as np

        return np.pad(seen, (self._width - len(seen), 0))

    def _start(self, forests: Sequence[Trie]) -> torch.Tensor:
        """Run all forests at once; return the logits [B, W, V] of the wanted nodes, aligned right."""
        import numpy as np
        import torch

        device = self.prefix.model.device
        self._width = width = max(len(forest.tokens) for forest in forests)
        ids, depths = (np.zeros((len(forests), width), dtype=np.int64) for _ in range(2))
        sees = np.zeros((len(forests), width, width), dtype=bool)
        for row, forest in enumerate(forests):
            if size := len(forest.tokens):
                ids[row, -size:], depths[row, -size:] = forest.tokens, forest.depths
                sees[row, -size:, -size:] = forest.sees
        self._cache = self.prefix.rewound()
        self._placed = torch.zeros(len(forests), 0, dtype=torch.long, device=device)
        tokens, places, visible = (torch.from_numpy(array).to(device) for array in (ids, depths, sees))
        return self.step_at(tokens, places, visible, max(forest.wanted for forest in forests))

    def step_at(
        self, ids: torch.Tensor, depths: torch.Tensor, sees: torch.Tensor, wanted: int
    ) -> torch.Tensor:
        """Run tokens [B, n] that attend to these [B, n, m] of all m packed ones so far, including
        themselves.
        """
        import torch

        self._placed = torch.cat([self._placed, depths], 1)
        mask = self._mask(depths, sees)
        return self.prefix.forward(self._cache, range(len(ids)), ids, depths, mask, wanted)

    def _mask(self, depths: torch.Tensor, sees: torch.Tensor) -> Any:
        import torch

        prefix, dtype = self.prefix, self.prefix.model.dtype
        if prefix.attention not in ("sdpa", "eager"):
            raise CannotShare(f"{prefix.attention} does not support this kind of mask")
        behind = torch.ones((*depths.shape, prefix.length), dtype=torch.bool, device=sees.device)
        visible = torch.cat([behind, self.visible(sees)], 2)
        if not prefix.windows:
            return added(visible, dtype)
        places = torch.arange(prefix.length, device=sees.device).expand(len(depths), -1)
        seen = torch.cat([places, prefix.length + self._placed], 1)
        return masks(visible, prefix.length + depths, seen, prefix.windows, dtype, mixed=prefix.mixed)

    def visible(self, sees: torch.Tensor) -> torch.Tensor:
        """Return which packed tokens attend to which: only their ancestors."""
        return sees
