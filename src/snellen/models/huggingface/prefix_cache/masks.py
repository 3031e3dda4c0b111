"""What packed tokens attend to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["added", "masks"]


def masks(
    visible: torch.Tensor,
    seeing: torch.Tensor,
    seen: torch.Tensor,
    windows: Mapping[str, int | None],
    dtype: torch.dtype,
    *,
    mixed: bool,
) -> Any:
    """Return what attention adds to its scores: one mask, or one for each type of layer.

    Args:
        visible: bool [B, n, m].
        seeing: the places of the tokens that see [B, n].
        seen: the places of the tokens that are seen [B, m].
        windows: what each type of layer sees (see :attr:`.prefill.Prefix.windows`); empty if all see all.
        mixed: whether each type has its own mask.
    """
    if not windows:
        return added(visible, dtype)
    near = {kind: added(within(visible, seeing, seen, kind, width), dtype) for kind, width in windows.items()}
    return near if mixed else next(iter(near.values()))


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
