"""A prompt's beginning, computed once, and branches that grow from it.

The image and the text that several prompts share are prefilled once; the key-value cache is then forked
over what differs. Prefix sharing within one forward pass is known from tree attention (Miao et al.,
"SpecInfer", arXiv 2305.09781) and from prompt caches of servers (Kwon et al., arXiv 2309.06180).
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from snellen.errors import SnellenError
from snellen.models.huggingface.forest import Forest, chunks, plant
from snellen.models.huggingface.looks import Look

if TYPE_CHECKING:
    import torch

__all__ = ["Branch", "Branches", "CannotShare", "Packed", "Prefix", "Rows", "greedy"]

#: How many nodes a forest has at most: attention grows with their square.
MOST_NODES = 1024
#: For how many tokens of a suffix and its answer rows have room before they are copied.
ROOM = 64
#: A suffix, and the number of the image that it is about.
Branch = tuple[int, list[int]]


class CannotShare(SnellenError):
    """An architecture, or its attention, cannot grow branches in this way. The self-check reads it."""


class Prefix:
    """The first ``length`` tokens of some prompts, one prompt an image, prefilled.

    Args:
        model: a decoder with images of transformers.
        looks: B of them, equal in the number of their images' tokens.
        ids: a prompt about each.
        length: P, how many tokens are shared; all images are among them.
        room: for how many tokens more there is room in the cache.
        recurrent: leave the cache to the model's own layers.

    Attributes:
        last: [B, V], the logits after the prefix, in float32.
    """

    def __init__(
        self,
        model: Any,
        looks: Sequence[Look],
        ids: Sequence[list[int]],
        length: int,
        *,
        room: int = 0,
        recurrent: bool = False,
    ) -> None:
        import torch
        from transformers import Cache, DynamicCache

        from snellen.models.huggingface.growing import Growing

        self.model, self.length, self.count = model, length, len(looks)
        self.ids = [list(row[:length]) for row in ids]
        parts = [look.beginning(length) for look in looks]
        inputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        inputs["input_ids"] = torch.tensor(self.ids)
        inputs = {
            name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }
        # Growing keeps all keys of sliding windows, and masks do the sliding: branches of any depth need
        # them. Recurrent layers know no other way than their own.
        cache: Any = Cache(layer_class_to_replicate=partial(Growing, room))
        if recurrent:
            cache = DynamicCache(config=self._text)
        elif carried := [kind for kind in self._kinds if "attention" not in kind or "linear" in kind]:
            raise CannotShare(f"layers of {carried[0]} carry a state that no mask divides")
        output = model(**inputs, past_key_values=cache, use_cache=True, **keep(model, 1))
        self.cache = output.past_key_values
        self.last: torch.Tensor = output.logits[:, -1].float()
        self.start = length + self._delta(has_images=looks[0].has_images)
        crossed = inputs.get("cross_attention_mask")
        self.crossed: torch.Tensor | None = None if crossed is None else crossed[:, -1:]

    def _delta(self, *, has_images: bool) -> torch.Tensor:
        """[B, 1]: by how much positions run ahead of the tokens (M-RoPE: an image takes fewer)."""
        import torch

        # The Qwen-VL family keeps it in the module, of whichever prompt was prefilled last.
        kept = next((m.rope_deltas for m in self.model.modules() if hasattr(m, "rope_deltas")), None)
        if kept is None or not has_images:
            return torch.zeros(self.count, 1, dtype=torch.long, device=self.model.device)
        delta: torch.Tensor = kept.reshape(self.count, 1).to(self.model.device)
        return delta

    @cached_property
    def _text(self) -> Any:
        return self.model.config.get_text_config(decoder=True)

    @property
    def nbytes(self) -> int:
        """How much memory the cache takes, room to grow included."""
        return sum(layer.nbytes if hasattr(layer, "nbytes") else 0 for layer in self.cache.layers)

    @cached_property
    def bytes_per_token(self) -> int:
        """About what one more token takes: keys and values, logits, and what a layer holds meanwhile."""
        text, width = self._text, self.last.shape[-1]
        held = 8 * text.hidden_size + 3 * getattr(text, "intermediate_size", 4 * text.hidden_size)
        layers = [layer for layer in self.cache.layers if getattr(layer, "keys", None) is not None]
        kept = sum(layer.keys[0, :, :1].nbytes + layer.values[0, :, :1].nbytes for layer in layers)
        return int(kept + (held + 2 * width) * self.model.dtype.itemsize)

    @property
    def heads(self) -> int:
        """How many attention heads a layer has."""
        return int(self._text.num_attention_heads)

    def begins(self, ids: list[int], most: int) -> bool:
        """Whether a prompt, of which ``most`` tokens may be a prefix, begins with this one's only image."""
        return self.count == 1 and self.length <= most and ids[: self.length] == self.ids[0]

    def fork(self, images: Sequence[int], room: int) -> Any:
        """A cache with a row for each of ``images``; this one stays as it is."""
        import torch

        rows = torch.tensor(images, device=self.model.device)
        return self._with_layers(lambda layer: self._spread(layer, rows, room))

    def rewound(self) -> Any:
        """This cache, to be written on behind the prefix. Of several such, the last one is right."""
        return self._with_layers(lambda layer: layer.rewound())

    def _with_layers(self, change: Callable[[Any], Any]) -> Any:
        cache = copy.copy(self.cache)
        cache.layers = [change(layer) for layer in self.cache.layers]
        return cache

    @staticmethod
    def _spread(layer: Any, rows: torch.Tensor, room: int) -> Any:
        if hasattr(layer, "spread"):
            return layer.spread(rows, room)
        mine = copy.deepcopy(layer)  # recurrent layers write in place
        mine.reorder_cache(rows)
        return mine

    def forward(
        self,
        cache: Any,
        images: Sequence[int],
        tokens: torch.Tensor,
        depths: torch.Tensor,
        mask: Any,
        wanted: int,
    ) -> torch.Tensor:
        """The logits [R, wanted, V] after the last ``wanted`` of the tokens [R, n] at these depths [R, n]."""
        more = dict(keep(self.model, wanted))
        if self.crossed is not None:
            more["cross_attention_mask"] = self.crossed[list(images)].expand(-1, tokens.shape[1], -1, -1)
        logits: torch.Tensor = self.model(
            input_ids=tokens,
            position_ids=self.positions(images, depths),
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **more,
        ).logits
        return logits[:, -wanted:]

    def positions(self, images: Sequence[int], depths: torch.Tensor) -> torch.Tensor:
        """[R, n]: where tokens stand that many tokens behind the prefix."""
        return self.start[list(images)] + depths

    @property
    def _kinds(self) -> Sequence[str]:
        """The layers', where they are of several."""
        return getattr(self._text, "layer_types", None) or ()

    @cached_property
    def windows(self) -> int | None:
        """The width of the sliding windows, where the model has some."""
        sliding = not self._kinds or "sliding_attention" in self._kinds
        width: int | None = getattr(self._text, "sliding_window", None)
        return width if sliding else None

    @cached_property
    def mixed(self) -> bool:
        """Whether layers of several sorts are told apart by a mask each."""
        return "sliding_attention" in self._kinds

    @cached_property
    def attention(self) -> str:
        """How attention is computed: ``sdpa``, ``eager`` …"""
        return str(
            getattr(self._text, "_attn_implementation", None) or self.model.config._attn_implementation
        )


