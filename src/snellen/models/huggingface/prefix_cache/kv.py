"""A key-value cache that is written in place, so that appending copies only the new entries."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    import torch

__all__ = ["InPlaceCache"]


class InPlaceCache(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, each [rows, heads, tokens, width], in buffers with room to grow.

    The layer in transformers concatenates, which copies the whole prefix for each token.

    Args:
        room: the number of additional tokens to reserve.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room, self._length = room, 0
        self._buffers: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append, and return all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = (key_states, value_states)
        end = self._length + key_states.shape[-2]
        if not self._buffers or end > self._buffers[0].shape[-2]:
            old, self._buffers = self._buffers, [self._empty(states, end + self._room) for states in new]
            for buffer, before in zip(self._buffers, old, strict=False):
                buffer[..., : self._length, :] = before[..., : self._length, :]
        for buffer, states in zip(self._buffers, new, strict=True):
            buffer[..., self._length : end, :] = states
        self._show(end)
        return self.keys, self.values

    @property
    def nbytes(self) -> int:
        """The size of the buffers."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def rewound(self) -> InPlaceCache:
        """Return a view of this layer to be extended from here, in the same buffers. Only the latest such
        view is valid.
        """
        return copy.copy(self)

    def spread(self, rows: torch.Tensor, room: int) -> InPlaceCache:
        """Return a copy with these rows."""
        other = InPlaceCache(room)
        # Layers may lie on several devices.
        other.update(*(states.index_select(0, rows.to(states.device)) for states in (self.keys, self.values)))
        return other

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep these rows."""
        self._buffers = [buffer.index_select(0, beam_idx.to(buffer.device)) for buffer in self._buffers]
        self._show(self._length)

    def _show(self, length: int) -> None:
        self._length = length
        self.keys, self.values = (buffer[..., :length, :] for buffer in self._buffers)

    @staticmethod
    def _empty(like: torch.Tensor, tokens: int) -> torch.Tensor:
        return like.new_empty((*like.shape[:-2], tokens, like.shape[-1]))
