"""What a vision-language model holds of an image on its way: hidden states, tower, projector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from snellen.errors import Unsupported
from snellen.models.huggingface.vlm import Row, VisionLanguageModel
from snellen.types import Request

if TYPE_CHECKING:
    import torch

__all__ = ["PLACES", "features"]

#: What the parts are called, by what the architectures of transformers call their modules.
PLACES = {
    "vision tower": ("vision_tower", "vision_model", "visual", "vision_encoder"),
    "projector": ("multi_modal_projector", "connector", "modality_projection", "merger", "embed_vision"),
}


def features(model: VisionLanguageModel, request: Request, layers: str = "last") -> dict[str, torch.Tensor]:
    """Features of a request's prompt, read off one forward pass: name → [width], float32.

    ``layer K, last token`` and ``layer K, mean`` (over the prompt's tokens) for the last layer, or for all
    with ``layers="all"``; and, where the architecture has them under a known name, the means over the outputs
    of the vision tower and of the projector.

    Args:
        request: with one image.

    Raises:
        Unsupported: the architecture gives no hidden states.
    """
    import torch

    model.load()
    row = Row(request, model.prompt(request.messages))
    with torch.inference_mode(), _watched(model.decoder) as seen:
        inputs = model.on_device(model.process(row.prompt, request.images))
        output = model.decoder(**inputs, output_hidden_states=True)
    inner = getattr(output, "language_model_outputs", output)
    states = getattr(inner, "hidden_states", None) or getattr(inner, "decoder_hidden_states", None)
    if not states:
        raise Unsupported(
            f"{model.name}: {model.architecture} gives no hidden states, so it cannot be probed."
        )
    found: dict[str, torch.Tensor] = {}
    for k in range(len(states)) if layers == "all" else [len(states) - 1]:
        state = states[k][0].float()
        found[f"layer {k}, last token"] = state[-1].cpu()
        found[f"layer {k}, mean"] = state.mean(0).cpu()
    means = {name: value.float().flatten(0, -2).mean(0).cpu() for name, value in seen.items()}
    return found | means


@contextmanager
def _watched(decoder: Any) -> Iterator[dict[str, Any]]:
    """The outputs of the vision tower and the projector, as they come about."""
    seen: dict[str, Any] = {}
    handles = []
    for place, names in PLACES.items():
        for path, module in decoder.named_modules():
            if path.rpartition(".")[2] in names:

                def keep(_: Any, __: Any, output: Any, place: str = place) -> None:
                    found = getattr(output, "last_hidden_state", output)
                    found = found[0] if isinstance(found, tuple) else found
                    seen[place] = found.detach()

                handles.append(module.register_forward_hook(keep))
                break
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
