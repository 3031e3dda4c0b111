"""Prefill the common prefix of prompts: the images and the text that they share.

The key-value cache is then forked over the different suffixes, like the prompt caches of servers (Kwon et
al., arXiv 2309.06180).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from snellen.errors import SnellenError
from snellen.models.huggingface.prefix_cache.inputs import ImageContext

if TYPE_CHECKING:
    import torch

__all__ = ["CannotShare", "Prefix", "by_layer", "cached_bytes", "keep", "windows_of"]


class CannotShare(SnellenError):
    """An architecture, or its attention, cannot grow branches this way. The self-check catches it."""


class Prefix:
    """The first ``length`` tokens of some prompts, one prompt per image, prefilled.

    Args:
        model: a transformers decoder with images.
        looks: B contexts with equal numbers of image tokens.
        ids: one prompt per context.
        length: P, the number of shared tokens, which include all images.
        room: the number of additional tokens to reserve in the cache.
        recurrent: use the model's own cache layers.

    Attributes:
        last: [B, V], the logits after the prefix, in float32.
    """

    def __init__(
        self,
        model: Any,
        looks: Sequence[ImageContext],
        ids: Sequence[list[int]],
        length: int,
        *,
        room: int = 0,
        recurrent: bool = False,
    ) -> None:
        import torch
        from transformers import Cache, DynamicCache

        from snellen.models.huggingface.prefix_cache.kv import InPlaceCache

        self.model, self.length, self.count = model, length, len(looks)
        self.ids = [list(row[:length]) for row in ids]
        parts = [look.beginning(length) for look in looks]
        inputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        inputs["input_ids"] = torch.tensor(self.ids)
        inputs = {
            name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }
        # Keep all keys of sliding windows and let masks do the sliding, since branches of any depth need
        # them. Recurrent layers only work with their own cache.
        past: Any = Cache(layer_class_to_replicate=partial(InPlaceCache, room))
        if recurrent:
            past = DynamicCache(config=self._text)
        elif carried := [kind for kind in self._kinds if "attention" not in kind or "linear" in kind]:
            raise CannotShare(f"layers of {carried[0]} carry a recurrent state, which no mask can separate")
        elif unknown := [kind for kind in self._kinds if kind not in LIMITS]:
            raise CannotShare(f"what layers of {unknown[0]} see is not known")
        output = model(**inputs, past_key_values=past, use_cache=True, **keep(model, 1))
        self.cache = output.past_key_values
        self.last: torch.Tensor = output.logits[:, -1].float()
        self.start = length + self._delta(has_images=bool(looks[0].images))
        crossed = inputs.get("cross_attention_mask")
        self.crossed: torch.Tensor | None = None if crossed is None else crossed[:, -1:]

    def _delta(self, *, has_images: bool) -> torch.Tensor:
        """The offset between positions and token indices, [B, 1] (M-RoPE: an image takes fewer positions)."""
        import torch

        kept = rope_deltas(self.model) if has_images else None
        if kept is None:
            return torch.zeros(self.count, 1, dtype=torch.long, device=self.model.device)
        return kept.reshape(self.count, 1).to(self.model.device)

    @cached_property
    def _text(self) -> Any:
        return self.model.config.get_text_config(decoder=True)

    @property
    def nbytes(self) -> int:
        """The size of the cache, including reserved room."""
        return sum(size_of(layer) for layer in self.cache.layers)

    @cached_property
    def bytes_per_token(self) -> int:
        """The approximate cost of one more token: keys and values, logits, and a layer's intermediate
        values.
        """
        text, width = self._text, self.last.shape[-1]
        inner = max(filter(None, by_layer(text, "intermediate_size")), default=4 * text.hidden_size)
        held = 8 * text.hidden_size + 3 * inner
        return int(cached_bytes(self.model) + (held + 2 * width) * self.model.dtype.itemsize)

    @property
    def heads(self) -> int:
        """The number of attention heads per layer."""
        return max(by_layer(self._text, "num_attention_heads"))

    def begins(self, ids: list[int], most: int) -> bool:
        """Return whether a prompt, of which ``most`` tokens may form a prefix, starts with this one's only
        image.
        """
        return self.count == 1 and self.length <= most and ids[: self.length] == self.ids[0]

    def fork(self, images: Sequence[int], room: int) -> Any:
        """Return a cache with a row for each of ``images``; this one is unchanged."""
        import torch

        rows = torch.tensor(images, device=self.model.device)
        return self._with_layers(lambda layer: self._spread(layer, rows, room))

    def rewound(self) -> Any:
        """Return this cache, to be extended from the end of the prefix. Only the latest such cache is
        valid.
        """
        return self._with_layers(lambda layer: layer.rewound())

    def _with_layers(self, change: Callable[[Any], Any]) -> Any:
        cache = copy.copy(self.cache)
        cache.layers = [change(layer) for layer in self.cache.layers]
        return cache

    @staticmethod
    def _spread(layer: Any, rows: torch.Tensor, room: int) -> Any:
        if hasattr(layer, "spread"):
            return layer.spread(rows, room)
        copied = copy.deepcopy(layer)  # recurrent layers write in place
        copied.reorder_cache(rows)
        return copied

    def forward(
        self,
        cache: Any,
        images: Sequence[int],
        tokens: torch.Tensor,
        depths: torch.Tensor,
        mask: Any,
        wanted: int,
    ) -> torch.Tensor:
        """Return the logits [R, wanted, V] after the last ``wanted`` of the tokens [R, n] at these depths
        [R, n].
        """
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
        """Return the positions [R, n] of tokens at these depths behind the prefix."""
        return self.start[list(images)] + depths

    @property
    def _kinds(self) -> Sequence[str]:
        """The layer types, if there are several."""
        return getattr(self._text, "layer_types", None) or ()

    @cached_property
    def windows(self) -> Mapping[str, int | None]:
        """The tokens that each type of layer sees: in a sliding window of this width, or in a chunk; None is
        all. Empty if all layers see all.
        """
        return windows_of(self._text)

    @cached_property
    def mixed(self) -> bool:
        """Whether each layer type has its own mask."""
        return bool(self._kinds)

    @cached_property
    def attention(self) -> str:
        """The attention implementation: ``sdpa``, ``eager`` …"""
        return str(
            getattr(self._text, "_attn_implementation", None) or self.model.config._attn_implementation
        )


#: The settings that limit what layers of a type see.
LIMITS = {
    "full_attention": "",
    "sliding_attention": "sliding_window",
    "chunked_attention": "attention_chunk_size",
}


def rope_deltas(model: Any) -> torch.Tensor | None:
    """Return what the Qwen-VL family stores in a module for the prompt prefilled last: the offset of its
    positions. Which module it is, is looked for once: models have hundreds.
    """
    if model not in KEEPERS:
        KEEPERS[model] = next((n for n, m in model.named_modules() if hasattr(m, "rope_deltas")), None)
    name = KEEPERS[model]
    delta: torch.Tensor | None = None if name is None else model.get_submodule(name).rope_deltas
    return delta


#: The name of that module, by model.
KEEPERS: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()


def windows_of(text: Any) -> Mapping[str, int | None]:
    """Return how many tokens each type of layer sees (see :attr:`Prefix.windows`).

    Args:
        text: the configuration of the decoder.
    """
    kinds = list(dict.fromkeys(getattr(text, "layer_types", None) or ["sliding_attention"]))
    widths = {kind: getattr(text, LIMITS.get(kind) or "", None) for kind in kinds}
    return widths if any(widths.values()) else {}


def keep(model: Any, count: int) -> dict[str, Any]:
    """Return the option that computes only the last ``count`` logits, if the model has it."""
    return {"logits_to_keep": count} if _keeps(type(model).forward) else {}


@cache
def _keeps(forward: Any) -> bool:
    """Cached, since it is used for each generated token and slow to determine."""
    return "logits_to_keep" in inspect.signature(forward).parameters


def cached_bytes(model: Any) -> int:
    """Return the size of one token's keys and values in all layers."""
    text = model.config.get_text_config(decoder=True)
    names = ("num_attention_heads", "num_key_value_heads", "head_dim")
    layers = zip(*(by_layer(text, name) for name in names), strict=True)
    values = sum((kept or heads) * (width or text.hidden_size // heads) for heads, kept, width in layers)
    return int(2 * values * model.dtype.itemsize)


def by_layer(config: Any, name: str) -> list[int]:
    """Return a setting of each layer, 0 if there is none. Layers differ in Gemma 3n and 4."""
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # transformers does not tell one value of all layers where they differ
        return [getattr(layer, name, None) or 0 for layer in config.per_layer_config]
    return list(value) if isinstance(value, Sequence) else [value or 0] * config.num_hidden_layers


def size_of(layer: Any) -> int:
    """Return the size of a cache layer's tensors, whatever its type."""
    if hasattr(layer, "nbytes"):
        return int(layer.nbytes)
    held = list(vars(layer).values())
    held += chain.from_iterable(h.values() for h in held if isinstance(h, dict))
    return sum(int(tensor.nbytes) for tensor in held if hasattr(tensor, "nbytes"))
