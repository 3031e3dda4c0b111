"""Branches in separate rows, each with a copy of the prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from snellen.models.huggingface.prefix_cache.decode import Suffix, Suffixes, picked
from snellen.models.huggingface.prefix_cache.prefill import Prefix

if TYPE_CHECKING:
    import torch

__all__ = ["BatchedSuffixes"]

#: The tokens of a suffix and its answer for which rows have room before they are copied.
ROOM = 64


class BatchedSuffixes(Suffixes):
    """Each branch in a separate row with a copy of the prefix, for layers that cannot be masked."""

    @classmethod
    def cut(
        cls, prefix: Prefix, branches: Sequence[Suffix], budget: int, more: int | None
    ) -> list[list[int]]:
        copied = prefix.nbytes // prefix.count
        by_length: dict[int, list[int]] = {}
        for i, (_, suffix) in enumerate(branches):
            by_length.setdefault(len(suffix) if more is not None else 0, []).append(i)
        groups = []
        for members in by_length.values():
            longest = max(len(branches[i][1]) for i in members) + (more or 0)
            rows = max(1, budget // (copied + longest * prefix.bytes_per_token))
            groups += [members[start : start + rows] for start in range(0, len(members), rows)]
        return groups

    def plant(self) -> torch.Tensor:
        import torch

        lengths = {len(suffix) for _, suffix in self.branches}
        if len(lengths) > 1:
            raise ValueError("rows that grow must start with suffixes of equal length")
        self._images = [image for image, _ in self.branches]
        self._cache = self.prefix.fork(self._images, ROOM)
        self._depth = 0
        return self.step_at(torch.tensor([suffix for _, suffix in self.branches]), 1)[:, -1]

    def grow(self, tokens: Sequence[int], kept: Sequence[int]) -> torch.Tensor:
        import torch

        if len(kept) < len(self._images):
            self._images = [self._images[i] for i in kept]
            self._cache.reorder_cache(torch.tensor(kept, device=self.prefix.model.device))
        return self.step_at(torch.tensor(tokens)[:, None], 1)[:, -1]

    def likelihoods(self, begins: Sequence[int]) -> list[float]:
        import torch

        stems = [suffix[:-1] for _, suffix in self.branches]
        width = max(map(len, stems))
        self._images, self._depth = [image for image, _ in self.branches], 0
        logits = self.prefix.last[self._images][:, None]
        if width:
            # Nothing attends to padding on its right.
            ids = torch.tensor([stem + [0] * (width - len(stem)) for stem in stems])
            self._cache = self.prefix.fork(self._images, width)
            logits = torch.cat([logits.to(self.prefix.model.dtype), self.step_at(ids, width)], 1)
        sums = []
        for row, ((_, suffix), begin) in enumerate(zip(self.branches, begins, strict=True)):
            wanted = suffix[begin:]
            nodes = range(begin, len(suffix))
            sums.append(float(picked(logits, [row] * len(wanted), list(nodes), wanted).sum()))
        return sums

    def step_at(self, ids: torch.Tensor, wanted: int) -> torch.Tensor:
        import torch

        ids = ids.to(self.prefix.model.device)
        depths = torch.arange(self._depth, self._depth + ids.shape[1], device=ids.device).expand_as(ids)
        self._depth += ids.shape[1]
        return self.prefix.forward(self._cache, self._images, ids, depths, None, wanted)
