"""Special properties of some architectures, by ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping

from snellen.parsing.boxes import BoxFormat

__all__ = [
    "BOXES",
    "NEED_IMAGE",
    "ONE_IMAGE",
    "PIXELS_OF_INPUT",
    "PLACES_ARE_SPECIAL",
    "PREFIX_LM",
    "UNPADDED",
    "UNSHARED",
]

#: Box formats of the families trained to write them (sources in :mod:`snellen.parsing.boxes`).
BOXES: Mapping[str, BoxFormat] = {
    "paligemma": "loc",
    "florence2": "florence",
    "kosmos-2": "kosmos",
    "llava": "padded-unit",
    "qwen2_vl": "thousand",
    "qwen2_5_vl": "pixels",
    "qwen3_vl": "thousand",
    "qwen3_vl_moe": "thousand",
    "internvl": "thousand",
    "glm4v": "thousand",
    "glm4v_moe": "thousand",
    "glm46v": "thousand",
}
#: Their pixels refer to the rescaled picture.
PIXELS_OF_INPUT = frozenset({"qwen2_5_vl"})
#: Their coordinates are special tokens, which plain decoding would drop.
PLACES_ARE_SPECIAL = frozenset({"paligemma", "florence2", "kosmos-2"})

#: The prompt attends to what follows it.
PREFIX_LM = frozenset({"paligemma"})
#: They need an image.
NEED_IMAGE = frozenset({"paligemma", "blip-2", "instructblip", "kosmos-2"})
#: Left padding would shift their positions, or those of their Q-Former.
UNPADDED = frozenset({"instructblip", "kosmos-2", "florence2"})
#: They accept one image; some of them silently ignore the others.
ONE_IMAGE = frozenset({"blip-2", "instructblip", "kosmos-2", "florence2"})
#: Not tried for sharing: in the unpadded ones, text affects the encoding of
#: the image, or the image affects positions; BLIP-2 does not pass on a cache.
UNSHARED = UNPADDED | {"blip-2"}