def keep(model: Any, count: int) -> dict[str, Any]:
    """The option to compute the last ``count`` places' logits alone, where the model has it."""
    accepted = inspect.signature(model.forward).parameters
    return {"logits_to_keep": count} if "logits_to_keep" in accepted else {}


class Branches(ABC):
    """Branches that grow from a prefix, some tokens at a time."""

    def __init__(self, prefix: Prefix, branches: Sequence[Branch]) -> None:
        self.prefix, self.branches = prefix, branches

    @classmethod
    @abstractmethod
    def cut(
        cls, prefix: Prefix, branches: Sequence[Branch], budget: int, more: int | None
    ) -> list[list[int]]:
        """Cut branches into groups that each take about ``budget`` bytes at most.

        Args:
            more: how many tokens each is yet to grow; None where they are scored.
        """

    @abstractmethod
    def plant(self) -> torch.Tensor:
        """[K, V]: the logits after each branch's suffix, none of which is empty."""

    @abstractmethod
    def grow(self, tokens: Sequence[int], kept: Sequence[int]) -> torch.Tensor:
        """[L, V]: the logits after one more token on those L branches, by their places among those that
        grew last; the others are given up.
        """

    @abstractmethod
    def likelihoods(self, begins: Sequence[int]) -> list[float]:
        """The sum of log P(token | all before it) over each suffix from its place ``begins`` on."""


