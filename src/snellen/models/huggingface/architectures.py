"""Special properties of some architectures, by ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping

from snellen.parsing.boxes import BoxFormat

__all__ = [
    "ALONE",
    "BOXES",
    "EQUAL_SIZES",
    "NEED_IMAGE",
    "NO_LIKELIHOOD",
    "ONE_IMAGE",
    "PIXELS_OF_INPUT",
    "PLACES_ARE_SPECIAL",
    "PREFIX_LM",
    "REFUSED",
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
NEED_IMAGE = frozenset({"blip", "paligemma", "blip-2", "instructblip", "kosmos-2"})
#: Why models of an architecture are refused: they answer no questions about images, or not as they are asked.
REFUSED: Mapping[str, str] = {
    "evolla": "it reads proteins, not images",
    "fuyu": "its processor does not take prompts and images as a batch",
    "got_ocr2": "it transcribes documents, and takes no question",
    "kosmos-2.5": "it transcribes documents, and takes no question",
    "pi0": "it controls robots, and answers no questions",
    "pix2struct": "its processor draws the question into the picture",
    "shieldgemma2": "it judges images by policies, and generates no answer",
    "vision-encoder-decoder": "it describes images, and takes no question",
}
#: The sum over a continuation's tokens is not its likelihood: answers are made by diffusion, image tokens are
#: not counted, or the processor adds tokens behind the continuation.
NO_LIKELIHOOD = frozenset({"diffusion_gemma", "git", "chameleon", "idefics"})
#: Their processors pad pictures of different sizes before they encode them, which changes them.
EQUAL_SIZES = frozenset({"emu3", "phi4_multimodal"})
#: Their answers depend on what else is in the batch, so that each is computed alone.
ALONE = frozenset({"minicpmv4_6", "minicpmv4_7"})
#: Left padding would shift their positions, or those of their Q-Former.
UNPADDED = frozenset({"blip", "instructblip", "kosmos-2", "florence2"})
#: They accept one image; some of them silently ignore the others.
ONE_IMAGE = frozenset({"blip", "git", "blip-2", "instructblip", "kosmos-2", "florence2"})
#: Not tried for sharing: in the unpadded ones, text affects the encoding of
#: the image, or the image affects positions; BLIP-2 does not pass on a cache.
UNSHARED = UNPADDED | {"blip-2"}
