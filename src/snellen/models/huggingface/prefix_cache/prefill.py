"""A prompt's beginning, computed once: the images, and the text that several prompts share.

The key-value cache is then forked over what differs, as prompt caches of servers do (Kwon et al.,
arXiv 2309.06180).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from snellen.errors import SnellenError
from snellen.models.huggingface.prefix_cache.inputs import ImageContext

if TYPE_CHECKING:
    import torch

__all__ = ["CannotShare", "Prefix", "cached_bytes", "keep"]


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
        # Growing keeps all keys of sliding windows, and masks do the sliding: branches of any depth need
        # them. Recurrent layers know no other way than their own.
        past: Any = Cache(layer_class_to_replicate=partial(InPlaceCache, room))
        if recurrent:
            past = DynamicCache(config=self._text)
        elif carried := [kind for kind in self._kinds if "attention" not in kind or "linear" in kind]:
            raise CannotShare(f"layers of {carried[0]} carry a state that no mask divides")
        output = model(**inputs, past_key_values=past, use_cache=True, **keep(model, 1))
        self.cache = output.past_key_values
        self.last: torch.Tensor = output.logits[:, -1].float()
        self.start = length + self._delta(has_images=bool(looks[0].images))
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
        return sum(size_of(layer) for layer in self.cache.layers)

    @cached_property
    def bytes_per_token(self) -> int:
        """About what one more token takes: keys and values, logits, and what a layer holds meanwhile."""
        text, width = self._text, self.last.shape[-1]
        held = 8 * text.hidden_size + 3 * getattr(text, "intermediate_size", 4 * text.hidden_size)
        return int(cached_bytes(self.model) + (held + 2 * width) * self.model.dtype.itemsize)

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
    return {"logits_to_keep": count} if _keeps(type(model).forward) else {}


@cache
def _keeps(forward: Any) -> bool:
    """Asked for each token that is generated, and slow to find out."""
    return "logits_to_keep" in inspect.signature(forward).parameters


def cached_bytes(model: Any) -> int:
    """What a token's keys and values take, in all layers."""
    text = model.config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * width * model.dtype.itemsize)


def size_of(layer: Any) -> int:
    """The bytes of a cache layer's tensors, whatever sort of layer it is."""
    if hasattr(layer, "nbytes"):
        return int(layer.nbytes)
    held = list(vars(layer).values())
    held += chain.from_iterable(h.values() for h in held if isinstance(h, dict))
    return sum(int(tensor.nbytes) for tensor in held if hasattr(tensor, "nbytes"))
