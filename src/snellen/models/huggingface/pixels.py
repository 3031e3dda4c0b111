"""What reads images: torchvision if it is installed, as it mostly is, or Pillow."""

from __future__ import annotations

import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["pixels_by", "without_torchvision"]


def pixels_by(folder: Path | None) -> str:
    """Return what resizes images, and its version: torchvision, if it is installed and the checkpoint does
    not name a class of Pillow's. Their pixels differ.

    Args:
        folder: the checkpoint's; None if it is on the Hub.
    """
    files = ("preprocessor_config.json", "processor_config.json") if folder is not None else ()
    present = [file for name in files if folder is not None and (file := folder / name).is_file()]
    # As in "image_processor_type": "CLIPImageProcessorPil"; what else such a file says does not matter.
    pillow = any(re.search(r'"\w*Pil"', file.read_text(encoding="utf-8")) for file in present)
    name = "pillow" if pillow or find_spec("torchvision") is None else "torchvision"
    return f"{name} {metadata.version(name)}"


def without_torchvision() -> None:
    """Build processors that also support video even if torchvision is missing.

    transformers makes a video processor a required part of them, and all of its video processors need
    torchvision. The replacement has what reading images needs, and refuses videos.
    """
    if find_spec("torchvision") is not None:
        return
    import transformers.models.auto.video_processing_auto as auto
    from transformers import processing_utils
    from transformers.video_processing_utils import VideoProcessorMixin

    module: Any = auto
    if getattr(module.AutoVideoProcessor, "stands_in", False):
        return

    class NoVideoProcessor(VideoProcessorMixin):  # type: ignore[misc]
        stands_in = True
        merge_size, patch_size, temporal_patch_size, num_frames, fps = 2, 14, 2, 1, 1

        def __init__(self, **options: Any) -> None:
            for name, value in options.items():
                if not name.startswith("_"):
                    setattr(self, name, value)

        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> NoVideoProcessor:
            return cls()

        def to_dict(self) -> dict[str, Any]:
            return {"video_processor_type": type(self).__name__}

        def preprocess(self, *_: Any, **__: Any) -> Any:
            raise ImportError("reading videos needs torchvision")

    module.AutoVideoProcessor = NoVideoProcessor
    lookup: Any = processing_utils
    lookup.transformers_module.VideoProcessorMixin = VideoProcessorMixin
