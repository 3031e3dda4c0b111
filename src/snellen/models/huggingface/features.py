"""A vision-language model's internal features of an image: hidden states, vision tower, projector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from snellen._util.files import write_atomic
from snellen.errors import StoreError, Unsupported
from snellen.models.huggingface.prompted import PromptRow
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.types import Request, Sample, ask

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["PLACES", "batched", "features", "stored"]

#: The file of feature names in a folder; and the number of rows between updates of the count.
INDEX, OFTEN = "index.json", 32

#: Names of the parts, by the module names in transformers' architectures.
PLACES = {
    "vision tower": ("vision_tower", "vision_model", "visual", "vision_encoder"),
    "projector": ("multi_modal_projector", "connector", "modality_projection", "merger", "embed_vision"),
}


class Samples(Protocol):
    """Samples by position, each with a hash of its content."""

    def __getitem__(self, position: int) -> Sample: ...

    def digest(self, position: int) -> str:
        """Return a hash of a sample's content."""


def features(model: VisionLanguageModel, request: Request, layers: str = "last") -> dict[str, torch.Tensor]:
    """Compute features of a request's prompt in one forward pass: name → [width], float32.

    ``layer K, last token`` and ``layer K, mean`` (over the prompt's tokens) for the last layer, or for
    all with ``layers="all"``; and, if the architecture has them under a known name, the mean outputs of
    the vision tower and of the projector.

    Args:
        request: with one image.

    Raises:
        Unsupported: the architecture does not expose hidden states.
    """
    return batched(model, [request], layers)[0]


def batched(
    model: VisionLanguageModel, requests: Sequence[Request], layers: str = "last"
) -> list[dict[str, torch.Tensor]]:
    """Return the :func:`features` of each request; those whose images have the same size share a forward
    pass, as far as memory allows.

    Raises:
        Unsupported: as for :func:`features`.
    """
    model.load()
    alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for place, request in enumerate(requests):
        alike.setdefault(tuple(image.size for image in request.images), []).append(place)
    found: dict[int, dict[str, torch.Tensor]] = {}
    for places in alike.values():
        rows = [PromptRow(requests[i], model.prompt(requests[i].messages)) for i in places]
        found |= zip(places, model.fitting(rows, partial(_of_rows, model, layers)), strict=True)
    return [found[i] for i in range(len(requests))]


def _of_rows(
    model: VisionLanguageModel, layers: str, rows: Sequence[PromptRow]
) -> list[dict[str, torch.Tensor]]:
    import torch

    count = len(rows)
    with torch.inference_mode(), _watched(model.decoder) as seen:
        shown = [(row.prompt, row.request.images) for row in rows]
        inputs = model.on_device(model.process_all(shown, "left"))
        padded = count > 1 and not bool(inputs["attention_mask"].all())
        output = None if padded else model.decoder(**inputs, output_hidden_states=True)
    # Rows without padding are those of single prompts, and outputs are in the order of the images.
    parts = {name: torch.cat([value.flatten(0, -2) for value in values]) for name, values in seen.items()}
    if padded or any(len(part) % count for part in parts.values()):
        return [found for row in rows for found in _of_rows(model, layers, [row])]
    inner = getattr(output, "language_model_outputs", output)
    states = getattr(inner, "hidden_states", None) or getattr(inner, "decoder_hidden_states", None)
    if not states:
        raise Unsupported(
            f"{model.name}: {model.architecture} does not expose hidden states, so it cannot be probed."
        )
    vectors: dict[str, torch.Tensor] = {}
    for k in range(len(states)) if layers == "all" else [len(states) - 1]:
        state = states[k].float()
        vectors[f"layer {k}, last token"] = state[:, -1].cpu()
        vectors[f"layer {k}, mean"] = state.mean(1).cpu()
    vectors |= {
        name: part.float().reshape(count, -1, part.shape[-1]).mean(1).cpu() for name, part in parts.items()
    }
    return [{name: values[row] for name, values in vectors.items()} for row in range(count)]


def stored(
    model: VisionLanguageModel,
    samples: Samples,
    places: Sequence[int],
    prompt: str,
    top: Path,
    layers: str = "last",
    watch: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Return features of samples by name, [samples, width] each, float32, memory-mapped in a folder below
    ``top``; only missing ones are computed. It can be interrupted and resumed.

    Args:
        samples: such as a :class:`~snellen.datasets.base.Selection`.
        places: their positions.
        watch: called with the number done and the total.

    Raises:
        Unsupported: as for :func:`features`.
        ImageError: an image that cannot be read.
        StoreError: they cannot be written.
    """
    import numpy as np

    digests = [samples.digest(i) for i in places]
    key = json.dumps([dict(model.identity()), digests, prompt, layers], sort_keys=True)
    folder = top / hashlib.sha256(key.encode()).hexdigest()[:24]
    part = folder.with_suffix(".part")
    try:
        if not folder.exists():
            part.mkdir(parents=True, exist_ok=True)
            _fill(part, model, samples, places, prompt, layers, watch)
            with suppress(OSError):  # another process may have been faster
                part.rename(folder)
        names = json.loads((folder / INDEX).read_text())
    except OSError as error:
        raise StoreError(f"{folder}: features cannot be written ({error.strerror}).") from error
    return {name: np.load(folder / f"{i}.npy", mmap_mode="r") for i, name in enumerate(names)}


def _fill(
    part: Path,
    model: VisionLanguageModel,
    samples: Samples,
    places: Sequence[int],
    prompt: str,
    layers: str,
    watch: Callable[[int, int], None] | None,
) -> None:
    """Compute missing rows. The count is written after the rows are on disk."""
    import numpy as np

    count, index = part / "done", part / INDEX
    done = int(count.read_text() or 0) if count.exists() and index.exists() else 0
    names: list[str] = json.loads(index.read_text()) if done else []
    files = [np.lib.format.open_memmap(part / f"{i}.npy", "r+") for i in range(len(names))]
    for start in range(done, len(places), OFTEN):
        end = min(start + OFTEN, len(places))
        rows = batched(model, [ask(samples[i].images, prompt) for i in places[start:end]], layers)
        if not names:
            names = list(rows[0])
            write_atomic(index, json.dumps(names))
            files = [
                np.lib.format.open_memmap(part / f"{i}.npy", "w+", np.float32, (len(places), len(value)))
                for i, value in enumerate(rows[0].values())
            ]
        for file, name in zip(files, names, strict=True):
            file[start:end] = [vectors[name].numpy() for vectors in rows]
            file.flush()
        write_atomic(count, str(end))
        if watch is not None:
            watch(end, len(places))


@contextmanager
def _watched(decoder: Any) -> Iterator[dict[str, list[Any]]]:
    """Collect the outputs of the vision tower and the projector, of each call."""
    seen: dict[str, list[Any]] = {}
    handles = []
    for place, names in PLACES.items():
        for path, module in decoder.named_modules():
            if path.rpartition(".")[2] in names:

                def keep(_: Any, __: Any, output: Any, place: str = place) -> None:
                    value = getattr(output, "last_hidden_state", output)
                    value = value[0] if isinstance(value, tuple) else value
                    seen.setdefault(place, []).append(value.detach())

                handles.append(module.register_forward_hook(keep))
                break
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
