"""What the tests of fine-tuning share."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from snellen.tuning.tuning import Tuning


def short(out: Path, workspace: Path, **more) -> Tuning:
    """A tuning of seconds."""
    more = {"settings": {"max_steps": 6, "save_steps": 2}, "train_limit": 112, **more}
    if more.get("recipe") != "head" and more.get("model") != "pico:clip":  # these answer no questions
        more = {"retention_data": ("chart:shapes?ask=color&n=28",), **more}
    if more["settings"]:
        more["settings"] = {"per_device_train_batch_size": 8, "eval_steps": 6, **more["settings"]}
    return Tuning(
        model=more.pop("model", "pico:llava-skewed"),
        data="chart:shapes?n=28",
        out=out,
        workspace=workspace,
        **more,
    )


def half(folder: Path) -> Path:
    """The built-in skewed model in half precision."""
    from snellen.models.pico import WEIGHTS

    out = folder / "half"
    if not out.exists():
        from safetensors.torch import save_file

        shutil.copytree(WEIGHTS / "llava-skewed", out)
        weights = load_file(out / "model.safetensors")
        cut = {key: value.to(torch.bfloat16) for key, value in weights.items()}
        save_file(cut, out / "model.safetensors", metadata={"format": "pt"})
    return out
