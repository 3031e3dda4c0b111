"""How large images are when a model sees them: what processors offer, and a limit for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snellen.errors import BadOption
from snellen.images import shrunk
from snellen.models.huggingface.recorded import recorded

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image as Pixels

    from snellen.images import Image

__all__ = ["ImageSize"]


@dataclass(frozen=True, kw_only=True)
class ImageSize:
    """Limits of images in pixels.

    Attributes:
        max_side: larger images are shrunk before the processor sees them.
        min_pixels, max_pixels: passed on to the processor, in the way that it offers.

    Raises:
        BadOption: a limit that is not positive, or a minimum above the maximum.
    """

    max_side: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise BadOption(f"{name}={value} is not allowed; allowed: 1 or more.")
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise BadOption(f"min_pixels={self.min_pixels} is above max_pixels={self.max_pixels}.")

    @classmethod
    def recorded(cls, folder: Path | str | None) -> ImageSize:
        """Return the limits with which the model in a folder was fine-tuned; none if it was not."""
        limits = recorded(folder).get("image_size")
        known = limits if isinstance(limits, dict) else {}
        sizes = {name: known.get(name) for name in vars(cls())}
        return cls(**{name: size for name, size in sizes.items() if isinstance(size, int) and size > 0})

    def identity(self) -> dict[str, int]:
        """Return the limits that are set."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def pixels(self, image: Image) -> Pixels:
        """Return the picture, shrunk if a side is longer than ``max_side``.

        Raises:
            ImageError: it cannot be read.
        """
        return shrunk(image.pixels, self.max_side)

    def apply(self, processor: Any, model: Any) -> None:
        """Set the limits of a processor, and of the model that relies on them.

        Raises:
            BadOption: the processor does not offer the limit.
        """
        if self.min_pixels is None and self.max_pixels is None:
            return
        images = getattr(processor, "image_processor", processor)
        size = _as_dict(getattr(images, "size", None))
        if size.get("longest_edge") and size.get("shortest_edge"):  # Qwen: of the area, in pixels
            low, high = self.min_pixels or size["shortest_edge"], self.max_pixels or size["longest_edge"]
            images.size = _like(
                images.size, {"shortest_edge": min(low, high), "longest_edge": max(low, high)}
            )
        elif getattr(images, "image_grid_pinpoints", None):  # LLaVA-NeXT: grids of tiles
            self._choose_grids(images, model)
        elif getattr(images, "max_patches", None):  # InternVL: tiles
            self._limit_tiles(images, size["height"] * size["width"])
        elif size.get("longest_edge") and self.min_pixels is None:  # Idefics, SmolVLM, Pixtral: of a side
            side = max(1, int((self.max_pixels or 0) ** 0.5))
            images.size = _like(images.size, {"longest_edge": side})
        else:
            raise BadOption(
                f"{type(images).__name__} offers no min_pixels and max_pixels (such processors resize every "
                "image to one size). To shrink large images: -M max_side=N"
            )

    def _choose_grids(self, images: Any, model: Any) -> None:
        grids = [list(grid) for grid in images.image_grid_pinpoints]
        kept = [
            (height, width)
            for height, width in grids
            if (self.min_pixels or 0) <= height * width <= (self.max_pixels or height * width)
        ]
        if not kept:
            areas = ", ".join(f"{height * width:,}" for height, width in sorted(grids))
            raise BadOption(f"no grid of {type(images).__name__} is within these pixels; it has {areas}.")
        images.image_grid_pinpoints = model.config.image_grid_pinpoints = [list(grid) for grid in kept]

    def _limit_tiles(self, images: Any, tile: int) -> None:
        if self.min_pixels is not None:
            raise BadOption(f"{type(images).__name__} has no minimum; set max_pixels only.")
        images.max_patches = max(1, (self.max_pixels or tile) // tile)
        images.crop_to_patches = images.max_patches > 1


def _as_dict(size: Any) -> dict[str, int]:
    return {key: value for key, value in dict(size or {}).items() if value}


def _like(size: Any, values: dict[str, int]) -> Any:
    return values if isinstance(size, dict) else type(size)(**values)
