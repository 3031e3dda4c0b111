"""Decoding steps at fixed addresses, which a GPU repeats as CUDA graphs.

A GPU computes a step of a few tokens in a fraction of the time in which Python issues it. A recorded step
is issued at once; what it reads and writes must then keep its shape and its place in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from transformers.cache_utils import DynamicLayer

from snellen.errors import reason_of
from snellen.models.huggingface.prefix_cache.masks import masks
from snellen.models.huggingface.prefix_cache.prefill import Prefix, cached_bytes, keep
from snellen.models.out_of_memory import is_broken, is_out_of_memory

if TYPE_CHECKING:
    import torch

__all__ = ["Graphs", "Steps"]

#: Caches are rounded up to this number of tokens, so that runs need few graphs.
BUCKET = 128
#: The part of the budget that copies of caches may take. Many images fill a GPU without recorded steps:
#: measured, see benchmarks/RESULTS.md.
SHARE = 4
#: The most graphs that are kept.
KEPT = 4


class StaticLayer(DynamicLayer):  # type: ignore[misc] # of a package without types
    """One layer's keys and values, each [rows, heads, capacity, width], in buffers that never move.

    Args:
        keys, values: whose rows, heads and widths are taken.
        capacity: in tokens.
        columns: where the next tokens are written; changed in place between steps.
    """

    def __init__(
        self, keys: torch.Tensor, values: torch.Tensor, capacity: int, columns: torch.Tensor
    ) -> None:
        super().__init__()
        # Zeros: what is masked must still be finite.
        self.keys, self.values = (
            states.new_zeros((*states.shape[:-2], capacity, states.shape[-1])) for states in (keys, values)
        )
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._columns = columns

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens; return the whole buffers."""
        self.keys.index_copy_(2, self._columns, key_states)
        self.values.index_copy_(2, self._columns, value_states)
        return self.keys, self.values

    def begin(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Start from these tokens."""
        self.keys[..., : keys.shape[-2], :] = keys
        self.values[..., : values.shape[-2], :] = values


class Steps:
    """Greedy steps of a token for each of [images, answers].

    Everything that a step reads or writes lies in buffers, in which it also prepares the next step: only the
    chosen tokens are read by the host, once a step.

    Args:
        prefix: any prefix of the model with this number of images.
        layers: the keys and values of each layer.
        answers: the most answers about an image.
        capacity: of the cache, in tokens, with room for one step more than are taken.
        record: whether to record CUDA graphs.

    Attributes:
        logits: [images, answers, V] after the last step.
        failure: why no graph could be recorded; empty if one was, or none was wanted.
    """

    def __init__(
        self,
        prefix: Prefix,
        layers: Sequence[tuple[torch.Tensor, torch.Tensor]],
        answers: int,
        capacity: int,
        *,
        record: bool,
    ) -> None:
        import torch
        from transformers import Cache

        self._model, self._windows, self._mixed = prefix.model, prefix.windows, prefix.mixed
        images, device = prefix.count, prefix.model.device

        def longs(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        self._tokens, self._positions, self._seeing = (longs(images, answers) for _ in range(3))
        self._columns, self._seen = longs(answers), longs(images, capacity)
        self._visible = torch.zeros(images, answers, capacity, dtype=torch.bool, device=device)
        self._cache = Cache(
            layers=[StaticLayer(keys, values, capacity, self._columns) for keys, values in layers]
        )
        self._graph: torch.cuda.CUDAGraph | None = None
        self._records = record
        self.logits: torch.Tensor | None = None
        self.failure = ""

    def begin(
        self,
        prefix: Prefix,
        layers: Sequence[tuple[torch.Tensor, torch.Tensor]],
        placed: torch.Tensor,
        branches: tuple[Sequence[int], Sequence[int], torch.Tensor, torch.Tensor],
        tokens: Sequence[int],
    ) -> None:
        """Start behind packed suffixes.

        Args:
            layers: the keys and values [images, heads, prefix + nodes, width] of each layer.
            placed: [images, nodes], the depth of each packed token.
            branches: for each of K branches, its image, its place among that image's answers, the nodes that
                it sees [K, nodes], and the depth of its next token [K].
            tokens: the next token of each branch.
        """
        import torch

        rows, places, sees, depths = branches
        answers, device = self._tokens.shape[1], self._tokens.device
        where = (torch.tensor(rows, device=device), torch.tensor(places, device=device))
        for layer, (keys, values) in zip(self._cache.layers, layers, strict=True):
            layer.begin(keys, values)
        length, filled = prefix.length, prefix.length + placed.shape[1]
        self._columns.copy_(torch.arange(filled, filled + answers, device=device))
        self._seen.zero_()
        self._seen[:, :length] = torch.arange(length, device=device)
        self._seen[:, length:filled] = length + placed
        self._visible.zero_()
        self._visible[:, :, :length] = True
        self._visible[where[0], where[1], length:filled] = sees
        for buffer, values in (
            (self._tokens, torch.tensor(tokens, device=device)),
            (self._seeing, length + depths),
            (self._positions, depths),
        ):
            buffer.zero_()
            buffer[where] = values
        self._positions += prefix.start
        self._see_next()

    def step(self) -> list[list[int]]:
        """Append the next tokens; return those that follow them, for each image and place."""
        import torch

        if self._graph is not None:
            self._graph.replay()
        elif self._records:
            # Taken on the stream that then records, which makes libraries ready on it.
            stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch has no types there
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.run()
            torch.cuda.current_stream().wait_stream(stream)
            torch.cuda.current_stream().synchronize()
            chosen: list[list[int]] = self._tokens.tolist()
            self._record(stream)
            return chosen
        else:
            self.run()
        return list(self._tokens.tolist())

    def _record(self, stream: Any) -> None:
        import torch

        self._records = False
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.run()
        except Exception as error:
            if is_broken(error) or is_out_of_memory(error):
                raise
            self.failure = f"a step cannot be recorded: {reason_of(error)}"
        else:
            self._graph = graph

    def _see_next(self) -> None:
        """Let each branch see its next token."""
        shape = self._visible.shape
        self._visible.scatter_(2, self._columns[None, :, None].expand(shape[0], -1, 1), True)
        self._seen.scatter_(1, self._columns.expand(shape[0], -1), self._seeing)

    def run(self) -> None:
        """Take one step. Nothing here may read from the device."""
        self.logits = self._model(
            input_ids=self._tokens,
            position_ids=self._positions,
            attention_mask=masks(
                self._visible,
                self._seeing,
                self._seen,
                self._windows,
                self._model.dtype,
                mixed=self._mixed,
            ),
            past_key_values=self._cache,
            use_cache=True,
            **keep(self._model, self._tokens.shape[1]),
        ).logits
        self._tokens.copy_(self.logits.float().argmax(-1))
        self._positions += 1
        self._seeing += 1
        self._columns += self._tokens.shape[1]
        self._see_next()


class Graphs:
    """The recorded steps of a model, by their shape.

    Args:
        budget: the bytes that caches may take.
        record: whether to record CUDA graphs; otherwise the same steps are issued one by one.
    """

    def __init__(self, budget: Callable[[], int], *, record: bool = True) -> None:
        self._budget, self._records = budget, record
        self.kept: OrderedDict[tuple[int, int, int], Steps] = OrderedDict()

    def steps(
        self, prefix: Prefix, layers: Sequence[tuple[torch.Tensor, torch.Tensor]], answers: int, tokens: int
    ) -> Steps | None:
        """Return steps of this shape for caches of this many tokens; None where there is no room for another
        copy of the cache.
        """
        capacity = -(-(tokens + answers) // BUCKET) * BUCKET
        key = (prefix.count, answers, capacity)
        found = self.kept.pop(key, None)
        if found is None:
            a_token = cached_bytes(prefix.model)
            # What is held already is missing from the budget.
            room = (self._budget() + a_token * self.tokens_held) // (
                SHARE * a_token
            ) - prefix.count * capacity
            if room < 0:
                return None
            while self.kept and (len(self.kept) >= KEPT or self.tokens_held > room):
                self.kept.popitem(last=False)
            found = Steps(prefix, layers, answers, capacity, record=self._records)
        self.kept[key] = found
        return found

    @property
    def tokens_held(self) -> int:
        """The tokens for which all caches have room."""
        return sum(images * capacity for images, _, capacity in self.kept)

    def clear(self) -> None:
        """Release all of them."""
        self.kept.clear()
