"""What packed tokens attend to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["added", "within"]


def within(
    visible: torch.Tensor, seeing: torch.Tensor, seen: torch.Tensor, kind: str, width: int | None
) -> torch.Tensor:
    """Return what layers of a kind see of what is visible.

    Args:
        visible: bool [B, n, m].
        seeing: the places of the tokens that see [B, n].
        seen: the places of the tokens that are seen [B, m].
        width: of the window or chunk; None if all is seen.
    """
    if not width:
        return visible
    if kind == "chunked_attention":
        return visible & (seeing[:, :, None] // width == seen[:, None] // width)
    return visible & (seeing[:, :, None] - seen[:, None] < width)


def added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what attention adds to its scores, [B, 1, n, m]: zero, or practically minus infinity."""
    import torch

    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill_(~mask, torch.finfo(dtype).min)[:, None]