class Packed(Branches):
    """All branches of an image in one row, as a forest: each token sees its ancestors and the prefix.

    The prefix is never copied per branch, and what suffixes share is computed once.
    """

    @classmethod
    def cut(
        cls, prefix: Prefix, branches: Sequence[Branch], budget: int, more: int | None
    ) -> list[list[int]]:
        # Attention takes [nodes, prefix + nodes] of masks, and of scores where it is eager.
        wide = prefix.length + MOST_NODES
        width = 4 if prefix.attention == "sdpa" else 4 * prefix.heads
        room = (budget - prefix.nbytes) // (prefix.bytes_per_token + width * wide)
        limit = max(1, min(room, MOST_NODES * prefix.count) // prefix.count)
        groups = []
        for number in range(prefix.count):
            mine = [i for i, (image, _) in enumerate(branches) if image == number]
            stems = [branches[i][1] if more is not None else branches[i][1][:-1] for i in mine]
            groups.append([[mine[i] for i in chunk] for chunk in chunks(stems, limit, more or 0)])
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
            ends.append(path[-1] - len(forest.tokens))  # counted from the end, where rows are flush
            seen.append(torch.from_numpy(self._padded(forest.sees[path[-1]])))
        self._rows, self._depths = rows, [len(suffix) for _, suffix in self.branches]
        self._seen = torch.stack(seen).to(logits.device)
        return logits[rows, ends]

    def grow(self, tokens: Sequence[int], kept: Sequence[int]) -> torch.Tensor:
        import torch

        self._rows = [self._rows[i] for i in kept]
        self._depths = [self._depths[i] for i in kept]
        columns, count = [], [0] * self.prefix.count
        for row in self._rows:
            columns.append(count[row])
            count[row] += 1
        shape = (self.prefix.count, max(count))
        device = self._seen.device
        mine = torch.nn.functional.one_hot(torch.tensor(columns), shape[1]).bool().to(device)
        self._seen = torch.cat([self._seen[list(kept)], mine], 1)
        ids = torch.zeros(shape, dtype=torch.long, device=device)
        depths = torch.zeros(shape, dtype=torch.long, device=device)
        sees = torch.zeros((*shape, self._seen.shape[1]), dtype=torch.bool, device=device)
        ids[self._rows, columns] = torch.tensor(tokens, device=device)
        depths[self._rows, columns] = torch.tensor(self._depths, device=device)
        sees[self._rows, columns] = self._seen
        self._depths = [depth + 1 for depth in self._depths]
        return self._step(ids, depths, sees, shape[1])[self._rows, columns]

    def likelihoods(self, begins: Sequence[int]) -> list[float]:
        import torch

        # The last token needs no forward pass: nothing is predicted from it.
        stems = [suffix[:-1] for _, suffix in self.branches]
        forests = self._forests(stems, [max(0, begin - 1) for begin in begins])
        width = max(forest.wanted for forest in forests)
        logits = self._start(forests) if width else None
        # Each predicted token, as (branch, row, the node before it); -1 is the prefix itself.
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
                found = picked(self.prefix.last[:, None], rows, [0] * len(rows), wanted)
            else:
                assert logits is not None
                found = picked(logits, rows, nodes, wanted)
            sums.index_add_(0, torch.tensor(branches), found)
        return sums.tolist()

    def _forests(self, sequences: Sequence[list[int]], begins: Sequence[int]) -> list[Forest]:
        """One an image."""
        found = []
        for number in range(self.prefix.count):
            mine = [i for i, (image, _) in enumerate(self.branches) if image == number]
            found.append(plant([sequences[i] for i in mine], [begins[i] for i in mine]))
        return found

    def _paths(self, forests: Sequence[Forest]) -> list[tuple[int, list[int]]]:
        """Each branch's row, and its nodes there."""
        paths = [iter(forest.paths) for forest in forests]
        return [(image, next(paths[image])) for image, _ in self.branches]

    def _padded(self, seen: Any) -> Any:
        """Flush right in the width of all rows."""
        import numpy as np

        return np.pad(seen, (self._width - len(seen), 0))

    def _start(self, forests: Sequence[Forest]) -> torch.Tensor:
        """Run all forests at once: the logits [B, W, V] of the wanted nodes, flush right."""
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
        return self._step(tokens, places, visible, max(forest.wanted for forest in forests))

    def _step(self, ids: torch.Tensor, depths: torch.Tensor, sees: torch.Tensor, wanted: int) -> torch.Tensor:
        """Tokens [B, n] that see these [B, n, m] of all m packed ones so far, themselves among them."""
        import torch

        self._placed = torch.cat([self._placed, depths], 1)
        mask = self._mask(depths, sees)
        return self.prefix.forward(self._cache, range(len(ids)), ids, depths, mask, wanted)

    def _mask(self, depths: torch.Tensor, sees: torch.Tensor) -> Any:
        import torch

        prefix = self.prefix
        behind = torch.ones((*depths.shape, prefix.length), dtype=torch.bool, device=sees.device)
        mask = torch.cat([behind, self.visible(sees)], 2)
        if prefix.windows is None:
            return self._as_attention_wants(mask)
        places = torch.arange(prefix.length, device=sees.device).expand(len(depths), -1)
        places = torch.cat([places, prefix.length + self._placed], 1)
        near = (prefix.length + depths)[:, :, None] - places[:, None] < prefix.windows
        narrow = self._as_attention_wants(mask & near)
        if not prefix.mixed:
            return narrow
        return {"full_attention": self._as_attention_wants(mask), "sliding_attention": narrow}

    def visible(self, sees: torch.Tensor) -> torch.Tensor:
        """Which packed tokens see which: their ancestors alone."""
        return sees

    def _as_attention_wants(self, mask: torch.Tensor) -> torch.Tensor:
        """What is added to the scores: nothing, or as good as minus infinity."""
        import torch

        if self.prefix.attention not in ("sdpa", "eager"):
            raise CannotShare(f"{self.prefix.attention} takes no mask of this kind")
        dtype = self.prefix.model.dtype
        added = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        return added.masked_fill_(~mask, torch.finfo(dtype).min)[:, None]


class Rows(Branches):
    """Each branch in a row of its own, over a copy of the prefix: for layers that cannot be masked."""

    @classmethod
    def cut(
        cls, prefix: Prefix, branches: Sequence[Branch], budget: int, more: int | None
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
            raise ValueError("rows that grow must begin with suffixes of one length")
        self._images = [image for image, _ in self.branches]
        self._cache = self.prefix.fork(self._images, ROOM)
        self._depth = 0
        return self._step(torch.tensor([suffix for _, suffix in self.branches]), 1)[:, -1]

    def grow(self, tokens: Sequence[int], kept: Sequence[int]) -> torch.Tensor:
        import torch

        if len(kept) < len(self._images):
            self._images = [self._images[i] for i in kept]
            self._cache.reorder_cache(torch.tensor(kept, device=self.prefix.model.device))
        return self._step(torch.tensor(tokens)[:, None], 1)[:, -1]

    def likelihoods(self, begins: Sequence[int]) -> list[float]:
        import torch

        stems = [suffix[:-1] for _, suffix in self.branches]
        width = max(map(len, stems))
        self._images, self._depth = [image for image, _ in self.branches], 0
        logits = self.prefix.last[self._images][:, None]
        if width:
            # Padding on the right is seen by nothing before it.
            ids = torch.tensor([stem + [0] * (width - len(stem)) for stem in stems])
            self._cache = self.prefix.fork(self._images, width)
            logits = torch.cat([logits.to(self.prefix.model.dtype), self._step(ids, width)], 1)
        sums = []
        for row, ((_, suffix), begin) in enumerate(zip(self.branches, begins, strict=True)):
            wanted = suffix[begin:]
            nodes = range(begin, len(suffix))
            sums.append(float(picked(logits, [row] * len(wanted), list(nodes), wanted).sum()))
        return sums

    def _step(self, ids: torch.Tensor, wanted: int) -> torch.Tensor:
        import torch

        ids = ids.to(self.prefix.model.device)
        depths = torch.arange(self._depth, self._depth + ids.shape[1], device=ids.device).expand_as(ids)
        self._depth += ids.shape[1]
        return self.prefix.forward(self._cache, self._images, ids, depths, None, wanted)


def picked(
    logits: torch.Tensor, rows: Sequence[int], places: Sequence[int], tokens: Sequence[int]
) -> torch.Tensor:
    """The log P of a token at each (row, place) of logits [R, n, V], in float64 on the CPU; the softmax is in
    float32, some places at a time: a vocabulary is wide.
    """
    import torch

    found = []
    step = max(1, 2**20 // logits.shape[-1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        chosen = logits[list(rows[part]), list(places[part])].float()
        wanted = torch.tensor(tokens[part], device=chosen.device)
        found.append(-torch.nn.functional.cross_entropy(chosen, wanted, reduction="none").double().cpu())
    return torch.cat(found)


def greedy(branches: Branches, max_tokens: int, ends: frozenset[int]) -> list[list[int]]:
    """Continue each branch with the likeliest token up to an end, which is included, or ``max_tokens``."""
    logits = branches.plant()
    found: list[list[int]] = [[] for _ in branches.branches]
    live = list(range(len(found)))
    while True:
        chosen = logits.float().argmax(-1).tolist()
        for branch, token in zip(live, chosen, strict=True):
            found[branch].append(token)
        kept = [i for i, token in enumerate(chosen) if token not in ends]
        if not kept or len(found[live[0]]) >= max_tokens:
            return found
        live = [live[i] for i in kept]
        logits = branches.grow([chosen[i] for i in kept], kept)
