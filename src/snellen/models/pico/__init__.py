"""The built-in models: real, tiny, trained from scratch by :mod:`snellen.pico_recipe.train`."""

from __future__ import annotations

from snellen.errors import UnknownName, did_you_mean
from snellen.models.base import MODELS, Model
from snellen.models.builtin import NAMES, WEIGHTS
from snellen.models.huggingface.options import PrefixMode

__all__ = ["NAMES", "WEIGHTS", "pico"]


@MODELS.register("pico", example="pico:llava, pico:llava-skewed, pico:clip, pico:classifier")
def pico(
    name: str, *, device: str = "auto", prefix: PrefixMode = "auto", max_side: int | None = None
) -> Model:
    """Built-in tiny models trained on the charts: llava, llava-skewed, clip, classifier.

    Options: ``device``, ``max_side`` and, for the LLaVAs, ``prefix`` as for hf.

    Raises:
        UnknownName: no such built-in model.
        MissingExtra: transformers or torch is not installed.
    """
    if name not in NAMES:
        raise UnknownName(
            f"Unknown built-in model {'pico:' + name!r}.{did_you_mean(name, NAMES)} "
            f"Known: {', '.join(f'pico:{n}' for n in NAMES)}."
        )
    from snellen.models.classifier import Classifier
    from snellen.models.dual_encoder import DualEncoder
    from snellen.models.huggingface.checkpoint import Checkpoint
    from snellen.models.huggingface.image_size import ImageSize
    from snellen.models.huggingface.vlm import VisionLanguageModel

    weights = Checkpoint.find(f"pico:{name}", str(WEIGHTS / name), device=device)
    weights = weights.showing(ImageSize(max_side=max_side))
    if name == "clip":
        return DualEncoder(weights)
    if name == "classifier":
        return Classifier(weights)
    return VisionLanguageModel(weights, prefix)
