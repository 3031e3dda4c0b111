"""Weights under the names that servers read."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["for_servers"]

#: Vision towers whose inner module transformers 5 no longer names. vLLM and older versions read the names of
#: the Hub's checkpoints (``vision_tower.vision_model.embeddings…``), and so does transformers 5.
TOWERS = frozenset({"clip_vision_model", "siglip_vision_model"})
OUTER, INNER = "vision_tower.", "vision_model."


def for_servers(folder: Path) -> None:
    """Rename the weights of a saved checkpoint as its architecture's checkpoints on the Hub name them.

    Args:
        folder: of a whole model, as ``save_pretrained`` wrote it; adapters and others are left alone.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    config = folder / "config.json"
    if not config.exists():
        return
    vision = json.loads(config.read_text(encoding="utf-8")).get("vision_config") or {}
    if vision.get("model_type") not in TOWERS:
        return
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            metadata = weights.metadata()
            names = list(weights.keys())
            if all(name == _renamed(name) for name in names):
                continue
            tensors = {_renamed(name): weights.get_tensor(name) for name in names}
        part = file.with_name(f"{file.name}.part")
        save_file(tensors, part, metadata)
        part.replace(file)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text(encoding="utf-8"))
        content["weight_map"] = {_renamed(name): file for name, file in content["weight_map"].items()}
        index.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _renamed(name: str) -> str:
    head, outer, tail = name.partition(OUTER)
    # Only at the start, or after "model.": other modules keep their names.
    if not outer or head not in ("", "model.") or tail.startswith(INNER):
        return name
    return f"{head}{outer}{INNER}{tail}"
