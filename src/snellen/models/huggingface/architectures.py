"""What sets some architectures apart, by their ``model_type``."""

from __future__ import annotations

__all__ = ["NEED_IMAGE", "ONE_IMAGE", "PREFIX_LM", "UNPADDED", "UNSHARED"]

#: The prompt attends to what follows it.
PREFIX_LM = frozenset({"paligemma"})
#: They answer nothing without an image.
NEED_IMAGE = frozenset({"paligemma", "blip-2", "instructblip", "kosmos-2"})
#: Their positions, or their Q-Former's, would be shifted by padding on the left.
UNPADDED = frozenset({"instructblip", "kosmos-2", "florence2"})
#: They take one image; some of them would silently ignore the others.
ONE_IMAGE = frozenset({"blip-2", "instructblip", "kosmos-2", "florence2"})
#: Their questions share nothing, without a trial: of the unpadded ones, text reaches into the encoding of
#: the image, or the image into positions; BLIP-2 passes no cache on.
UNSHARED = UNPADDED | {"blip-2"}
